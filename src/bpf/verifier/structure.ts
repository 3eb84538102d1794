/**
 * What can be said about a function without walking it: whether its instructions are well formed and
 * all reachable, where states are worth keeping, which registers are read later.
 *
 * Reference: check_subprogs, check_cfg, visit_insn, compute_live_registers in kernel/bpf/verifier.c.
 */
import type { ErrnoName } from '../../common/errno.js';
import type { Slot } from '../instruction.js';
import type { Kfunc } from '../kfuncs/kfunc.js';
import { OPCODES, PSEUDO, type Opcode } from '../opcodes.js';
import { jumpDistance } from '../validate.js';
import { Refusal } from './error.js';
import type { VerifierFunction } from './input.js';
import { kfuncAt, kfuncParameters } from './kfunc-declarations.js';
import { CALLS_CALLBACK, CHANGES_PACKET, PROTOTYPES } from './prototypes.js';
import { reservedFields } from './reserved-fields.js';

/** Where states are compared; at all but `compare` one is always kept. */
export const PRUNE = { compare: 1, callback: 2, iterator: 3, mayGoto: 4 } as const;

export interface Structure {
  /** A value of `PRUNE`, or 0. */
  readonly prunePoints: Uint8Array;
  /** Registers that are read before they are written, from this slot on: bit N is RN. */
  readonly live: Uint16Array;
  /** What is wrong with the fields of an instruction, by slot: matters when a path gets there. */
  readonly malformed: ReadonlyMap<number, string>;
  /** Whether a call of it may move the packet's borders. */
  readonly changesPacket: boolean;
}

/** BPF_MAX_VAR_OFF */
const MAX_VALUE_OFFSET = 1 << 29;
const ARGUMENTS = 0b111110;
const CLOBBERED = 0b111111;

export function structureOf(functions: readonly VerifierFunction[]): Structure[] {
  for (const [fn, each] of functions.entries()) {
    checkFunction(fn, each);
    checkValues(fn, each);
  }
  const changing = packetChangers(functions);
  return functions.map((each, fn) => ({
    prunePoints: findPrunePoints(each),
    live: liveRegisters(each),
    malformed: malformedSlots(each.slots, functions.length),
    changesPacket: changing.has(fn),
  }));
}

function opcodeAt(slots: readonly Slot[], at: number): Opcode | undefined {
  return OPCODES[slots[at]?.code ?? -1];
}

export function successors(slots: readonly Slot[], at: number): readonly number[] {
  const slot = slots[at] as Slot;
  const opcode = opcodeAt(slots, at);
  if (!opcode || opcode.kind === 'exit') return [];
  const distance = jumpDistance(slot, opcode);
  const next = at + (opcode.kind === 'ld_imm64' ? 2 : 1);
  if (distance === undefined) return [next];
  return opcode.kind === 'goto' ? [at + 1 + distance] : [next, at + 1 + distance];
}

/** Offsets into the values of maps, in instructions (resolve_pseudo_ldimm64). */
function checkValues(fn: number, { references }: VerifierFunction): void {
  for (const [at, reference] of references) {
    if (reference.kind !== 'value') continue;
    const offset = reference.offset >>> 0;
    const { valueSize } = reference.map;
    const reason =
      offset >= MAX_VALUE_OFFSET
        ? `direct value offset of ${offset} is not allowed`
        : `invalid access to map value pointer, value_size=${valueSize} off=${offset}`;
    if (offset >= Math.min(MAX_VALUE_OFFSET, valueSize)) {
      throw new Refusal('EINVAL', reason, fn, at, '');
    }
  }
}

function checkFunction(fn: number, { slots }: VerifierFunction): void {
  const refuse = (errno: ErrnoName, at: number, reason: string): never => {
    throw new Refusal(errno, reason, fn, at, '');
  };
  if (slots.length === 0) refuse('EINVAL', 0, 'no instructions');
  const seconds = new Set<number>();
  for (let at = 0; at < slots.length; at++) {
    const opcode = opcodeAt(slots, at);
    const slot = slots[at] as Slot;
    if (!opcode) refuse('EINVAL', at, `unknown opcode ${hex2(slot.code)}`);
    if (opcode?.kind === 'load' && (opcode.probe || slot.imm !== 0)) {
      refuse('EINVAL', at, 'BPF_LDX uses reserved fields');
    }
    if (opcode?.kind !== 'ld_imm64') continue;
    const second = slots[at + 1];
    // that of a function has the function's number
    const { code, dst, src, off } = second ?? { code: -1, dst: 0, src: 0, off: 0 };
    if (code !== 0 || dst !== 0 || src !== 0 || (off !== 0 && slot.src !== PSEUDO.FUNC)) {
      refuse('EINVAL', at, 'invalid bpf_ld_imm64 insn');
    }
    seconds.add(++at);
  }
  for (let at = 0; at < slots.length; at++) {
    if (seconds.has(at)) continue;
    const slot = slots[at] as Slot;
    const opcode = opcodeAt(slots, at) as Opcode;
    for (const next of successors(slots, at)) {
      if (next >= 0 && next < slots.length) {
        if (seconds.has(next)) refuse('EINVAL', at, `jump into the middle of ldimm64 insn ${next}`);
        continue;
      }
      if (jumpDistance(slot, opcode) !== undefined && next !== at + 1) {
        refuse('EINVAL', at, `jump out of range from insn ${at} to ${next}`);
      }
      refuse('EINVAL', at, 'last insn is not an exit or jmp');
    }
  }
  const reached = reachable(slots);
  for (let at = 0; at < slots.length; at++) {
    if (!seconds.has(at) && !reached.has(at)) refuse('EINVAL', at, `unreachable insn ${at}`);
  }
}

function reachable(slots: readonly Slot[]): Set<number> {
  const reached = new Set([0]);
  const left = [0];
  for (let at = left.pop(); at !== undefined; at = left.pop()) {
    for (const next of successors(slots, at)) {
      if (reached.has(next)) continue;
      reached.add(next);
      left.push(next);
    }
  }
  return reached;
}

function malformedSlots(slots: readonly Slot[], count: number): Map<number, string> {
  const found = new Map<number, string>();
  for (let at = 0; at < slots.length; at++) {
    const opcode = opcodeAt(slots, at) as Opcode;
    const wrong = reservedFields(slots[at] as Slot, opcode, count);
    if (wrong !== undefined) found.set(at, wrong);
    if (opcode.kind === 'ld_imm64') at++;
  }
  return found;
}

function hex2(value: number): string {
  return value.toString(16).padStart(2, '0');
}

/** Functions that may move the packet's borders, by themselves or by what they call. */
function packetChangers(functions: readonly VerifierFunction[]): Set<number> {
  const changing = new Set<number>();
  for (let before = -1; before !== changing.size;) {
    before = changing.size;
    for (const [fn, { slots }] of functions.entries()) {
      const changes = slots.some((slot, at) => {
        if (opcodeAt(slots, at)?.kind !== 'call') return false;
        if (slot.src === PSEUDO.CALL) return changing.has(slot.off);
        return slot.src === 0 && CHANGES_PACKET.has(slot.imm);
      });
      if (changes) changing.add(fn);
    }
  }
  return changing;
}

function findPrunePoints(each: VerifierFunction): Uint8Array {
  const { slots } = each;
  const points = new Uint8Array(slots.length);
  const mark = (at: number, kind: number): void => {
    points[at] = Math.max(points[at] ?? 0, kind);
  };
  for (let at = 0; at < slots.length; at++) {
    const slot = slots[at] as Slot;
    const opcode = opcodeAt(slots, at);
    if (!opcode) continue;
    const distance = jumpDistance(slot, opcode);
    if (distance !== undefined) mark(at + 1 + distance, PRUNE.compare);
    if (opcode.kind === 'jump') mark(at, PRUNE.compare);
    if (opcode.kind === 'may_goto') mark(at, PRUNE.mayGoto);
    if (opcode.kind === 'call') {
      if (slot.src === 0 && CALLS_CALLBACK.has(slot.imm)) mark(at, PRUNE.callback);
      mark(at + 1, PRUNE.compare);
      const kfunc = kfuncAt(each, at);
      if (kfunc?.flags.includes('KF_ITER_NEXT')) mark(at, PRUNE.iterator);
      if (kfunc?.body.calling) mark(at, PRUNE.callback);
    }
    if (opcode.kind === 'ld_imm64') {
      at++;
      if (slot.src === PSEUDO.FUNC) mark(at + 1, PRUNE.compare);
    }
  }
  return points;
}

function liveRegisters(each: VerifierFunction): Uint16Array {
  const { slots } = each;
  const live = new Uint16Array(slots.length);
  for (let changed = true; changed;) {
    changed = false;
    for (let at = slots.length - 1; at >= 0; at--) {
      const opcode = opcodeAt(slots, at);
      if (!opcode) continue;
      const [reads, writes] = effect(slots[at] as Slot, opcode, kfuncAt(each, at));
      let after = 0;
      for (const next of successors(slots, at)) after |= live[next] ?? 0;
      const before = (after & ~writes) | reads;
      if (before !== live[at]) {
        live[at] = before;
        changed = true;
      }
    }
  }
  return live;
}

/** Registers that an instruction reads and those it overwrites, as bits. */
function effect(slot: Slot, opcode: Opcode, kfunc: Kfunc | undefined): readonly [number, number] {
  const dst = 1 << slot.dst;
  const src = 1 << slot.src;
  switch (opcode.kind) {
    case 'alu': {
      const source = opcode.source === 'register' ? src : 0;
      return opcode.op === 'mov' ? [source, dst] : [source | dst, 0];
    }
    case 'neg':
    case 'end':
      return [dst, 0];
    case 'jump':
      return [dst | (opcode.source === 'register' ? src : 0), 0];
    case 'call': {
      const prototype = slot.src === 0 ? PROTOTYPES.get(slot.imm) : undefined;
      const count = prototype?.arguments.length ?? (kfunc ? kfuncParameters(kfunc) : 5);
      return [ARGUMENTS & ((1 << (count + 1)) - 1), CLOBBERED];
    }
    case 'exit':
      return [1, 0];
    case 'load':
      return [src, dst];
    case 'store':
      return [dst | (opcode.source === 'register' ? src : 0), 0];
    case 'atomic':
      return [dst | src | 1, 0];
    case 'ld_imm64':
      return [0, dst];
    case 'packet_load':
      return [src | (1 << 6), CLOBBERED];
    case 'goto':
    case 'may_goto':
    case 'tail_call':
    case 'nospec':
      return [0, 0];
  }
}
