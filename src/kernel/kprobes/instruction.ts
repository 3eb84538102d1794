/**
 * What kprobes does with the instruction that its BRK replaces: refuse it, execute a copy of it somewhere else, or act as
 * it would where the copy would see another pc.
 *
 * Reference: arch/arm64/kernel/probes/decode-insn.c (arm_probe_decode_insn, aarch64_insn_is_steppable),
 * simulate-insn.c. Left out: probes between LDXR and STXR are refused by the LDXR or STXR alone, not by what
 * lies between them.
 */
import { decode, type Decoded } from '../../a64/codec.js';
import type { Cpu } from '../../cpu/cpu.js';

/** How a probed instruction is executed. */
export type Stepping =
  | { readonly kind: 'refused'; readonly why: string }
  /** A copy in an instruction slot. */
  | { readonly kind: 'slot' }
  /** Acts on the registers and sets pc. */
  | { readonly kind: 'simulated'; readonly run: (cpu: Cpu) => void };

/** Hints that are no pointer authentication of keys that differ, no event and no wait. */
const STEPPABLE_HINTS = /^(NOP|BTI|PACIASP|AUTIASP|PACIAZ|AUTIAZ|PACIBSP|AUTIBSP|XPACLRI)/;

const EXCEPTIONS = /^(SVC|HVC|SMC|BRK|HLT|UDF|ERET)/;
const EXCLUSIVES = /^(LDA?XR|STL?XR|LDA?XP|STL?XP)/;

const N = 8;
const Z = 4;
const C = 2;
const V = 1;

export function steppingOf(word: number): Stepping {
  const decoded = decode(word);
  if (!decoded) return { kind: 'refused', why: 'no instruction' };
  const { name } = decoded.row;
  if (EXCEPTIONS.test(name)) return { kind: 'refused', why: `${name} generates an exception` };
  if (EXCLUSIVES.test(name)) return { kind: 'refused', why: `${name} is of an exclusive sequence` };
  if (name.startsWith('MSR')) return { kind: 'refused', why: `${name} changes system state` };
  if (isHint(word) && !STEPPABLE_HINTS.test(name)) {
    return { kind: 'refused', why: `${name} cannot be stepped` };
  }
  const run = simulation(decoded);
  return run ? { kind: 'simulated', run } : { kind: 'slot' };
}

/** 1101 0101 0000 0011 0010 CRm op2 11111 */
function isHint(word: number): boolean {
  return (word & 0xfffff01f) >>> 0 === 0xd503201f;
}

/** What an instruction that depends on pc does; undefined for others. */
function simulation({ row, fields }: Decoded): ((cpu: Cpu) => void) | undefined {
  const get = (name: string): number => fields[name] ?? 0;
  const branchTo = (cpu: Cpu, words: number): void => {
    cpu.pc = BigInt.asUintN(64, cpu.pc + BigInt(4 * words));
  };
  const branchIf = (cpu: Cpu, taken: boolean, words: number): void =>
    branchTo(cpu, taken ? words : 1);
  switch (row.name) {
    case 'B':
      return (cpu) => branchTo(cpu, get('imm26'));
    case 'BL':
      return (cpu) => {
        cpu.setX(30, cpu.pc + 4n);
        branchTo(cpu, get('imm26'));
      };
    case 'B_cond':
      return (cpu) => branchIf(cpu, conditionHolds(get('cond'), cpu.nzcv), get('imm19'));
    case 'CBZ':
    case 'CBNZ':
      return (cpu) => {
        const value = BigInt.asUintN(get('sf') === 1 ? 64 : 32, read(cpu, get('Rt')));
        branchIf(cpu, (value === 0n) === (row.name === 'CBZ'), get('imm19'));
      };
    case 'TBZ':
    case 'TBNZ':
      return (cpu) => {
        const bit = BigInt(32 * get('b5') + get('b40'));
        const isSet = ((read(cpu, get('Rt')) >> bit) & 1n) === 1n;
        branchIf(cpu, isSet === (row.name === 'TBNZ'), get('imm14'));
      };
    case 'BR':
    case 'RET':
      return (cpu) => {
        cpu.pc = read(cpu, get('Rn'));
      };
    case 'BLR':
      return (cpu) => {
        const target = read(cpu, get('Rn'));
        cpu.setX(30, cpu.pc + 4n);
        cpu.pc = target;
      };
    case 'ADR':
    case 'ADRP':
      return (cpu) => {
        const isPage = row.name === 'ADRP';
        const immediate = BigInt.asIntN(21, BigInt((get('immhi') << 2) | get('immlo')));
        const base = isPage ? cpu.pc & ~0xfffn : cpu.pc;
        write(cpu, get('Rd'), base + (isPage ? immediate << 12n : immediate));
        branchTo(cpu, 1);
      };
    case 'LDR_literal':
    case 'LDRSW_literal':
      return (cpu) => {
        const address = cpu.pc + BigInt(4 * get('imm19'));
        write(cpu, get('Rt'), load(cpu, address, row.name === 'LDRSW_literal', get('sf') === 1));
        branchTo(cpu, 1);
      };
    default:
      return undefined;
  }
}

function load(cpu: Cpu, address: bigint, signed: boolean, wide: boolean): bigint {
  if (wide && !signed) return cpu.memory.read64(address);
  const word = BigInt(cpu.memory.read32(address) >>> 0);
  return signed ? BigInt.asIntN(32, word) : word;
}

function read(cpu: Cpu, register: number): bigint {
  return register === 31 ? 0n : cpu.getX(register);
}

function write(cpu: Cpu, register: number, value: bigint): void {
  if (register !== 31) cpu.setX(register, BigInt.asUintN(64, value));
}

/** Arm ARM ConditionHolds. */
function conditionHolds(condition: number, nzcv: number): boolean {
  const has = (flag: number): boolean => (nzcv & flag) !== 0;
  const base = [has(Z), has(C), has(N), has(V), has(C) && !has(Z), has(N) === has(V)][
    condition >> 1
  ];
  const holds = base ?? (condition >> 1 === 6 ? has(N) === has(V) && !has(Z) : true);
  return condition & 1 && condition !== 15 ? !holds : holds;
}
