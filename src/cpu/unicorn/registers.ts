/**
 * The registers of a libunicorn CPU, kept on this side between runs.
 *
 * One batch read after a run and one batch write before the next (only when something was set) replace a call per
 * register. pc is an argument of each run and is never written. System registers are rare: each
 * access is a call, but TPIDR_EL2, which libunicorn does not let EL1 reach, lives here.
 */
import { u64 } from '../../common/bytes.js';
import type { Registers, SystemRegister } from '../cpu.js';
import { PSTATE_EL1H, UC_ARM64_REG } from './constants.js';
import { registerFile, type Pointer, type RegisterFile, type UnicornLibrary } from './library.js';

/** Places in the register file: X0..X30, then these. */
const SP_SLOT = 31;
export const NZCV_SLOT = 32;
export const PC_SLOT = 33;
const REGISTER_IDS = [
  ...Array.from({ length: 29 }, (_, index) => UC_ARM64_REG.X0 + index),
  UC_ARM64_REG.X29,
  UC_ARM64_REG.X30,
  UC_ARM64_REG.SP,
  UC_ARM64_REG.NZCV,
  UC_ARM64_REG.PC,
];

const SYSTEM_IDS: Readonly<Record<Exclude<SystemRegister, 'tpidr_el2'>, number>> = {
  sp_el0: UC_ARM64_REG.SP_EL0,
  tpidr_el0: UC_ARM64_REG.TPIDR_EL0,
  tpidr_el1: UC_ARM64_REG.TPIDR_EL1,
};

export class UnicornRegisters {
  /** X0..X30, SP, NZCV as in the register, pc. */
  readonly values: BigUint64Array;
  /** Halves of `values`. */
  readonly halves: Int32Array;
  /** For reads while a run goes on. */
  readonly live: RegisterFile;
  readonly liveHalves: Int32Array;

  readonly #unicorn: UnicornLibrary;
  readonly #handle: Pointer;
  readonly #file: RegisterFile;
  readonly #one = new BigUint64Array(new ArrayBuffer(128));
  /** The engine's own start values are replaced by zeros. */
  #dirty = true;
  #tpidrEl2 = 0n;

  constructor(unicorn: UnicornLibrary, handle: Pointer) {
    this.#unicorn = unicorn;
    this.#handle = handle;
    this.#file = registerFile(unicorn, REGISTER_IDS);
    this.values = this.#file.values;
    this.halves = new Int32Array(this.values.buffer);
    this.live = registerFile(unicorn, REGISTER_IDS);
    this.liveHalves = new Int32Array(this.live.values.buffer);
    this.#one[0] = PSTATE_EL1H;
    unicorn.writeRegister(handle, UC_ARM64_REG.PSTATE, this.#one);
  }

  /** Gives the engine what was set. */
  write(): void {
    if (!this.#dirty) return;
    this.#unicorn.writeRegisters(this.#handle, this.#file, PC_SLOT);
    this.#dirty = false;
  }

  /** Takes over what a run has left. */
  read(): void {
    this.#unicorn.readRegisters(this.#handle, this.#file);
  }

  getX(register: number): bigint {
    return this.values[checked(register)] as bigint;
  }

  setX(register: number, value: bigint): void {
    this.values[checked(register)] = value;
    this.#dirty = true;
  }

  get sp(): bigint {
    return this.values[SP_SLOT] as bigint;
  }

  set sp(value: bigint) {
    this.values[SP_SLOT] = value;
    this.#dirty = true;
  }

  get pc(): bigint {
    return this.values[PC_SLOT] as bigint;
  }

  set pc(value: bigint) {
    this.values[PC_SLOT] = value;
  }

  get nzcv(): number {
    return (this.halves[2 * NZCV_SLOT] as number) >>> 28;
  }

  set nzcv(value: number) {
    this.values[NZCV_SLOT] = BigInt(value & 15) << 28n;
    this.#dirty = true;
  }

  getSystem(register: SystemRegister): bigint {
    if (register === 'tpidr_el2') return this.#tpidrEl2;
    this.#unicorn.readRegister(this.#handle, SYSTEM_IDS[register], this.#one);
    return this.#one[0] as bigint;
  }

  setSystem(register: SystemRegister, value: bigint): void {
    if (register === 'tpidr_el2') {
      this.#tpidrEl2 = u64(value);
      return;
    }
    this.#one[0] = value;
    this.#unicorn.writeRegister(this.#handle, SYSTEM_IDS[register], this.#one);
  }

  save(): Registers {
    return {
      x: Array.from(this.values.subarray(0, 31)),
      sp: this.sp,
      pc: this.pc,
      nzcv: this.nzcv,
      system: {
        sp_el0: this.getSystem('sp_el0'),
        tpidr_el0: this.getSystem('tpidr_el0'),
        tpidr_el1: this.getSystem('tpidr_el1'),
        tpidr_el2: this.#tpidrEl2,
      },
    };
  }

  load(registers: Registers): void {
    registers.x.forEach((value, register) => this.setX(register, value));
    this.sp = registers.sp;
    this.pc = registers.pc;
    this.nzcv = registers.nzcv;
    for (const name of ['sp_el0', 'tpidr_el0', 'tpidr_el1', 'tpidr_el2'] as const) {
      this.setSystem(name, registers.system[name]);
    }
  }
}

function checked(register: number): number {
  if (register >= 0 && register <= 30) return register;
  throw new RangeError(`no register x${register}`);
}
