/**
 * What is found out about a program before any code is written: flow, liveness, pointer classes, and
 * how each function will be written.
 */
import type { BpfHost } from '../host.js';
import type { Slot } from '../instruction.js';
import { OPCODES, PSEUDO } from '../opcodes.js';
import type { XlatedProgram } from '../program.js';
import { stackDistance } from './access.js';
import type { FunctionPlan, PointerClass } from './context.js';
import { buildFlow, loopDepths, withResumes, type Block, type Flow } from './flow.js';
import { addressTaken, analyseNeeds, ARGUMENTS, EXTRA_OUT, type Needs } from './liveness.js';
import { classOf, findOrigins, type Origin, type Origins } from './origins.js';
import { SPANS } from './span.js';
import { MAX_PARAMETERS } from './state.js';

/** Above these a function is written in chunks. */
const MAX_STRUCTURED_BLOCKS = 1500;
const MAX_STRUCTURED_SLOTS = 12_000;
/** Longest function without loops and calls that its callers count. */
const MAX_UNCOUNTED = 32;
/** Most pointer classes of a function; further ones share. */
const MAX_CLASSES = 32;
const FRAME = 10;

export interface ProgramPlan {
  readonly functions: readonly FunctionPlan[];
  readonly needs: Needs;
  readonly hasCalls: boolean;
}

export interface PlanOptions {
  /** Loops of the main function may be left and entered again. */
  readonly isResumable: boolean;
}

interface PlanSource {
  readonly program: XlatedProgram;
  /** Of each function. */
  readonly slots: readonly (readonly Slot[])[];
  /** Reached by tail calls: what it leaves in its registers may be read by who called its caller. */
  readonly isTarget: boolean;
}

export function planProgram(
  { program, slots: decoded, isTarget }: PlanSource,
  host: BpfHost,
  { isResumable }: PlanOptions,
): ProgramPlan {
  const analysed = decoded.map((slots) => ({ slots, flow: buildFlow(slots) }));
  const needs = analyseNeeds(analysed, isTarget ? EXTRA_OUT : 0);
  const called = calledFunctions(analysed.map(({ slots }) => slots));
  const named = addressTaken(analysed.map(({ slots }) => slots));
  const functions = analysed.map(({ slots, flow }, index): FunctionPlan => {
    const isChunked =
      !flow.reducible ||
      flow.blocks.length > MAX_STRUCTURED_BLOCKS ||
      slots.length > MAX_STRUCTURED_SLOTS;
    const canResume = isResumable && index === 0 && !isTarget && flow.hasLoops && !isChunked;
    const origins = findOrigins(slots, flow, needs.live[index] ?? new Uint16Array());
    const length = countInstructions(slots);
    const isCalled = called.has(index);
    // nobody counts the instructions of what a helper calls; what calls back has a depth of its own
    const isSmall =
      !flow.hasLoops &&
      !named.has(index) &&
      !calls(slots) &&
      !(named.size > 0 && mayCallBack(slots, host)) &&
      length - countNothings(slots) <= MAX_UNCOUNTED;
    return {
      index,
      name: program.functions[index]?.name ?? '',
      slots,
      flow: canResume ? withResumes(flow) : flow,
      origins,
      isChunked,
      isCalled,
      canResume,
      fuel: flow.hasLoops ? 'blocks' : isCalled && !isSmall ? 'entry' : 'callers',
      isInlined: index > 0 && isSmall && !isChunked,
      usesFrame: slots.some(({ dst, src }) => dst === FRAME || src === FRAME),
      parameters:
        index === 0 || isChunked || named.size > 0 || program.functions[index]?.exceptionCallback
          ? MAX_PARAMETERS
          : highestArgument(needs.live[index]?.[0] ?? ARGUMENTS),
      length,
      classes: findClasses(slots, flow, origins, host, isChunked),
    };
  });
  return { functions, needs, hasCalls: called.size > 0 };
}

/** N of the highest of R1..R5 in a mask, 0 for none. */
function highestArgument(mask: number): number {
  return Math.max(0, 31 - Math.clz32(mask & ARGUMENTS));
}

function countInstructions(slots: readonly Slot[]): number {
  let count = 0;
  for (const { code } of slots) if (OPCODES[code]) count++;
  return count;
}

/** Slots that are no code: what else stood for an inlined look-up. */
function countNothings(slots: readonly Slot[]): number {
  let count = 0;
  for (const { code } of slots) if (OPCODES[code]?.kind === 'nospec') count++;
  return count;
}

/** Functions that a call or a function pointer names. */
function calledFunctions(functions: readonly (readonly Slot[])[]): Set<number> {
  const called = new Set<number>();
  for (const slots of functions) {
    for (let index = 0; index < slots.length; index++) {
      const { code, src, off } = slots[index] as Slot;
      if (code === 0x85 && src === PSEUDO.CALL) called.add(off);
      if (code === 0x18 && src === PSEUDO.FUNC) called.add(slots[index + 1]?.off ?? 0);
      // a register may hold the address of any of them
      if (code === 0x8d) for (const callee of functions.keys()) called.add(callee);
    }
  }
  return called;
}

/** Whether other BPF code may run before it returns. */
function calls(slots: readonly Slot[]): boolean {
  return slots.some(({ code, src }) => {
    const kind = OPCODES[code]?.kind;
    return kind === 'tail_call' || code === 0x8d || (kind === 'call' && src === PSEUDO.CALL);
  });
}

/** Whether it calls helpers that might call a function. */
function mayCallBack(slots: readonly Slot[], host: BpfHost): boolean {
  return slots.some(
    ({ code, src, imm }) =>
      code === 0x85 &&
      src !== PSEUDO.CALL &&
      host.helperAt(host.callBase + BigInt(imm))?.intrinsic === undefined,
  );
}

function findClasses(
  slots: readonly Slot[],
  flow: Flow,
  origins: Origins,
  host: BpfHost,
  isChunked: boolean,
): PointerClass[] {
  const classes: PointerClass[] = [];
  const hasDepths = flow.hasLoops && !isChunked;
  const depths = hasDepths ? loopDepths(flow) : new Uint8Array(flow.blocks.length);
  const add = (origin: Origin, size: number, write: boolean, inLoop: boolean): void => {
    const root = classOf(origin);
    if (root.slot < 0) {
      root.slot = classes.length < MAX_CLASSES ? classes.length : root.slot & (MAX_CLASSES - 1);
    }
    const kind = (classes[root.slot] ??= { slot: 0, needsWrite: false, size, inLoop: false });
    if (kind.size !== size) kind.size = 0;
    kind.needsWrite ||= write;
    kind.inLoop ||= inLoop;
  };
  for (let number = 0; number < flow.blocks.length; number++) {
    const block = flow.blocks[number] as Block;
    const inLoop = (depths[number] ?? 0) > 0;
    for (let insn = block.start; insn < block.end; insn++) {
      const slot = slots[insn] as Slot;
      const opcode = OPCODES[slot.code];
      if (opcode?.kind === 'call') {
        const body = slot.src === 0 ? host.helperAt(host.callBase + BigInt(slot.imm)) : undefined;
        for (const { register, write } of body?.intrinsic ? SPANS[body.intrinsic.kind] : []) {
          const origin = origins.calls.get(insn)?.[register - 1];
          if (origin) add(origin, 0, write, inLoop);
        }
        continue;
      }
      const origin = origins.bases[insn];
      if (!origin || !opcode) continue;
      if (opcode.kind !== 'load' && opcode.kind !== 'store' && opcode.kind !== 'atomic') continue;
      const isRead = opcode.kind === 'load' || (opcode.kind === 'atomic' && slot.imm === 0x100);
      if (stackDistance(origin, slot.off, opcode.size) === undefined)
        add(origin, opcode.size, !isRead, inLoop);
    }
  }
  return classes;
}
