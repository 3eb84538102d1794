/**
 * System registers, PSTATE, traps: what an embedded CPU models of EL1 (Arm ARM D23, C5.2).
 *
 * Modelled: SP_EL0, TPIDR_EL0/1/2 (stored), NZCV and DAIF (DAIF masks nothing: there are no
 * interrupts), CurrentEL (EL1), CTR_EL0 and DCZID_EL0 (64-byte lines, no DC ZVA), CNTVCT_EL0
 * (counts executed instructions, so that runs repeat). Any other register is undefined here. PAN,
 * UAO, SSBS, DIT and TCO have no effect without an MMU and user memory; SPSel would change which
 * stack pointer SP is and is undefined.
 */

import { decode } from '../../a64/codec.js';
import { systemRegisterName } from '../../a64/system-registers.js';
import type { SystemRegister } from '../cpu.js';
import { NEXT, NZCV_SLOT, STOPPED, type Core } from './core.js';
import { OP } from './operations.js';

interface ModelledRegister {
  readonly read?: (core: Core) => bigint;
  readonly write?: (core: Core, value: bigint) => void;
}

function stored(name: SystemRegister): ModelledRegister {
  return {
    read: (core) => core.system[name],
    write: (core, value) => {
      core.system[name] = value;
    },
  };
}

const REGISTERS: Readonly<Record<string, ModelledRegister>> = {
  sp_el0: stored('sp_el0'),
  tpidr_el0: stored('tpidr_el0'),
  tpidr_el1: stored('tpidr_el1'),
  tpidr_el2: stored('tpidr_el2'),
  nzcv: {
    read: (core) => BigInt(core.lo[NZCV_SLOT] as number) << 28n,
    write: (core, value) => {
      core.lo[NZCV_SLOT] = Number((value >> 28n) & 15n);
    },
  },
  daif: {
    read: (core) => BigInt(core.daif) << 6n,
    write: (core, value) => {
      core.daif = Number((value >> 6n) & 15n);
    },
  },
  currentel: { read: () => 1n << 2n },
  // IDC and DIC clear, lines of 64 bytes
  ctr_el0: { read: () => 0x84448004n },
  // DZP: DC ZVA is prohibited
  dczid_el0: { read: () => 1n << 4n },
  cntvct_el0: { read: (core) => BigInt(core.executed + core.pending) },
};

function undefinedInstruction(core: Core, word: number): number {
  core.stop = { kind: 'undefined', word: word >>> 0 };
  return STOPPED;
}

export function executeSystem(core: Core, records: Int32Array, at: number): number {
  const head = records[at] as number;
  const word = records[at + 1] as number;
  const d = (head >>> 8) & 63;
  const op = head & 255;
  const known = op === OP.TRAP ? core.traps.get(word) : undefined;
  if (known) {
    core.stop = known;
    return STOPPED;
  }
  const decoded = decode(word);
  const get = (name: string): number => decoded?.fields[name] ?? 0;
  switch (op) {
    case OP.CLEAR_EXCLUSIVE:
      core.monitor = -1n;
      return NEXT;
    case OP.STRIP: {
      // Strip(): with 48-bit VA bits 63..48 become what bit 55 says about the half of the address space
      const value = core.x(d);
      const kernelHalf = (value >> 55n) & 1n ? 0xffff_0000_0000_0000n : 0n;
      core.setX(d, kernelHalf | BigInt.asUintN(48, value));
      return NEXT;
    }
    case OP.READ_SYSTEM:
    case OP.WRITE_SYSTEM: {
      const fields = {
        o0: get('o0'),
        op1: get('op1'),
        CRn: get('CRn'),
        CRm: get('CRm'),
        op2: get('op2'),
      };
      const register = REGISTERS[systemRegisterName(fields)];
      if (op === OP.READ_SYSTEM) {
        if (!register?.read) return undefinedInstruction(core, word);
        core.setX(d, register.read(core));
      } else {
        if (!register?.write) return undefinedInstruction(core, word);
        register.write(core, core.x(d));
      }
      return NEXT;
    }
    case OP.WRITE_PSTATE: {
      const operand = get('op1') * 8 + get('op2');
      if (operand === 0o05) return undefinedInstruction(core, word);
      if (operand === 0o36) core.daif |= get('CRm');
      if (operand === 0o37) core.daif &= ~get('CRm');
      return NEXT;
    }
    case OP.TRAP: {
      const sem = decoded?.row.sem;
      if (sem?.kind !== 'trap') return undefinedInstruction(core, word);
      core.stop = { kind: 'trap', instruction: sem.instruction, immediate: get('imm16') };
      core.traps.set(word, core.stop);
      return STOPPED;
    }
    case OP.UNDEFINED:
      return undefinedInstruction(core, word);
    default:
      throw new RangeError(`system operation ${op}`);
  }
}
