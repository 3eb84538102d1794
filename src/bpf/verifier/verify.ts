/**
 * The verifier: walks every path of a program over abstract states and refuses what is not safe.
 *
 * An abstract interpreter in the manner of kernel/bpf/verifier.c (do_check, is_state_visited,
 * check_max_stack_depth), for privileged programs: paths are walked depth first, states are kept at
 * branch targets, and a path ends where a kept state covers it. Needs no memory and no host. Left out:
 * arenas, speculation.
 *
 * Usage:
 *   const { functions } = verify(input);   // throws VerifierError
 */
import type { Slot } from '../instruction.js';
import { OPCODES, PSEUDO, type AluOperation, type Opcode } from '../opcodes.js';
import { disassembleSlot } from '../disassemble.js';
import { BPF_THROW } from '../kfuncs/throw.js';
import { branch } from './branch.js';
import { covers, inherit, iteratorDepthsDiffer, looksAlike } from './compare.js';
import { describeFrame, Env } from './env.js';
import { Refusal, VerifierError } from './error.js';
import { checkExceptionCallback } from './exception.js';
import { callFunction, leave } from './function-call.js';
import { globalArgument } from './global-call.js';
import { callHelper, TAIL_CALL } from './helper-call.js';
import type { VerifiedProgram, VerifierFunction, VerifierInput, VerifyOptions } from './input.js';
import { asksActiveIterator, splitAtMayGoto } from './iterator.js';
import { callKfunc } from './kfunc-call.js';
import { checkKfuncsDeclared } from './kfunc-declarations.js';
import { linkedSum, unlinked } from './linked-scalars.js';
import { atomic, load, store } from './memory.js';
import { pointerArithmetic } from './pointer-alu.js';
import { invalidatePackets, refuseLeaks } from './references.js';
import {
  constScalar,
  kernelScalar,
  type Scalar,
  signExtend,
  truncate,
  unknownScalar,
  unsignedScalar,
  withLow,
} from './scalar.js';
import { byteSwapped, compute, negated } from './scalar-alu.js';
import { checkStackDepth } from './stack-depth.js';
import {
  copyState,
  freshenScalars,
  newFrame,
  topFrame,
  type Checkpoint,
  type Frame,
  type State,
} from './state.js';
import { PRUNE, structureOf, type Structure } from './structure.js';
import { Pointer, type Value } from './value.js';
import { constantAt, packetLoad } from './wide-loads.js';

/** BPF_COMPLEXITY_LIMIT_INSNS */
const MAX_PROCESSED = 1_000_000;
/** BPF_COMPLEXITY_LIMIT_JMP_SEQ */
const MAX_PENDING = 8192;
const MAX_LOG_LINES = 10_000;

/** Throws VerifierError when the program is refused. */
export function verify(input: VerifierInput, options: VerifyOptions = {}): VerifiedProgram {
  try {
    return new Walk(input, options, undefined).run();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    // the same walk again, this time with the log of the path that fails
    const log: string[] = [];
    // no path is to blame where the budget ran out
    if (error.errno !== 'E2BIG') {
      try {
        new Walk(input, options, log).run();
      } catch (again) {
        if (!(again instanceof Refusal)) throw again;
      }
    }
    log.push(error.reason);
    throw new VerifierError(error, describeWhere(input, error), log);
  }
}

function lineAt({ lines }: VerifierFunction, slot: number) {
  return lines.findLast((line) => line.slot <= slot);
}

function describeWhere(input: VerifierInput, { fn, insn }: Refusal): string {
  const program = `program '${input.name}'`;
  const each = input.functions[fn];
  if (!each || insn < 0) return program;
  const inside = fn === 0 ? '' : ` function '${each.name}'`;
  const line = lineAt(each, insn);
  const file = line?.file.replace(/^.*\//, '') ?? '';
  const source = line ? ` (${file}:${line.line}: ${line.text.trim()})` : '';
  return `${program}${inside} insn ${insn}${source}`;
}

/** A way that is still to be walked. */
interface Pending {
  readonly state: State;
  /** Lines of the log when it was put aside. */
  readonly logged: number;
}

class Walk {
  readonly #env: Env;
  readonly #input: VerifierInput;
  readonly #budget: number;
  readonly #structures: readonly Structure[];
  /** States kept, by function and slot. */
  readonly #kept: Map<number, Checkpoint[]>[];
  readonly #pending: Pending[] = [];
  readonly #log: string[] | undefined;
  #jumps = 0;
  #jumpsKept = 0;
  #processedKept = 0;
  #states = 0;
  #lastLine: unknown;

  constructor(input: VerifierInput, options: VerifyOptions, log: string[] | undefined) {
    this.#input = input;
    this.#budget = options.budget ?? MAX_PROCESSED;
    this.#log = log;
    checkKfuncsDeclared(input);
    this.#structures = structureOf(input.functions);
    this.#kept = input.functions.map(() => new Map<number, Checkpoint[]>());
    this.#env = new Env(input, options, startState(newFrame(0, -1)));
  }

  run(): VerifiedProgram {
    const env = this.#env;
    const main = newFrame(0, -1);
    const extended = this.#input.functions[0]?.global;
    if (extended) {
      for (const [i, type] of extended.entries()) main.regs[i + 1] = globalArgument(env, type);
    } else main.regs[1] = new Pointer('ctx');
    this.#walkFrom(main);
    for (const [fn, { exceptionCallback }] of this.#input.functions.entries()) {
      if (exceptionCallback) env.calledGlobals.add(fn);
    }
    const done = new Set<number>();
    for (let more = true; more;) {
      more = false;
      for (const callee of env.calledGlobals) {
        if (done.has(callee)) continue;
        done.add(callee);
        more = true;
        const frame = newFrame(callee, -1);
        const types = this.#input.functions[callee]?.global ?? [];
        checkExceptionCallback(this.#input, callee);
        for (const [i, type] of types.entries()) frame.regs[i + 1] = globalArgument(env, type);
        this.#walkFrom(frame);
      }
      const callbacks = env.asyncCallbacks.splice(0);
      for (const frame of callbacks) {
        if (done.has(-1 - frame.fn)) continue;
        done.add(-1 - frame.fn);
        more = true;
        this.#walkFrom(frame);
      }
    }
    checkStackDepth(
      this.#input.functions,
      env.facts.map(({ stackDepth }) => stackDepth),
      new Set([...done].filter((key) => key < 0).map((key) => -1 - key)),
    );
    return {
      functions: env.facts.map(({ accesses, calls, maps, loops, stackDepth, reached }, fn) => ({
        accesses,
        calls,
        maps,
        loops,
        stackDepth,
        dead: deadSlots(this.#input.functions[fn] as VerifierFunction, reached),
      })),
      processed: env.processed,
      states: this.#states,
    };
  }

  /** Walks all paths from the beginning of `frame`. */
  #walkFrom(frame: Frame): void {
    const env = this.#env;
    frame.regs[10] = new Pointer('stack');
    for (const kept of this.#kept) kept.clear();
    this.#pending.length = 0;
    this.#pending.push({ state: startState(frame), logged: this.#log?.length ?? 0 });
    for (let next = this.#pending.pop(); next; next = this.#pending.pop()) {
      env.state = next.state;
      if (this.#log) {
        this.#log.length = Math.min(this.#log.length, next.logged);
        this.#lastLine = undefined;
      }
      this.#walkPath();
      finishPath(env.state);
    }
  }

  /** Walks on from the current state until the path ends. */
  #walkPath(): void {
    const env = this.#env;
    for (;;) {
      const frame = topFrame(env.state);
      env.fn = frame.fn;
      env.at = env.state.at;
      if (++env.processed > this.#budget) {
        env.refuse('E2BIG', `BPF program is too large. Processed ${env.processed} insn`);
      }
      const structure = this.#structures[frame.fn] as Structure;
      const point = structure.prunePoints[env.at] ?? 0;
      if (point > 0 && this.#isCovered(point)) return;
      const facts = env.facts[frame.fn];
      if (facts) facts.reached[env.at] = 1;
      const slot = env.function.slots[env.at] as Slot;
      if (structure.malformed.size > 0) {
        const wrong = structure.malformed.get(env.at);
        if (wrong !== undefined) {
          if (OPCODES[slot.code]?.kind === 'jump') env.read(slot.dst);
          env.refuse('EINVAL', wrong);
        }
      }
      if (this.#log) this.#logInstruction(this.#log, slot);
      if (!this.#step(slot, OPCODES[slot.code] as Opcode)) return;
    }
  }

  /** Compares with the states kept here; keeps this one where it is worth it. */
  #isCovered(point: number): boolean {
    const env = this.#env;
    const { state } = env;
    const force = point > PRUNE.compare;
    const kept = this.#kept[env.fn]?.get(env.at) ?? [];
    let keep =
      force || (this.#jumps - this.#jumpsKept >= 2 && env.processed - this.#processedKept >= 8);
    for (let i = 0; i < kept.length; i++) {
      const checkpoint = kept[i] as Checkpoint;
      if (checkpoint.branches === 0) {
        if (covers(checkpoint, state, 'walked', this.#structures)) {
          checkpoint.hits++;
          inherit(checkpoint, state, this.#structures);
          return true;
        }
      } else if (this.#converges(checkpoint, point)) {
        inherit(checkpoint, state, this.#structures);
        return true;
      } else if (
        point !== PRUNE.iterator &&
        // the next round of a callback is no loop of the program
        checkpoint.state.callbacksEntered === state.callbacksEntered &&
        looksAlike(checkpoint.state, state) &&
        covers(checkpoint, state, 'exact', this.#structures) &&
        !iteratorDepthsDiffer(checkpoint.state, state) &&
        checkpoint.state.mayGotoDepth === state.mayGotoDepth
      ) {
        env.refuse('EINVAL', `infinite loop detected at insn ${env.at}`);
      } else if (
        !force &&
        env.processed - this.#processedKept < 100 &&
        this.#jumps - this.#jumpsKept < 20
      ) {
        // a loop that goes on: not every round is worth a state
        keep = false;
      }
      if (!keep) continue;
      // states that never match only cost time
      const patience = force && checkpoint.branches > 0 ? 64 : 3;
      if (++checkpoint.misses > (checkpoint.hits + 1) * patience) {
        kept.splice(i, 1);
        i--;
      }
    }
    if (keep) this.#keep(kept);
    return false;
  }

  /** Whether a loop that ends in any case came to a state that it had before, which is still being walked. */
  #converges(checkpoint: Checkpoint, point: number): boolean {
    const { state } = this.#env;
    switch (point) {
      case PRUNE.callback:
        break;
      case PRUNE.iterator:
        if (!asksActiveIterator(state)) return false;
        break;
      case PRUNE.mayGoto:
        if (checkpoint.state.mayGotoDepth === state.mayGotoDepth) return false;
        break;
      default:
        return false;
    }
    return covers(checkpoint, state, 'within', this.#structures);
  }

  #keep(kept: Checkpoint[]): void {
    const env = this.#env;
    const { state } = env;
    freshenScalars(state);
    const checkpoint: Checkpoint = {
      state: copyState(state),
      parent: state.parent,
      written: state.written,
      read: [],
      branches: 1,
      hits: 0,
      misses: 0,
    };
    state.parent = checkpoint;
    state.written = [];
    kept.push(checkpoint);
    this.#kept[env.fn]?.set(env.at, kept);
    this.#jumpsKept = this.#jumps;
    this.#processedKept = env.processed;
    this.#states++;
  }

  /** Puts a way aside to be walked later. */
  #push(state: State): void {
    const env = this.#env;
    if (this.#pending.length >= MAX_PENDING) {
      // the kernel says EFAULT where it has no room for another state
      env.refuse('EFAULT', `The sequence of ${this.#pending.length + 1} jumps is too complex.`);
    }
    if (state.parent) state.parent.branches++;
    this.#pending.push({ state, logged: this.#log?.length ?? 0 });
  }

  /** One instruction; false when the path ends with it. */
  #step(slot: Slot, opcode: Opcode): boolean {
    const env = this.#env;
    const { state, at } = env;
    state.at = at + 1;
    switch (opcode.kind) {
      case 'alu':
        env.write(slot.dst, this.#arithmetic(slot, opcode));
        return true;
      case 'neg': {
        const value = env.read(slot.dst);
        env.write(
          slot.dst,
          value.kind === 'scalar' ? negated(value, opcode.width) : unknownScalar(),
        );
        return true;
      }
      case 'end': {
        const value = env.read(slot.dst);
        const size = slot.imm / 8;
        const swaps = opcode.to !== 'le';
        if (value.kind === 'pointer') env.write(slot.dst, unknownScalar());
        else env.write(slot.dst, swaps ? byteSwapped(value, size) : truncate(value, size));
        return true;
      }
      case 'load':
        env.read(slot.src);
        env.write(slot.dst, load(env, slot.src, slot.off, opcode.size, opcode.signed));
        return true;
      case 'store': {
        const value =
          opcode.source === 'register'
            ? this.#shared(slot.src, env.read(slot.src))
            : constScalar(BigInt(slot.imm));
        store(
          env,
          slot.dst,
          slot.off,
          opcode.size,
          value,
          opcode.source === 'register' ? slot.src : -1,
        );
        return true;
      }
      case 'atomic':
        this.#atomic(slot, opcode.size);
        return true;
      case 'ld_imm64':
        env.write(slot.dst, constantAt(env, slot));
        state.at = at + 2;
        return true;
      case 'jump':
        return this.#jump(slot, opcode);
      case 'goto':
        this.#jumps++;
        state.at = at + 1 + (opcode.long ? slot.imm : slot.off);
        return true;
      case 'call':
        return this.#call(slot);
      case 'exit':
        this.#jumps++;
        return leave(env);
      case 'packet_load':
        packetLoad(env, slot, opcode.mode === 'ind');
        return true;
      case 'may_goto':
        this.#jumps++;
        this.#push(splitAtMayGoto(env, slot.off));
        return true;
      case 'tail_call':
      case 'nospec':
        return env.refuse('EINVAL', `unknown opcode ${slot.code.toString(16)}`);
    }
  }

  #arithmetic(slot: Slot, opcode: Extract<Opcode, { kind: 'alu' }>): Value {
    const env = this.#env;
    const { op, width } = opcode;
    const src = opcode.source === 'register' ? env.read(slot.src) : constScalar(BigInt(slot.imm));
    if (op === 'mov') {
      const copy = moved(src, width, slot.off);
      if (opcode.source === 'immediate' || copy !== src) return copy;
      return this.#shared(slot.src, src);
    }
    const dst = env.read(slot.dst);
    if (opcode.source === 'immediate') this.#checkImmediate(op, width, slot.imm);
    env.checkWritable(slot.dst);
    if (dst.kind === 'pointer' || src.kind === 'pointer') {
      return pointerArithmetic(env, op, opcode.symbol, width, slot.dst, dst, src);
    }
    if (dst.kernel && width === 64 && (op === 'add' || op === 'sub') && src.isConst) {
      return kernelScalar();
    }
    if ((op === 'and' || op === 'or') && src.isConst) {
      return compute(op, width, this.#signMask(slot.dst, dst), src);
    }
    const result = compute(op, width, dst, src);
    if ((op !== 'add' && op !== 'sub') || !src.isConst) return result;
    const addend = width === 32 ? BigInt(src.bounds.s32min) : src.smin;
    return linkedSum(dst, op === 'add' ? addend : -addend, width, result);
  }

  /** The value of a register that is about to be somewhere else, too. */
  #shared(register: number, value: Value): Value {
    const env = this.#env;
    const copy = unlinked(value);
    if (copy !== value) env.frame.regs[register] = copy;
    return copy;
  }

  /** A number that is 0 or -1, as a shift of the sign gives it: -1, and another path has 0 (maybe_fork_scalars). */
  #signMask(register: number, scalar: Scalar): Scalar {
    const isWhole = scalar.smin === -1n && scalar.smax === 0n;
    if (!isWhole && (scalar.s32min !== -1 || scalar.s32max !== 0)) return scalar;
    const env = this.#env;
    const other = copyState(env.state);
    other.at = env.at;
    topFrame(other).regs[register] = isWhole ? constScalar(0n) : withLow(scalar, 0);
    this.#push(other);
    return isWhole ? constScalar(-1n) : withLow(scalar, -1);
  }

  /** Division by a constant zero, shifts by more than there is. */
  #checkImmediate(op: AluOperation, width: 32 | 64, imm: number): void {
    const env = this.#env;
    const divides = op === 'div' || op === 'mod';
    if (divides && imm === 0) env.refuse('EINVAL', 'div by zero');
    const shifts = op === 'lsh' || op === 'rsh' || op === 'arsh';
    if (shifts && (imm < 0 || imm >= width)) env.refuse('EINVAL', `invalid shift ${imm}`);
  }

  #atomic(slot: Slot, size: number): void {
    const env = this.#env;
    const { imm, dst, src, off } = slot;
    const old = size === 8 ? unknownScalar() : unsignedScalar((1n << BigInt(8 * size)) - 1n);
    if (imm === 0x100) {
      env.write(dst, load(env, src, off, size, false));
      return;
    }
    const value = env.read(src);
    if (imm === 0x110) {
      store(env, dst, off, size, value, src);
      return;
    }
    const isExchange = imm === 0xf1;
    if (isExchange) env.read(0);
    const before = atomic(env, dst, off, size, old);
    if (isExchange) env.write(0, before);
    else if ((imm & 1) === 1) env.write(src, before);
  }

  #jump(slot: Slot, opcode: Extract<Opcode, { kind: 'jump' }>): boolean {
    const env = this.#env;
    this.#jumps++;
    const { taken, fallen } = branch(env, slot, opcode);
    const target = env.at + 1 + slot.off;
    if (taken) taken.at = target;
    if (!fallen) {
      if (taken) env.state = taken;
      return taken !== undefined;
    }
    fallen.at = env.at + 1;
    env.state = fallen;
    if (taken) this.#push(taken);
    return true;
  }

  /** False when it does not come back: something is thrown. */
  #call(slot: Slot): boolean {
    const env = this.#env;
    this.#jumps++;
    if (slot.src === PSEUDO.CALL) {
      callFunction(env, slot.off, this.#structures);
      return true;
    }
    if (slot.src !== 0) {
      const throws = env.function.kfuncs.get(env.at) === BPF_THROW;
      const more = callKfunc(env, slot.imm);
      if (more) this.#push(more);
      if (throws) refuseLeaks(env, BPF_THROW);
      return !throws;
    }
    const callback = callHelper(env, slot.imm);
    if (callback) this.#push(callback);
    if (slot.imm === TAIL_CALL && env.state.frames.length > 1) this.#returnOfTailCall();
    return true;
  }

  /** In a subprogram, a program called by tail call returns to the subprogram's caller. */
  #returnOfTailCall(): void {
    const env = this.#env;
    const failed = env.state;
    env.state = copyState(failed);
    invalidatePackets(env);
    env.frame.regs[0] = unknownScalar();
    if (leave(env)) this.#push(env.state);
    env.state = failed;
  }

  #logInstruction(log: string[], slot: Slot): void {
    const env = this.#env;
    if (log.length >= MAX_LOG_LINES) return;
    const line = lineAt(env.function, env.at);
    if (line && line !== this.#lastLine) {
      log.push(`; ${line.text.trim()} @ ${line.file.replace(/^.*\//, '')}:${line.line}`);
    }
    this.#lastLine = line;
    const second = env.function.slots[env.at + 1];
    const text = disassembleSlot(slot, second, env.at);
    const code = slot.code.toString(16).padStart(2, '0');
    log.push(`${env.at}: (${code}) ${text} ; ${describeFrame(env.frame, true)}`);
  }
}

function startState(frame: Frame): State {
  return {
    frames: [frame],
    refs: [],
    lock: undefined,
    rcuLocked: false,
    preemptDisabled: 0,
    mayGotoDepth: 0,
    at: 0,
    callbacksEntered: 0,
    parent: undefined,
    written: [],
  };
}

/** A path ended: the states on it have one open branch less. */
function finishPath(state: State): void {
  for (let at = state.parent; at; at = at.parent) {
    if (--at.branches > 0) return;
  }
}

function deadSlots({ slots }: VerifierFunction, reached: Uint8Array): Set<number> {
  const dead = new Set<number>();
  for (let at = 0; at < slots.length; at++) {
    const isWide = OPCODES[slots[at]?.code ?? -1]?.kind === 'ld_imm64';
    if (!reached[at]) {
      dead.add(at);
      if (isWide) dead.add(at + 1);
    }
    if (isWide) at++;
  }
  return dead;
}

/** A move, with sign extension from `bits` when that is not 0. */
function moved(src: Value, width: 32 | 64, bits: number): Value {
  if (src.kind === 'pointer') return width === 64 && bits === 0 ? src : unknownScalar();
  // what stays as it is stays the same number
  if (bits !== 0 && src.umax < 1n << BigInt(bits - 1)) return src;
  if (bits !== 0) return signExtend(src, bits / 8, width);
  return width === 64 ? src : truncate(src, 4);
}
