/**
 * Values of `__kconfig` externs: how the kernel was configured, its version, what it can do.
 *
 * Reference: bpf_object__read_kconfig_mem, set_kcfg_value_* and bpf_object__resolve_externs of libbpf.
 * The default table is that of Debian's arm64 cloud kernel 6.12, as far as this lab stands for it; text
 * as in a `.config`: `y`, `250`, `"text"`. A weak extern that is not there is 0.
 */
import { KernelError } from '../../common/errors.js';
import type { Btf } from '../btf/btf.js';
import type { ExternSpec } from './spec.js';

/** Option names without quotes around, values as in a `.config`. */
export type Kconfig = Readonly<Record<string, string>>;

const YES = `
  64BIT ARM64 ARM64_4K_PAGES ARM64_LSE_ATOMICS ARM64_PTR_AUTH ARM64_PTR_AUTH_KERNEL ARM64_BTI ARM64_EPAN
  BPF BPF_SYSCALL BPF_JIT BPF_JIT_DEFAULT_ON BPF_UNPRIV_DEFAULT_OFF BPF_LSM BPF_EVENTS BPF_STREAM_PARSER
  DEBUG_INFO_BTF DEBUG_INFO_BTF_MODULES DYNAMIC_FTRACE DYNAMIC_FTRACE_WITH_DIRECT_CALLS
  DYNAMIC_FTRACE_WITH_CALL_OPS DYNAMIC_FTRACE_WITH_ARGS FRAME_POINTER FUNCTION_TRACER
  FUNCTION_GRAPH_TRACER KALLSYMS KALLSYMS_ALL KPROBES NET PREEMPT_VOLUNTARY RANDOMIZE_BASE SMP
  STRICT_KERNEL_RWX
`;

export const DEFAULT_KCONFIG: Kconfig = {
  ...Object.fromEntries(
    YES.trim()
      .split(/\s+/)
      .map((name) => [`CONFIG_${name}`, 'y']),
  ),
  CONFIG_ARM64_VA_BITS: '52',
  CONFIG_FUNCTION_ALIGNMENT: '8',
  CONFIG_HZ: '250',
  CONFIG_NR_CPUS: '512',
  // KERNEL_VERSION(6, 12, 107): the last part stops at 255
  LINUX_KERNEL_VERSION: String((6 << 16) | (12 << 8) | 107),
  LINUX_HAS_BPF_COOKIE: 'y',
  LINUX_HAS_SYSCALL_WRAPPER: 'y',
};

const TRISTATE: ReadonlyMap<string, number> = new Map([
  ['n', 0],
  ['y', 1],
  ['m', 2],
]);

/** The bytes of one extern. Throws KernelError when it is not there or does not fit its type. */
export function kconfigValue(extern: ExternSpec, btf: Btf, kconfig: Kconfig): Uint8Array {
  const { name, size, type } = extern;
  const bytes = new Uint8Array(size);
  const text = kconfig[name];
  if (text === undefined) {
    if (extern.weak) return bytes;
    throw new KernelError('ESRCH', `extern '${name}' (__kconfig): the kernel has no such option`);
  }
  const wrong = (): KernelError =>
    new KernelError('EINVAL', `extern '${name}' (__kconfig): value ${text} does not fit its type`);
  const value = btf.resolve(type);
  if (text.startsWith('"')) {
    const element = value.kind === 'array' ? btf.resolve(value.type) : value;
    if (value.kind !== 'array' || element.kind !== 'int' || element.size !== 1) throw wrong();
    // cut to the array, always ended by a zero
    bytes.set(new TextEncoder().encode(text.slice(1, -1)).subarray(0, size - 1));
    return bytes;
  }
  const tristate = TRISTATE.get(text);
  if (tristate !== undefined) {
    if (value.kind === 'int' && value.bool && tristate < 2) bytes[0] = tristate;
    else if (value.kind === 'int' && value.size === 1 && !value.bool) bytes[0] = text.charCodeAt(0);
    else if (isTristate(value)) bytes[0] = tristate;
    else throw wrong();
    return bytes;
  }
  if (!/^-?(0x[0-9a-fA-F]+|\d+)$/.test(text)) throw wrong();
  if (value.kind !== 'int' || value.bool || ![1, 2, 4, 8].includes(size)) throw wrong();
  const number = text.startsWith('-') ? -BigInt(text.slice(1)) : BigInt(text);
  const bits = 8 * size;
  const held = value.signed ? BigInt.asIntN(bits, number) : BigInt.asUintN(bits, number);
  if (held !== number) throw wrong();
  for (let i = 0; i < size; i++) bytes[i] = Number((held >> BigInt(8 * i)) & 0xffn);
  return bytes;
}

function isTristate(type: ReturnType<Btf['resolve']>): boolean {
  return type.kind === 'enum' && type.name === 'libbpf_tristate';
}

/** The contents of the `.kconfig` map. */
export function kconfigData(
  externs: readonly ExternSpec[],
  size: number,
  btf: Btf,
  kconfig: Kconfig,
): Uint8Array {
  const data = new Uint8Array(size);
  for (const extern of externs) {
    if (extern.kind === 'kconfig') data.set(kconfigValue(extern, btf, kconfig), extern.offset);
  }
  return data;
}
