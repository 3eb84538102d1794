/**
 * What the BPF floor needs from whoever runs it: memory, an allocator, addresses for helpers.
 *
 * The kernel implements it (`kernel/bpf-host.ts`); `PlainHost` in this folder implements it without a
 * kernel, for programs that run in the interpreter alone. Addresses are kernel addresses in
 * `memory`; maps and helpers are known by address because that is what xlated programs hold.
 */
import type { Memory, Region } from '../cpu/memory.js';
import type { Btf } from './btf/btf.js';
import type { LocalObjects } from './local/objects.js';
import type { BpfMap } from './maps/map.js';
import type { XlatedProgram } from './program.js';
import type { Network } from './network.js';
import type { RedirectTargets } from './redirect-info.js';
import type { Timers } from './timers.js';

/**
 * A register file as BPF engines keep it: pairs of Int32, R0 at [0] (low) and [1] (high), up to R10
 * at [20] and [21]. A helper finds its arguments in R1..R5 and leaves its result in R0.
 */
export type RegisterPairs = Int32Array;

/** What an engine may do in place of calling a body, with the same result. */
export type HelperIntrinsic =
  /** R0 = a signed 32-bit number. */
  | { readonly kind: 'constant'; readonly value: number }
  /** R0 = the CPU that the run began on. */
  | { readonly kind: 'current_cpu' }
  /** R0 = `BpfHost.clock` in units of so many nanoseconds. */
  | { readonly kind: 'clock'; readonly unit: number }
  /** R0 = `BpfHost.random`. */
  | { readonly kind: 'random' }
  /** bpf_map_lookup_elem, bpf_map_update_elem */
  | { readonly kind: 'map_lookup' }
  | { readonly kind: 'map_update' }
  /** bpf_csum_diff of kernels up to 6.12. */
  | { readonly kind: 'csum_diff' }
  /** bpf_xdp_get_buff_len, bpf_xdp_adjust_head */
  | { readonly kind: 'xdp_buff_len' }
  | { readonly kind: 'xdp_adjust_head' };

/** What a body may read and has to set: the others need not be put into the register file. */
export interface HelperSignature {
  /** It reads R1 up to this one. */
  readonly arguments: number;
  /** It always sets R0. */
  readonly result: boolean;
}

/**
 * The body of a helper that calls functions of the program. It yields the address of one each time, with
 * R1..R5 set, and goes on when the function has returned, with its result in R0. Who drives it decides
 * how: at once, or as a call of text on a CPU.
 */
export type CallingBody = (
  registers: RegisterPairs,
  host: BpfHost,
) => Generator<bigint, void, undefined>;

/** The body of a helper. A failure that the program may see is a negative errno in R0. */
export interface HelperBody {
  (registers: RegisterPairs, host: BpfHost): void;
  readonly intrinsic?: HelperIntrinsic;
  /** Default: five arguments, and R0 may stay as it is. */
  readonly signature?: HelperSignature;
  /** The same in steps, for a host whose functions are not called by `callbackAt`. */
  readonly calling?: CallingBody;
}

/** `body` itself, with its signature. */
export function withSignature(signature: HelperSignature, body: HelperBody): HelperBody {
  return Object.assign(body, { signature });
}

/** `body` itself, marked for engines that can do what it does in place. */
export function withIntrinsic(intrinsic: HelperIntrinsic, body: HelperBody): HelperBody {
  return Object.assign(body, { intrinsic });
}

/**
 * A function of a loaded program, called by a helper (bpf_loop, bpf_for_each_map_elem, timers):
 * arguments in R1..R5 of the file, result in R0; R6..R9 stay as they are. The file may be that of the
 * program that runs, or any other.
 */
export type Callback = (registers: RegisterPairs) => void;

/** Thrown by a helper that ends the program (as the kernel's bpf_throw does): R0 is `r0`. */
export class ProgramExit extends Error {
  readonly r0: bigint;

  constructor(r0: bigint) {
    super(`the program was ended by a helper with ${r0}`);
    this.name = 'ProgramExit';
    this.r0 = r0;
  }
}

/** Where clock and random numbers of a host lie: offsets in the backing store. */
export interface HostCells {
  /** u64: the last reading in nanoseconds, and how much each moves it on. */
  readonly clock: number;
  readonly clockStep: number;
  /** Four words: the state of `Random`. */
  readonly random: number;
}

/**
 * - `large frames refused`: a frame_sz of more than a page is taken for a driver's mistake (before 6.1.52).
 * - `unsigned tailroom`: a fragment that does not begin its buffer's page has room without end (before 6.1.170).
 */
export type AdjustTailBug = 'large frames refused' | 'unsigned tailroom';

export interface BpfHost {
  readonly memory: Memory;

  /**
   * Offsets in `struct bpf_array` that JITed tail calls read: `map.max_entries` and `ptrs`. Default: those of
   * 6.12.
   */
  readonly arrayOffsets?: { readonly maxEntries: number; readonly ptrs: number };

  /** Is a function of the program replaced (freplace)? Such a program cannot be in a prog array. Default: no. */
  isExtended?(program: XlatedProgram): boolean;

  /**
   * The `struct bpf_prog` of a program that a prog array takes, as JIT images read it there; held until
   * `putProgram`. Throws KernelError when the JIT refuses it. Default: programs have none.
   */
  holdProgram?(program: XlatedProgram): bigint;
  putProgram?(program: XlatedProgram): void;

  /**
   * Maps `size` zeroed bytes on pages of their own, ending at a page end, read-write.
   * `name` shows in faults.
   */
  allocate(name: string, size: number): Region;
  release(region: Region): void;

  /** Zeroed bytes of slab memory. Throws when there are none. */
  kmalloc(size: number): bigint;
  kfree(address: bigint): void;
  /** A pointer to zeroed bytes that each CPU has. Throws KernelError when there are none. */
  allocPercpu(size: number): bigint;
  freePercpu(pointer: bigint): void;
  /** Where a CPU has them. */
  perCpuAddress(pointer: bigint, cpu: number): bigint;

  /** The address that helper call immediates are relative to. */
  readonly callBase: bigint;
  /** Entry address of helper `id`; `undefined` when there is none. */
  helperAddress(id: number): bigint | undefined;
  /**
   * Helpers whose calls the JIT makes code of (bpf_jit_inlines_helper_call): xlated code keeps their id as
   * immediate, so `helperAt(callBase + id)` is their body, too. Default: none.
   */
  readonly jitInlines?: ReadonlySet<number>;
  /** The body behind an entry address. */
  helperAt(address: bigint): HelperBody | undefined;

  /**
   * Bits of ctx[-1] that are the number of arguments, where a trampoline keeps more in it (7.3). Default: all.
   */
  readonly argumentCountMask?: number | undefined;

  /** The types of the kernel, for CO-RE. Without: programs that need them are refused. */
  readonly kernelBtf?: Btf;
  /** Address of a kernel symbol, for `__ksym` externs. */
  symbolAddress?(name: string): bigint | undefined;
  /** Entry address of a kernel function that programs may call. */
  kfuncAddress?(name: string): bigint | undefined;
  /** Whether its kernel has such a function, although there is no address. Default: no. */
  hasKfunc?(name: string): boolean;

  /**
   * Entry addresses for functions of a program, 16 bytes apart, from the one it returns. An engine
   * takes them when it links a program that holds function addresses (ld_imm64 with src_reg 4): the
   * constant that the program loads is the callee's entry. Helpers know a function by nothing else.
   */
  addCallbacks(callbacks: readonly Callback[]): bigint;
  /** Forgets what `addCallbacks` returned. */
  removeCallbacks(base: bigint): void;
  /** The function behind an entry address; undefined when there is none. */
  callbackAt(address: bigint): Callback | undefined;

  /** Makes a map known under its `struct bpf_map` address; gives it a number, from 1. */
  addMap(map: BpfMap): number;
  removeMap(map: BpfMap): void;
  mapAt(address: bigint): BpfMap | undefined;

  readonly cpuCount: number;
  /** The CPU that runs now. */
  currentCpu(): number;
  /** Nanoseconds of a deterministic clock. */
  clock(): bigint;
  /** A random u32 from the host's seed. */
  random(): number;
  /** Where engines find clock and random numbers. Default: they call. */
  readonly cells?: HostCells;
  /** One line of bpf_trace_printk output. */
  printk(text: string): void;

  /** Offset of the `struct bpf_redirect_info` of the CPU that runs now. */
  redirectInfo(): number;
  /** Makes what entries of redirect maps stand for. Default: they are values and nothing else. */
  readonly redirectTargets?: RedirectTargets | undefined;
  /** `__xdp_return`: the page of a fragment that a packet loses goes back. Default: nobody counts pages. */
  readonly returnFragment?: ((page: number) => void) | undefined;

  /** A bug that bpf_xdp_adjust_tail once had. Default: none. */
  readonly adjustTailBug?: AdjustTailBug | undefined;

  /** Devices, routes and what else helpers ask of a network. */
  readonly network: Network;
  readonly timers: Timers;
  /** What programs allocate. */
  readonly objects: LocalObjects;
}
