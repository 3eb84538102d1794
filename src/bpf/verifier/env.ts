/**
 * What all parts of the verifier share while they walk a program: where the walk is, what it found.
 *
 * Reference: struct bpf_verifier_env in include/linux/bpf_verifier.h.
 */
import type { ErrnoName } from '../../common/errno.js';
import { Refusal } from './error.js';
import type {
  AccessKind,
  CallFixup,
  VerifierFunction,
  VerifierInput,
  VerifyOptions,
} from './input.js';
import { describeScalar } from './scalar.js';
import { MAX_STACK, topFrame, type Frame, type StackSlot, type State } from './state.js';
import { describePointer, type Value } from './value.js';

/** Facts about one function, collected. */
interface Facts {
  readonly accesses: Map<number, AccessKind>;
  readonly calls: Map<number, CallFixup>;
  stackDepth: number;
  readonly reached: Uint8Array;
}

export class Env {
  readonly input: VerifierInput;
  readonly options: VerifyOptions;
  readonly facts: readonly Facts[];
  /** Global functions that are called: each is verified alone. */
  readonly calledGlobals = new Set<number>();
  /** Callbacks that run later, to be verified alone: function and its arguments. */
  readonly asyncCallbacks: Frame[] = [];
  /** The state that is being changed. */
  state: State;
  /** The instruction at hand. */
  fn = 0;
  at = 0;
  processed = 0;
  #ids = 0;

  constructor(input: VerifierInput, options: VerifyOptions, state: State) {
    this.input = input;
    this.options = options;
    this.state = state;
    this.facts = input.functions.map(({ slots }) => ({
      accesses: new Map(),
      calls: new Map(),
      stackDepth: 0,
      reached: new Uint8Array(slots.length),
    }));
  }

  get function(): VerifierFunction {
    return this.input.functions[this.fn] as VerifierFunction;
  }

  get frame(): Frame {
    return topFrame(this.state);
  }

  nextId(): number {
    return ++this.#ids;
  }

  refuse(errno: ErrnoName, reason: string): never {
    throw new Refusal(errno, reason, this.fn, this.at, describeFrame(this.frame, false));
  }

  /** The value of a register that is read. */
  read(register: number): Value {
    const value = this.frame.regs[register];
    if (!value) {
      if (register > 10) this.refuse('EINVAL', `R${register} is invalid`);
      this.refuse('EACCES', `R${register} !read_ok`);
    }
    return value;
  }

  /** A register that is written must be one that may be. */
  checkWritable(register: number): void {
    if (register < 10) return;
    if (register > 10) this.refuse('EINVAL', `R${register} is invalid`);
    this.refuse('EACCES', 'frame pointer is read only');
  }

  write(register: number, value: Value | undefined): void {
    this.checkWritable(register);
    this.frame.regs[register] = value;
  }

  /** Notes what memory the instruction reaches. Some kinds cannot share an instruction. */
  noteAccess(kind: AccessKind): void {
    const { accesses } = this.facts[this.fn] as Facts;
    const before = accesses.get(this.at);
    if (before !== undefined && before !== kind && (isAlone(before) || isAlone(kind))) {
      if (!isGuardable(before) || !isGuardable(kind)) {
        this.refuse('EINVAL', 'same insn cannot be used with different pointers');
      }
      accesses.set(this.at, 'kernel');
      return;
    }
    accesses.set(this.at, kind);
  }

  /** Notes what the call at hand needs. */
  noteCall(fixup: CallFixup): void {
    this.facts[this.fn]?.calls.set(this.at, fixup);
  }

  /** What RCU protects does not go away here (in_rcu_cs). */
  get inRcuSection(): boolean {
    const { rcuLocked, lock } = this.state;
    return rcuLocked || lock !== undefined || this.input.sleepable !== true;
  }

  /** Notes that a frame's stack is used down to `off`, which is negative. */
  noteStack(frame: number, off: number): void {
    const owner = this.state.frames[frame];
    const facts = owner && this.facts[owner.fn];
    if (facts) facts.stackDepth = Math.max(facts.stackDepth, Math.min(-off, MAX_STACK));
  }
}

/** Whether the rewriter treats accesses of this kind in a way of their own. */
function isAlone(kind: AccessKind): boolean {
  return kind === 'ctx' || kind === 'sock' || kind === 'xdp_sock' || isGuardable(kind);
}

/** A load that is guarded when it has to be on any path. */
function isGuardable(kind: AccessKind): boolean {
  return kind === 'kernel' || kind === 'trusted' || kind === 'object';
}

/** `R0=5 R1=ctx() R10=fp0`, with spilled values when `withStack`. */
export function describeFrame(frame: Frame, withStack: boolean): string {
  const parts: string[] = [];
  for (const [register, value] of frame.regs.entries()) {
    if (value) parts.push(`R${register}=${describeValue(value)}`);
  }
  if (withStack) {
    for (const [index, slot] of frame.stack.entries()) {
      if (!slot) continue;
      const text = describeSlot(slot);
      if (text !== '') parts.push(`fp-${8 * (index + 1)}=${text}`);
    }
  }
  return parts.join(' ');
}

/** The `count` bytes at the upper end of a slot. */
function describeBytes(bytes: number, count: number): string {
  return Array.from({ length: count }, (_, i) => '?m0'[(bytes >> (2 * (7 - i))) & 3]).join('');
}

/** The upper half of a dynptr shows with the lower one. */
function describeSlot(slot: StackSlot): string {
  switch (slot.kind) {
    case 'spill':
      return describeBytes(slot.rest, 8 - slot.size) + describeValue(slot.value);
    case 'bytes':
      return describeBytes(slot.bytes, 8);
    case 'dynptr': {
      const ref = slot.ref === 0 ? '' : `,ref_id=${slot.ref}`;
      return slot.first ? `dynptr_${slot.type}(id=${slot.id}${ref})` : '';
    }
    case 'iterator': {
      const state = slot.active ? 'active' : 'drained';
      return `iter_${slot.type}(ref_id=${slot.ref},state=${state},depth=${slot.depth})`;
    }
  }
}

export function describeValue(value: Value): string {
  if (value.kind === 'pointer') return describePointer(value);
  const mark = value.precise ? 'P' : '';
  return value.isConst
    ? `${mark}${describeScalar(value)}`
    : `${mark}scalar${describeScalar(value)}`;
}
