/**
 * The types of kernel functions that programs may call: their C prototypes as BTF.
 *
 * The loader compares with them what an object declares, the verifier takes from them what each argument
 * is. Reference: the kernel's own BTF, where each is a func.
 *
 * Usage:
 *   const btf = kfuncBtf(KFUNCS.map(({ prototype }) => prototype));
 */
import { InputError } from '../../common/errors.js';
import { BtfBuilder } from '../btf/builder.js';
import type { Btf } from '../btf/btf.js';
import { declareUapiTypes } from '../btf/uapi-types.js';
import { CPUMASK } from '../local/cpumask.js';

/** Bits of enum xdp_rss_hash_type. */
export const XDP_RSS_HASH_TYPE = {
  XDP_RSS_L3_IPV4: 1 << 0,
  XDP_RSS_L3_IPV6: 1 << 1,
  XDP_RSS_L3_DYNHDR: 1 << 2,
  XDP_RSS_L4: 1 << 3,
  XDP_RSS_L4_TCP: 1 << 4,
  XDP_RSS_L4_UDP: 1 << 5,
  XDP_RSS_L4_SCTP: 1 << 6,
  XDP_RSS_L4_IPSEC: 1 << 7,
  XDP_RSS_L4_ICMP: 1 << 8,
} as const;

interface KfuncPrototype {
  readonly name: string;
  readonly returns: string;
  /** Names and C types. */
  readonly parameters: readonly (readonly [string, string])[];
}

/** Splits `int *bpf_iter_num_next(struct bpf_iter_num *it)`. */
export function parseKfuncPrototype(text: string): KfuncPrototype {
  const [, returns = '', name = '', list = ''] = /^(.+?)(\w+)\((.*)\)$/.exec(text) ?? [];
  if (name === '') throw new InputError(`'${text}' is no C prototype`);
  // a comma inside a parameter that is a function does not part two
  const parameters = list === 'void' || list === '' ? [] : list.split(/, (?![^(]*\))/);
  return {
    name,
    returns: returns.trim(),
    parameters: parameters.map((parameter) => {
      const [, result, called = '', takes] = /^(.+) \((\w+)\)\((.*)\)$/.exec(parameter) ?? [];
      if (result !== undefined) return [called, `${result} (*)(${takes})`];
      const [, type = '', each = ''] = /^(.+?)(\w+)$/.exec(parameter) ?? [];
      return [each, type.trim()];
    }),
  };
}

/** The types that kernel functions for programs have and no other does. */
export function declareKfuncTypes(builder: BtfBuilder): BtfBuilder {
  return builder
    .enum('xdp_rss_hash_type', XDP_RSS_HASH_TYPE)
    .struct('bpf_dynptr', 16, { __opaque: ['__u64[2]', 0] })
    .struct('bpf_iter_num', 8, { __opaque: ['__u64[1]', 0] })
    .struct('bpf_list_head', 16, { __opaque: ['__u64[2]', 0] })
    .struct('bpf_list_node', 24, { __opaque: ['__u64[3]', 0] })
    .struct('bpf_rb_root', 16, { __opaque: ['__u64[2]', 0] })
    .struct('bpf_rb_node', 32, { __opaque: ['__u64[4]', 0] })
    .struct('bpf_refcount', 4, { __opaque: ['__u32[1]', 0] })
    .struct('cpumask', 8 * CPUMASK.words, { bits: [`unsigned long[${CPUMASK.words}]`, 0] })
    .struct('refcount_struct', 4, { refs: ['int', 0] })
    .struct('bpf_cpumask', CPUMASK.size, {
      cpumask: ['struct cpumask', 0],
      usage: ['struct refcount_struct', CPUMASK.usage],
    });
}

/** BTF with a func for each prototype. */
export function kfuncBtf(prototypes: readonly string[]): Btf {
  // what else is in a task the BTF of a kernel says
  const builder = declareKfuncTypes(declareUapiTypes(new BtfBuilder())).struct('task_struct', 8, {
    stack: ['void *', 0],
  });
  for (const text of prototypes) {
    const { name, returns, parameters } = parseKfuncPrototype(text);
    builder.func(name, returns, parameters);
  }
  return builder.build();
}
