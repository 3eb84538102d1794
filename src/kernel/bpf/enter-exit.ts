/**
 * What a trampoline calls around each program and around the original function.
 *
 * Reference: kernel/bpf/trampoline.c: bpf_trampoline_enter, __bpf_prog_enter*, __bpf_prog_exit*,
 * __bpf_tramp_enter, __bpf_tramp_exit (6.12). The counters lie where Linux has them in spirit: recursion
 * in a per-CPU int behind prog->active, statistics behind prog->stats, locks as nesting counts of the
 * task. Left out: statistics per CPU, what a miss of a private stack does.
 */
import type { KernelContext, KernelFunction } from '../function.js';
import { BPF_TRAMP_RUN_CTX, TASK_STRUCT } from '../offsets.js';
import type { BpfProfile } from './profile.js';

/** struct bpf_prog_stats. */
export const BPF_PROG_STATS = { cnt: 0, nsecs: 8, misses: 16, size: 24 } as const;

/** BPF_PROG_NO_START_TIME: statistics are off. */
const NO_START_TIME = 1n;

interface Kind {
  /** rcu_read_lock, or rcu_read_lock_trace for programs that may sleep. */
  readonly lock: 'rcu_read_lock_nesting' | 'trc_reader_nesting';
  /** Does not run when it runs on this CPU already. */
  readonly recursionGuard: boolean;
  /** The shim of a cgroup has no statistics: the programs of the cgroup have. */
  readonly statistics: boolean;
}

/** By what follows `__bpf_prog_enter_` and `__bpf_prog_exit_`; `plain` has no suffix. */
const KINDS = {
  plain: { lock: 'rcu_read_lock_nesting', recursionGuard: false, statistics: true },
  recur: { lock: 'rcu_read_lock_nesting', recursionGuard: true, statistics: true },
  sleepable: { lock: 'trc_reader_nesting', recursionGuard: false, statistics: true },
  sleepable_recur: { lock: 'trc_reader_nesting', recursionGuard: true, statistics: true },
  lsm_cgroup: { lock: 'rcu_read_lock_nesting', recursionGuard: false, statistics: false },
} as const satisfies Readonly<Record<string, Kind>>;

export type EnterExitKind = keyof typeof KINDS;

/** What decides between them. */
export interface EnterExitTraits {
  readonly sleepable: boolean;
  /** BPF_PROG_TYPE_LSM: for one hook, or the shim of BPF_LSM_CGROUP. */
  readonly lsm: 'mac' | 'cgroup' | undefined;
  /** BPF_PROG_TYPE_STRUCT_OPS. */
  readonly structOps: boolean;
}

/** bpf_trampoline_enter: LSM and struct_ops programs are not guarded against recursion, all others are. */
export function enterExitKind({ sleepable, lsm, structOps }: EnterExitTraits): EnterExitKind {
  switch (lsm) {
    case undefined:
      if (structOps) return sleepable ? 'sleepable' : 'plain';
      return sleepable ? 'sleepable_recur' : 'recur';
    case 'cgroup':
      return 'lsm_cgroup';
    case 'mac':
      return sleepable ? 'sleepable' : 'plain';
  }
}

export function enterName(kind: EnterExitKind): string {
  return kind === 'plain' ? '__bpf_prog_enter' : `__bpf_prog_enter_${kind}`;
}

export function exitName(kind: EnterExitKind): string {
  return kind === 'plain' ? '__bpf_prog_exit' : `__bpf_prog_exit_${kind}`;
}

export interface EnterExitParts {
  readonly profile: BpfProfile;
  /** Address of the u32 that is non-zero while statistics are kept. */
  readonly statsEnabled: bigint;
  readonly schedClock: () => bigint;
  /** The last reference to a killed image is gone. */
  readonly releaseImage: (descriptor: bigint) => void;
}

function addTo32(kernel: KernelContext, address: bigint, amount: number): number {
  const value = (kernel.memory.read32(address) + amount) >>> 0;
  kernel.memory.write32(address, value);
  return value;
}

function addTo64(kernel: KernelContext, address: bigint, amount: bigint): void {
  kernel.memory.write64(address, BigInt.asUintN(64, kernel.memory.read64(address) + amount));
}

/** Takes or gives back the read lock, which disables migration, too. */
export function lock(kernel: KernelContext, name: Kind['lock'], amount: 1 | -1): void {
  addTo32(kernel, kernel.current + BigInt(TASK_STRUCT[name]), amount);
  addTo32(kernel, kernel.current + BigInt(TASK_STRUCT.migration_disabled), amount);
}

/** Installs the run context of this invocation, keeping the one around it. */
function setRunContext(kernel: KernelContext, runContext: bigint): void {
  const slot = kernel.current + BigInt(TASK_STRUCT.bpf_ctx);
  const saved = kernel.memory.read64(slot);
  kernel.memory.write64(runContext + BigInt(BPF_TRAMP_RUN_CTX.saved_run_ctx), saved);
  kernel.memory.write64(slot, runContext);
}

function resetRunContext(kernel: KernelContext, runContext: bigint): void {
  const saved = kernel.memory.read64(runContext + BigInt(BPF_TRAMP_RUN_CTX.saved_run_ctx));
  kernel.memory.write64(kernel.current + BigInt(TASK_STRUCT.bpf_ctx), saved);
}

/** bpf_tramp_image::pcref: references, the first word; percpu_ref_kill was called, the second. */
export const PERCPU_REF = { count: 0, killed: 8 } as const;

function statsOf(kernel: KernelContext, { profile }: EnterExitParts, prog: bigint): bigint {
  return kernel.memory.read64(prog + BigInt(profile.bpfProg.stats));
}

/** The per-CPU recursion count of a program. */
function activeCounter(kernel: KernelContext, { profile }: EnterExitParts, prog: bigint): bigint {
  const counters = kernel.memory.read64(prog + BigInt(profile.bpfProg.active));
  return counters + BigInt(4 * kernel.currentCpu);
}

/** bpf_prog_start_time: a clock that shows 0 counts as one without statistics. */
export function startTime(kernel: KernelContext, parts: EnterExitParts): bigint {
  if (kernel.memory.read32(parts.statsEnabled) === 0) return NO_START_TIME;
  const now = parts.schedClock();
  return now === 0n ? NO_START_TIME : now;
}

/** update_prog_stats. */
export function account(
  kernel: KernelContext,
  parts: EnterExitParts,
  prog: bigint,
  start: bigint,
): void {
  if (kernel.memory.read32(parts.statsEnabled) === 0 || start <= NO_START_TIME) return;
  const stats = statsOf(kernel, parts, prog);
  addTo64(kernel, stats + BigInt(BPF_PROG_STATS.cnt), 1n);
  addTo64(kernel, stats + BigInt(BPF_PROG_STATS.nsecs), parts.schedClock() - start);
}

/** 0 tells the trampoline to skip the program. */
function enter(
  parts: EnterExitParts,
  kind: Kind,
  kernel: KernelContext,
  prog: bigint,
  runContext: bigint,
): bigint {
  lock(kernel, kind.lock, 1);
  setRunContext(kernel, runContext);
  if (kind.recursionGuard && addTo32(kernel, activeCounter(kernel, parts, prog), 1) !== 1) {
    addTo64(kernel, statsOf(kernel, parts, prog) + BigInt(BPF_PROG_STATS.misses), 1n);
    return 0n;
  }
  return kind.statistics ? startTime(kernel, parts) : NO_START_TIME;
}

function exit(
  parts: EnterExitParts,
  kind: Kind,
  kernel: KernelContext,
  prog: bigint,
  start: bigint,
  runContext: bigint,
): void {
  resetRunContext(kernel, runContext);
  if (kind.statistics) account(kernel, parts, prog, start);
  if (kind.recursionGuard) addTo32(kernel, activeCounter(kernel, parts, prog), -1);
  lock(kernel, kind.lock, -1);
}

/** __bpf_tramp_exit: the last one out of a killed image tells so. */
function putImage(parts: EnterExitParts, kernel: KernelContext, image: bigint): void {
  const ref = image + BigInt(parts.profile.trampImage.pcref);
  addTo64(kernel, ref + BigInt(PERCPU_REF.count), -1n);
  if (kernel.memory.read64(ref + BigInt(PERCPU_REF.count)) === 0n) parts.releaseImage(image);
}

/** All of them, with text of their own and without patch site. */
export function enterExitFunctions(parts: EnterExitParts): KernelFunction[] {
  const functions = (Object.keys(KINDS) as EnterExitKind[]).flatMap((name): KernelFunction[] => [
    {
      name: enterName(name),
      prototype: `u64 ${enterName(name)}(struct bpf_prog *prog, struct bpf_tramp_run_ctx *run_ctx)`,
      parameters: 2,
      notrace: true,
      body: (kernel: KernelContext, prog: bigint, runContext: bigint) =>
        enter(parts, KINDS[name], kernel, prog, runContext),
    },
    {
      name: exitName(name),
      prototype: `void ${exitName(name)}(struct bpf_prog *prog, u64 start, struct bpf_tramp_run_ctx *run_ctx)`,
      parameters: 3,
      notrace: true,
      body: (kernel: KernelContext, prog: bigint, start: bigint, runContext: bigint) =>
        exit(parts, KINDS[name], kernel, prog, start, runContext),
    },
  ]);
  const onImage = (
    name: string,
    body: (kernel: KernelContext, image: bigint) => void,
  ): KernelFunction => {
    const prototype = `void ${name}(struct bpf_tramp_image *tr)`;
    return { name, prototype, parameters: 1, notrace: true, body };
  };
  return [
    ...functions,
    onImage('__bpf_tramp_enter', (kernel, image) =>
      addTo64(kernel, image + BigInt(parts.profile.trampImage.pcref + PERCPU_REF.count), 1n),
    ),
    onImage('__bpf_tramp_exit', (kernel, image) => putImage(parts, kernel, image)),
  ];
}
