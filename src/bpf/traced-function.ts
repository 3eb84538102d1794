/**
 * The function that a tracing program is attached to, as BTF knows it: what is in each slot of ctx.
 *
 * ctx is the array of argument registers (a structure by value takes one or two), then the return value.
 * Reference: btf_distill_func_proto, get_ctx_arg_idx, is_int_ptr in kernel/bpf/btf.c. A function without BTF
 * (a BPF program built without -g) passes five u64 and gives back one.
 *
 * Usage:
 *   const traced = tracedFunction(kernelBtf, 'bpf_fentry_test3');
 *   traced?.slots[1]; // { kind: 'scalar', name: 'b', size: 4 }
 */
import type { Btf } from './btf/btf.js';

/** What is in a slot of ctx. */
export type TracedSlot =
  /** A number, or an address that is no more than a number to a program (void *, int *). */
  | { readonly kind: 'scalar' }
  /** The address of a structure: loads through it do not fault. */
  | {
      readonly kind: 'struct';
      readonly btf: Btf;
      readonly type: number;
      readonly mayBeNull: boolean;
    }
  /** What no program may read. */
  | { readonly kind: 'refused'; readonly why: string };

export interface TracedFunction {
  readonly name: string;
  /** Argument slots. */
  readonly slots: readonly TracedSlot[];
  readonly result: TracedSlot;
  /** The result is an integer of at most 8 bytes: what fmod_ret may give. */
  readonly returnsInteger: boolean;
  /** Pointers are valid for sure (LSM, struct_ops): loads need no guard. */
  readonly trusted: boolean;
  /** Nothing is known about arguments and result. */
  readonly conservative: boolean;
}

/** MAX_BPF_FUNC_REG_ARGS */
const UNKNOWN_ARGUMENTS = 5;

/** The function of that name; undefined when BTF has none. */
export function tracedFunction(
  btf: Btf,
  name: string,
  options: { readonly trusted?: boolean; readonly kernelBtf?: Btf } = {},
): TracedFunction | undefined {
  const id = btf.find('func', name);
  return id === undefined
    ? undefined
    : tracedPrototype(btf, btf.as(id, 'func')?.type ?? 0, name, options);
}

/** As `tracedFunction`, for the prototype `id`. */
export function tracedPrototype(
  btf: Btf,
  id: number,
  name: string,
  {
    trusted = false,
    kernelBtf,
  }: {
    readonly trusted?: boolean;
    /** What the context types of programs are translated to, for a function of a program. */
    readonly kernelBtf?: Btf | undefined;
  } = {},
): TracedFunction | undefined {
  const prototype = btf.as(id, 'func_proto');
  if (!prototype) return undefined;
  const slots = prototype.parameters.flatMap(({ name: parameter, type }, i) => {
    const slot = slotOf(btf, type, `func '${name}' arg${i}`, kernelBtf, parameter);
    const { kind } = btf.resolve(type);
    const size = kind === 'struct' || kind === 'union' ? btf.sizeOf(type) : 8;
    return Array.from({ length: Math.max(1, Math.ceil(size / 8)) }, () => slot);
  });
  const { returnType } = prototype;
  const result = btf.resolve(returnType);
  return {
    name,
    slots,
    result: slotOf(btf, returnType, `func '${name}' ret`, kernelBtf, ''),
    returnsInteger: result.kind === 'int' || result.kind === 'enum' || result.kind === 'enum64',
    trusted,
    conservative: false,
  };
}

/** A function that no BTF describes. */
export function unknownFunction(name: string): TracedFunction {
  const scalar: TracedSlot = { kind: 'scalar' };
  return {
    name,
    slots: Array.from({ length: UNKNOWN_ARGUMENTS }, () => scalar),
    result: scalar,
    returnsInteger: true,
    trusted: false,
    conservative: true,
  };
}

/** What the kernel passes where a program says it takes one of these. */
const CONTEXT_TYPES: ReadonlyMap<string, string> = new Map([
  ['xdp_md', 'xdp_buff'],
  ['__sk_buff', 'sk_buff'],
]);

function slotOf(
  btf: Btf,
  id: number,
  where: string,
  kernelBtf: Btf | undefined,
  parameter: string,
): TracedSlot {
  const type = btf.resolve(id);
  switch (type.kind) {
    case 'int':
    case 'enum':
    case 'enum64':
    case 'struct':
    case 'union':
      return { kind: 'scalar' };
    case 'ptr':
      break;
    default:
      return {
        kind: 'refused',
        why: `${where} has type ${type.kind}. Only pointer access is allowed`,
      };
  }
  const pointee = btf.resolve(type.type);
  // `void *` and pointers to integers
  if (pointee.kind === 'void' || pointee.kind === 'int') return { kind: 'scalar' };
  if (pointee.kind !== 'struct' && pointee.kind !== 'union' && pointee.kind !== 'fwd') {
    return { kind: 'refused', why: `${where} type ${pointee.kind} is not a struct` };
  }
  const inKernel = kernelBtf && CONTEXT_TYPES.get(pointee.name);
  const translated = inKernel === undefined ? undefined : kernelBtf?.find('struct', inKernel);
  const mayBeNull = parameter.endsWith('__nullable');
  if (kernelBtf && translated !== undefined) {
    return { kind: 'struct', btf: kernelBtf, type: translated, mayBeNull };
  }
  return { kind: 'struct', btf, type: btf.resolveId(type.type), mayBeNull };
}
