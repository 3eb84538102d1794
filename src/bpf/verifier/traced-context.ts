/**
 * What loads from the context of a tracing program give: arguments and result of the traced function.
 *
 * Reference: tracing_prog_is_valid_access, btf_ctx_access in kernel/bpf/btf.c. Where the function is not
 * known (a program that is verified by itself), each slot may be a number or an address.
 */
import type { SectionKind } from '../object/spec.js';
import type { TracedFunction, TracedSlot } from '../traced-function.js';
import type { Env } from './env.js';
import { kernelScalar, unknownScalar, unsignedScalar } from './scalar.js';
import { Pointer, type Value } from './value.js';

/** MAX_BPF_FUNC_ARGS: what a program reads directly. */
const MAX_SLOTS = 12;

/** Kinds that see the result behind the arguments. */
const SEES_RESULT: readonly SectionKind[] = ['fexit', 'fmod_ret', 'lsm', 'fsession'];

/** A load; refuses what is not allowed. */
export function loadTracedContext(env: Env, off: number, size: number): Value {
  const { kind, traced } = env.input;
  const access = `invalid bpf_context access off=${off} size=${size}`;
  const refuse = (why: string): never => env.refuse('EACCES', `${why}; ${access}`);
  if (off < 0 || off >= 8 * MAX_SLOTS || off % size !== 0) env.refuse('EACCES', access);
  if (!traced) {
    if (off % 8 !== 0 || size !== 8) env.refuse('EACCES', access);
    return kernelScalar();
  }
  if (off % 8 !== 0) refuse(`func '${traced.name}' offset ${off} is not multiple of 8`);
  const index = off / 8;
  const slot = slotAt(traced, kind, index);
  if (!slot) return refuse(`func '${traced.name}' doesn't have ${index + 1}-th argument`);
  switch (slot.kind) {
    case 'scalar':
      return size === 8 ? unknownScalar() : unsignedScalar((1n << BigInt(8 * size)) - 1n);
    case 'refused':
      return refuse(slot.why);
    case 'struct': {
      if (size !== 8) {
        refuse(`func '${traced.name}' arg${index} has unexpected size ${size}. must be 8`);
      }
      const { btf, type, mayBeNull } = slot;
      const id = mayBeNull ? env.nextId() : 0;
      return new Pointer('btf', {
        btf,
        typeId: type,
        trusted: traced.trusted,
        orNull: mayBeNull,
        id,
      });
    }
  }
}

function slotAt(traced: TracedFunction, kind: SectionKind, index: number): TracedSlot | undefined {
  const argument = traced.slots[index];
  if (argument || index !== traced.slots.length || !SEES_RESULT.includes(kind)) return argument;
  return traced.result;
}
