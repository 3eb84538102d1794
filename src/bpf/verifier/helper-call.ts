/**
 * A helper call: arguments, what it gives back, what it invalidates, the callbacks it runs.
 *
 * Reference: check_helper_call, push_callback_call, set_loop_callback_state,
 * set_map_elem_callback_state, set_timer_callback_state in kernel/bpf/verifier.c.
 */
import { hasField } from '../btf/record.js';
import { helperName, LAST_HELPER } from '../object/helper-names.js';
import { bytesToText, formatPrintk } from '../helpers/text.js';
import { checkArguments, checkMapType, type CallFacts } from './arguments.js';
import type { Env } from './env.js';
import {
  CALLS_CALLBACK,
  CHANGES_PACKET,
  ITERABLE_MAPS,
  PROTOTYPES,
  XDP_HELPERS,
  type Prototype,
} from './prototypes.js';
import { exchange } from './kptr.js';
import { acquire, invalidatePackets, refuseLeaks, release } from './references.js';
import { fromBounds, markPrecise, UNKNOWN, unknownScalar } from './scalar.js';
import {
  copyState,
  MAX_FRAMES,
  newFrame,
  topFrame,
  type CallbackInfo,
  type Frame,
  type State,
} from './state.js';
import { Pointer, typeName, type Value } from './value.js';

/** BPF_FUNC_tail_call */
export const TAIL_CALL = 12;
const MAP_LOOKUP = 1;
const GET_SMP_PROCESSOR_ID = 8;
const SPIN_UNLOCK = 94;
const FOR_EACH_MAP_ELEM = 164;
const TIMER_SET_CALLBACK = 170;
const SNPRINTF = 165;
const DYNPTR_FROM_MEM = 197;
/** Helpers that give how much they wrote, or an errno. */
const GIVES_LENGTH: readonly number[] = [45, 67, 114, 115];
const MAX_ERRNO = 4095n;
/** Most CPUs that a kernel is built for. */
const MAX_CPUS = 8192n;

/** Checks the call and changes the state; gives the state in which a callback runs, if any. */
export function callHelper(env: Env, id: number): State | undefined {
  const prototype = prototypeOf(env, id);
  if (env.state.lock && id !== SPIN_UNLOCK) {
    env.refuse('EINVAL', 'function calls are not allowed while holding a lock');
  }
  const facts = checkArguments(env, prototype);
  if (id === DYNPTR_FROM_MEM) checkDynptrMemory(env);
  if (id === SNPRINTF) checkFormat(env);
  if (id === TAIL_CALL) refuseLeaks(env, 'tail_call');
  if (facts.released !== 0) release(env, facts.released);
  const callback = enterCallback(env, id, facts);
  if (facts.map) checkMapType(env, id, facts.map);
  const { regs } = env.frame;
  const result = resultOf(env, prototype, facts);
  regs.fill(undefined, 0, 6);
  regs[0] = result;
  // a tail call that fails changes nothing
  if (CHANGES_PACKET.has(id) && id !== TAIL_CALL) invalidatePackets(env);
  return callback;
}

function prototypeOf(env: Env, id: number): Prototype {
  const { input, options } = env;
  const name = `${helperName(id)}#${id}`;
  const prototype = PROTOTYPES.get(id);
  if (id < 0 || id > LAST_HELPER) {
    // numbers of the linker's own stand for kernel functions, and for nothing else
    const kfunc = env.function.numbered?.get(env.at);
    const poisoned = env.function.poisoned?.get(env.at);
    if (poisoned !== undefined) {
      env.refuse('EINVAL', `invalid CO-RE relocation: the kernel has no ${poisoned}`);
    }
    if (kfunc === undefined) env.refuse('EINVAL', `invalid func unknown#${id}`);
    if (!prototype) {
      env.refuse('EINVAL', `calling kernel function ${kfunc}, which the kernel does not have`);
    }
  }
  const isOther = prototype?.kinds?.includes(input.kind) === false;
  if (isOther || (input.kind === 'xdp' && !XDP_HELPERS.has(id))) {
    env.refuse('EINVAL', `program of this type cannot use helper ${name}`);
  }
  // helper 12 is no helper but an instruction; others may be the kernel's and not be here
  if (!prototype || (options.hasHelper?.(id) === false && id !== TAIL_CALL)) {
    return env.refuse('EINVAL', `unknown func ${name}`);
  }
  if (prototype.gplOnly && !input.gpl) {
    env.refuse('EINVAL', 'cannot call GPL-restricted function from non-GPL compatible program');
  }
  return prototype;
}

/** Only a map value lives as long as a dynptr may. */
function checkDynptrMemory(env: Env): void {
  const memory = env.read(1);
  if (memory.kind === 'pointer' && memory.type === 'map_value') return;
  env.refuse('EACCES', `Unsupported reg type ${typeName(memory)} for bpf_dynptr_from_mem data`);
}

const NO_MEMORY = { string: () => '', bytes: (_: bigint, size: number) => new Uint8Array(size) };

/** The format of bpf_snprintf in R3 is constant, and is checked with the number of arguments in R5. */
function checkFormat(env: Env): void {
  const [format, size] = [env.read(3), env.read(5)];
  if (format.kind !== 'pointer' || size.kind !== 'scalar') return;
  const from = format.map?.contents?.subarray(format.off);
  const text = bytesToText(from?.subarray(0, from.indexOf(0)) ?? new Uint8Array(0));
  const bytes = size.bits.value;
  const values = Array.from({ length: Number(bytes / 8n) }, () => 0n);
  if (bytes % 8n !== 0n || formatPrintk(text, values, NO_MEMORY) === undefined) {
    env.refuse('EINVAL', 'Invalid format string');
  }
}

function resultOf(env: Env, { id, result }: Prototype, facts: CallFacts): Value | undefined {
  switch (result) {
    case 'integer':
      if (id === GET_SMP_PROCESSOR_ID) {
        return fromBounds({ ...UNKNOWN, umax: MAX_CPUS - 1n });
      }
      if (GIVES_LENGTH.includes(id)) {
        const [least, most] = [-MAX_ERRNO, facts.maxSize];
        const half = { s32min: Number(least), s32max: Number(most) };
        return fromBounds({ ...UNKNOWN, smin: least, smax: most, ...half });
      }
      return unknownScalar();
    case 'void':
      return undefined;
    case 'session_cookie':
      return new Pointer('mem', { size: 8 });
    case 'map_value_or_null': {
      const { map, mapId, key } = facts;
      const isThere = id === MAP_LOOKUP && key !== undefined && key < BigInt(map?.maxEntries ?? 0);
      // the id tells locks of different values apart
      const isTold = !isThere || hasField(map?.record, 'bpf_spin_lock');
      const fields = { map, mapId, orNull: !isThere, id: isTold ? env.nextId() : 0 };
      return new Pointer('map_value', fields);
    }
    case 'alloc_mem_or_null': {
      const ref = acquire(env);
      const size = facts.allocSize;
      return new Pointer('mem', { size, orNull: true, id: ref, ref, memory: 'ringbuf' });
    }
    case 'dynptr_mem_or_null':
      return new Pointer('mem', {
        size: facts.allocSize,
        orNull: true,
        id: env.nextId(),
        ref: facts.dynptr?.ref ?? 0,
        dynptr: facts.dynptr?.id ?? 0,
      });
    case 'kptr_or_null':
      return facts.kptr && exchange(env, facts.kptr, env.frame.regs[2]);
    case 'cpu_part': {
      const { btf, typeId = 0, rcu = false } = facts.place ?? {};
      if (rcu) env.noteCall({ kind: 'percpu' });
      return new Pointer('btf', { btf, typeId, alloc: true, rcu: true });
    }
    case 'task': {
      const btf = env.input.kernelBtf;
      const typeId = btf?.find('struct', 'task_struct');
      if (typeId === undefined) env.refuse('EINVAL', 'the kernel has no struct task_struct');
      return new Pointer('btf', { btf, typeId, trusted: true });
    }
    case 'sock_or_null':
    case 'sock_common_or_null': {
      const ref = acquire(env);
      const type = result === 'sock_or_null' ? 'sock' : 'sock_common';
      return new Pointer(type, { orNull: true, id: ref, ref });
    }
  }
}

/** The state in which the callback of this call runs (once more). */
function enterCallback(env: Env, id: number, facts: CallFacts): State | undefined {
  if (id === TIMER_SET_CALLBACK) {
    const frame = newFrame(facts.callback, -1, { helper: id, maxResult: 0n, isAsync: true });
    setMapArguments(frame, callbackMap(env.frame.regs[1]));
    env.asyncCallbacks.push(frame);
    return undefined;
  }
  if (!CALLS_CALLBACK.has(id)) return undefined;
  const { frame } = env;
  const [, first, , context] = frame.regs;
  if (id === FOR_EACH_MAP_ELEM) {
    if (!ITERABLE_MAPS.includes(facts.map?.type ?? '')) {
      env.refuse('ENOTSUPP', 'callback function not allowed for map');
    }
  } else if (first?.kind === 'scalar') {
    markPrecise(first);
    if (BigInt(frame.callbackDepth) >= first.umax) {
      frame.callbackDepth = 0;
      return undefined;
    }
  }
  const info = { helper: id, maxResult: 1n, isAsync: false };
  return pushCallback(env, facts.callback, info, (callee) => {
    if (id === FOR_EACH_MAP_ELEM) {
      setMapArguments(callee, facts.map);
      callee.regs[4] = context;
    } else {
      callee.regs[1] = unknownScalar();
      callee.regs[2] = context;
    }
  });
}

/** The state in which function `fn` is called back, with the arguments that `setArguments` gives it. */
export function pushCallback(
  env: Env,
  fn: number,
  info: CallbackInfo,
  setArguments: (frame: Frame) => void,
): State {
  if (env.state.frames.length >= MAX_FRAMES) {
    env.refuse('E2BIG', `the call stack of ${MAX_FRAMES + 1} frames is too deep`);
  }
  const state = copyState(env.state);
  topFrame(state).callbackDepth++;
  state.callbacksEntered++;
  env.frame.callbackDepth = 0;
  const callee = newFrame(fn, env.at, info);
  callee.regs[10] = new Pointer('stack', { frame: state.frames.length });
  setArguments(callee);
  state.frames.push(callee);
  state.at = 0;
  return state;
}

function callbackMap(timer: Value | undefined): CallFacts['map'] {
  return timer?.kind === 'pointer' ? timer.map : undefined;
}

/** R1 map, R2 key, R3 value. */
function setMapArguments(frame: Frame, map: CallFacts['map']): void {
  if (!map) return;
  frame.regs[1] = new Pointer('map', { map });
  frame.regs[2] = new Pointer('map_key', { map, size: map.keySize });
  frame.regs[3] = new Pointer('map_value', { map });
}
