/**
 * What a program may do with its context, by program type.
 *
 * Reference: xdp_is_valid_access in net/core/filter.c, kprobe_prog_is_valid_access in
 * kernel/trace/bpf_trace.c; of tracing programs see `traced-context.ts`. Of
 * struct __sk_buff only the form of accesses is checked, since programs with it do not load.
 */
import { hasField, type FieldKind } from '../btf/record.js';
import { isProbe } from '../object/spec.js';
import { isPtRegsAccess } from '../pt-regs.js';
import type { VerifierInput, VerifierMap } from './input.js';
import { unknownScalar, unsignedScalar } from './scalar.js';
import { Pointer, type PointerType, type Value } from './value.js';

const U32 = 0xffff_ffffn;
const XDP_MD_SIZE = 24;
const SK_BUFF_SIZE = 192;

const XDP_POINTERS: ReadonlyMap<number, PointerType> = new Map([
  [0, 'packet'],
  [4, 'packet_end'],
  [8, 'packet_meta'],
]);
const EGRESS_IFINDEX = 20;

/** What a load gives; undefined when it is not allowed. Stores never are. */
export function contextField(
  input: VerifierInput,
  off: number,
  size: number,
  signed: boolean,
): Value | undefined {
  switch (input.kind) {
    case 'xdp': {
      if (off < 0 || off >= XDP_MD_SIZE || size !== 4 || off % 4 !== 0) return undefined;
      if (off === EGRESS_IFINDEX && input.xdpAttach !== 'devmap') return undefined;
      const type = XDP_POINTERS.get(off);
      if (type) return signed ? undefined : new Pointer(type);
      return unsignedScalar(U32);
    }
    case 'tc':
    case 'socket':
      if (off < 0 || off + size > SK_BUFF_SIZE || off % size !== 0) return undefined;
      return unsignedScalar(size < 8 ? (1n << BigInt(8 * size)) - 1n : U32);
    case 'kprobe':
    case 'kretprobe':
    case 'kprobe_multi':
    case 'kretprobe_multi':
      if (!isPtRegsAccess(off, size)) return undefined;
      return size === 8 ? unknownScalar() : unsignedScalar((1n << BigInt(8 * size)) - 1n);
    default:
      return undefined;
  }
}

/** Fields that keep probes from a map, and how messages name them. */
const NOT_FOR_PROBES: readonly (readonly [readonly FieldKind[], string])[] = [
  [['bpf_list_head', 'bpf_rb_root'], 'bpf_{list_head,rb_root}'],
  [['bpf_spin_lock'], 'bpf_spin_lock'],
  [['bpf_timer'], 'bpf_timer'],
  [['bpf_wq'], 'bpf_wq'],
];

/** Why no program of that kind may refer to the map (check_map_prog_compatibility). */
export function refusedMap({ kind }: VerifierInput, { record }: VerifierMap): string | undefined {
  if (kind === 'socket' && hasField(record, 'bpf_spin_lock')) {
    return 'socket filter progs cannot use bpf_spin_lock yet';
  }
  if (!isProbe(kind)) return undefined;
  const found = NOT_FOR_PROBES.find(([kinds]) => hasField(record, ...kinds));
  return found && `tracing progs cannot use ${found[1]} yet`;
}

/** Range of results that the program type allows; undefined when anything goes. */
export function allowedResult(
  input: VerifierInput,
): { readonly min: bigint; readonly max: bigint; readonly only32?: true } | undefined {
  switch (input.kind) {
    case 'fentry':
    case 'fexit':
    case 'fsession':
      return { min: 0n, max: 0n };
    case 'lsm':
      // the hook is an int: what is above its 32 bits does not count
      return input.resultRange && { ...input.resultRange, only32: true };
    case 'lsm_cgroup':
      return { min: 0n, max: 1n };
    default:
      return undefined;
  }
}
