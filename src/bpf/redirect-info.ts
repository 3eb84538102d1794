/**
 * `struct bpf_redirect_info`: where the last redirect helper of a program wants the packet to go.
 *
 * The helpers write it, `xdp_do_redirect` reads it. Reference: include/linux/filter.h of 6.12; the fields
 * that only traffic control uses (`nh`) are left out. A device is `map_id` INT_MAX with `map_type` 0 and its
 * ifindex in `tgt_index`; a map has its own id and type, the entry in `tgt_value`, and `map` set for a
 * broadcast. There is one per CPU: `BpfHost.redirectInfo()` is the offset of the current CPU's.
 */
import { struct } from '../common/struct.js';
import type { BpfMap } from './maps/map.js';

export const BPF_REDIRECT_INFO = struct({
  tgt_index: 'u64',
  /** The kernel's object behind the entry, or 0. */
  tgt_value: 'u64',
  /** struct bpf_map, for BPF_F_BROADCAST. */
  map: 'u64',
  flags: 'u32',
  map_id: 'u32',
  map_type: 'u32',
  kern_flags: 'u32',
});

/** `map_id` while no map is meant. */
export const NO_MAP = 0x7fff_ffff;

/** BPF_F_BROADCAST, BPF_F_EXCLUDE_INGRESS. */
export const BPF_F_BROADCAST = 8;
export const BPF_F_EXCLUDE_INGRESS = 16;

/**
 * Who makes the kernel's objects behind the entries of redirect maps (`bpf_dtab_netdev`,
 * `bpf_cpu_map_entry`, `xdp_sock`), as physical addresses.
 */
export interface RedirectTargets {
  /**
   * The object for a new entry, or a negative errno. It may write to `value` what user space reads back
   * (the id of a program in place of its descriptor).
   */
  create(map: BpfMap, key: number, value: Uint8Array): number;
  /** The receive queue of the socket that `create` gave for an xskmap. */
  queueOf(target: number): number;
  /** The entry is gone. */
  free(map: BpfMap, target: number): void;
}
