/**
 * A BPF arena: 4 GiB of kernel addresses of which only pages in use are backed, at the 32-bit offsets that
 * user space knows them by.
 *
 * Reference: kernel/bpf/arena.c: arena_map_alloc, bpf_arena_get_kern_vm_start, arena_vm_fault (6.12). The
 * page of user address U lies at kern_vm_start + (u32)U; half a guard lies on either side, so that an
 * instruction's 16-bit offset never leaves the area. Left out: the map type, bpf_arena_alloc_pages, and
 * user space itself.
 *
 * Usage:
 *   const arena = new KernelArena(kernel, { userVmStart: 0x7f1200000000n });
 *   const user = arena.allocPages(2);
 *   kernel.bpf.load({ ...xlated, arena }); // its PROBE_MEM32 accesses reach arena.kernelAddress(user)
 */
import type { Arena } from '../../bpf/program.js';
import { PAGE_SIZE, type Region } from '../../cpu/memory.js';
import type { Kernel } from '../kernel.js';

const SZ_4G = 1n << 32n;
/** GUARD_SZ. */
const GUARD_SIZE = 0x10000n;

export interface ArenaOptions {
  /** Where user space has it. Default 0x7f1200000000. */
  readonly userVmStart?: bigint;
}

export class KernelArena implements Arena {
  readonly kernVmStart: bigint;
  readonly userVmStart: bigint;
  readonly #kernel: Kernel;
  readonly #pages = new Map<bigint, Region>();
  readonly #area: bigint;
  #next: bigint;

  constructor(kernel: Kernel, { userVmStart = 0x7f12_0000_0000n }: ArenaOptions = {}) {
    this.#kernel = kernel;
    this.userVmStart = userVmStart;
    this.#area = kernel.vmalloc.take(SZ_4G + GUARD_SIZE, BigInt(PAGE_SIZE));
    this.kernVmStart = this.#area + GUARD_SIZE / 2n;
    this.#next = userVmStart;
  }

  /** Backs `count` fresh pages; the user address of the first. */
  allocPages(count: number): bigint {
    const first = this.#next;
    this.#next += BigInt(count * PAGE_SIZE);
    for (let user = first; user < this.#next; user += BigInt(PAGE_SIZE)) {
      const region = this.#kernel.memory.map({
        name: 'arena page',
        address: this.kernelAddress(user),
        size: PAGE_SIZE,
        permissions: 'rw',
      });
      this.#pages.set(user, region);
    }
    return first;
  }

  /** Takes the page at a user address away: the kernel's accesses to it fault. */
  freePage(user: bigint): void {
    const region = this.#pages.get(user);
    if (!region) throw new RangeError(`no arena page at 0x${user.toString(16)}`);
    this.#pages.delete(user);
    this.#kernel.memory.unmap(region);
  }

  /** Where the kernel has what user space has at `user`. */
  kernelAddress(user: bigint): bigint {
    return this.kernVmStart + BigInt.asUintN(32, user);
  }

  free(): void {
    for (const user of this.#pages.keys()) this.freePage(user);
    this.#kernel.vmalloc.release(this.#area);
  }
}
