/**
 * What a callback sees of the traced function's registers, and what it may change.
 *
 * struct ftrace_regs (112 bytes) has x0..x8, fp, lr, sp, pc; up to 6.1 it is a struct pt_regs (336 bytes),
 * whose x9 and up are saved by ftrace_regs_caller only. Names and what they answer are those of
 * ftrace_regs_query_register_offset.
 *
 * Usage (in a callback):
 *   regs.setReturnValue(0n);
 *   regs.overrideFunction(); // the traced function is skipped
 */
import { KernelError } from '../../common/errors.js';
import type { Memory } from '../../cpu/memory.js';
import { FTRACE_REGS, PT_REGS } from '../offsets.js';
import type { FtraceProfile } from './profile.js';

/** Registers that hold arguments. */
const ARGUMENTS = 8;

export class FtraceRegs {
  readonly address: bigint;
  readonly #memory: Memory;
  readonly #profile: FtraceProfile;

  constructor(memory: Memory, profile: FtraceProfile, address: bigint) {
    this.#memory = memory;
    this.#profile = profile;
    this.address = address;
  }

  /** Argument n of the traced function, 0 beyond x7. */
  argument(n: number): bigint {
    return n < ARGUMENTS ? this.#get(FTRACE_REGS.regs + 8 * n) : 0n;
  }

  setArgument(n: number, value: bigint): void {
    if (n >= ARGUMENTS) throw new RangeError(`argument ${n} is in no register`);
    this.#set(FTRACE_REGS.regs + 8 * n, value);
  }

  /** x0. */
  get returnValue(): bigint {
    return this.#get(FTRACE_REGS.regs);
  }

  setReturnValue(value: bigint): void {
    this.#set(FTRACE_REGS.regs, value);
  }

  /** Where ftrace_caller goes on: behind the BL of the site. */
  get pc(): bigint {
    return this.read('pc');
  }

  set pc(value: bigint) {
    this.write('pc', value);
  }

  /** Where the traced function returns to. */
  get lr(): bigint {
    return this.read('lr');
  }

  set lr(value: bigint) {
    this.write('lr', value);
  }

  get sp(): bigint {
    return this.read('sp');
  }

  /** ftrace_override_function_with_return: go to the caller as if the function had returned. */
  overrideFunction(): void {
    this.pc = this.lr;
  }

  read(name: string): bigint {
    return this.#get(this.queryOffset(name));
  }

  write(name: string, value: bigint): void {
    this.#set(this.queryOffset(name), value);
  }

  /** Offset of a register by name. Throws KernelError -EINVAL for one that is not there. */
  queryOffset(name: string): number {
    const isPtRegs = this.#profile.frame === 'pt_regs';
    const general = /^x(\d+)$/.exec(name)?.[1];
    const n = general === undefined ? -1 : Number(general);
    if (n >= 0 && n <= (isPtRegs ? 30 : 8)) return 8 * n;
    const special = isPtRegs ? PT_REGS : FTRACE_REGS;
    switch (name) {
      case 'x29':
        return special.fp;
      case 'x30':
      case 'lr':
        return special.lr;
      case 'sp':
        return special.sp;
      case 'pc':
        return special.pc;
      default:
        throw new KernelError(
          'EINVAL',
          `ftrace: arm64 ${this.#profile.version} saves no register '${name}'`,
        );
    }
  }

  #get(offset: number): bigint {
    return this.#memory.read64(this.address + BigInt(offset));
  }

  #set(offset: number, value: bigint): void {
    this.#memory.write64(this.address + BigInt(offset), value);
  }
}
