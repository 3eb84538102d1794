/**
 * Kernel functions on sets of CPUs, and references to tasks: for programs that trace.
 *
 * Reference: kernel/bpf/cpumask.c; bpf_task_acquire in kernel/bpf/helpers.c. A search that finds nothing gives
 * nr_cpu_ids or more, here always that number. Left out: bpf_task_from_pid, bpf_cpumask_populate.
 */
import { argument, argument32, setResult, setResult64 } from '../helpers/helper.js';
import type { BpfHost, HelperBody, RegisterPairs } from '../host.js';
import {
  acquireCpumask,
  createCpumask,
  firstCpu,
  readMask,
  releaseCpumask,
  weightOf,
  writeMask,
} from '../local/cpumask.js';
import { GENERIC_KINDS, TRACING_KINDS, type KfuncFlag, type KfuncRow } from './kfunc.js';

const maskAt = (registers: RegisterPairs, n: number, { memory }: BpfHost): bigint =>
  readMask(memory, argument(registers, n));

const allCpus = ({ cpuCount }: BpfHost): bigint => (1n << BigInt(cpuCount)) - 1n;

/** A number found in the set at R1, or in what two have in common. */
function find(count: 1 | 2, found: (bits: bigint, host: BpfHost) => number): HelperBody {
  return (registers, host) => {
    let bits = maskAt(registers, 1, host) & allCpus(host);
    if (count === 2) bits &= maskAt(registers, 2, host);
    setResult(registers, found(bits, host));
  };
}

const first = (bits: bigint, { cpuCount }: BpfHost): number => firstCpu(bits, cpuCount);

/** R1 a CPU, R2 a set: a CPU that there is not counts as none. */
function ofCpu(
  change: (bits: bigint, bit: bigint) => bigint,
  gives: 'before' | 'nothing',
): HelperBody {
  return (registers, host) => {
    const cpu = argument32(registers, 1) >>> 0;
    const isThere = cpu < host.cpuCount;
    const bit = isThere ? 1n << BigInt(cpu) : 0n;
    const before = maskAt(registers, 2, host);
    const after = change(before, bit);
    if (after !== before) writeMask(host.memory, argument(registers, 2), after);
    if (gives === 'before') setResult(registers, (before & bit) === 0n ? 0 : 1);
  };
}

/** R1 where to, R2 and R3 two sets. */
const combine =
  (operation: (a: bigint, b: bigint) => bigint): HelperBody =>
  (registers, host) => {
    const result = operation(maskAt(registers, 2, host), maskAt(registers, 3, host));
    writeMask(host.memory, argument(registers, 1), result);
    setResult(registers, (result & allCpus(host)) === 0n ? 0 : 1);
  };

/** Whether it holds of the sets at R1 and R2. */
const compare =
  (holds: (a: bigint, b: bigint) => boolean): HelperBody =>
  (registers, host) => {
    const all = allCpus(host);
    const [a, b] = [maskAt(registers, 1, host) & all, maskAt(registers, 2, host) & all];
    setResult(registers, holds(a, b) ? 1 : 0);
  };

const fill =
  (bits: (host: BpfHost) => bigint): HelperBody =>
  (registers, host) =>
    writeMask(host.memory, argument(registers, 1), bits(host));

const ONE = 'const struct cpumask *cpumask';
const TWO = 'const struct cpumask *src1, const struct cpumask *src2';
const CHANGED = 'struct bpf_cpumask *cpumask';
const INTO = `struct bpf_cpumask *dst, ${TWO}`;

const ROWS: readonly (readonly [string, HelperBody])[] = [
  [`u32 bpf_cpumask_first(${ONE})`, find(1, first)],
  [
    `u32 bpf_cpumask_first_zero(${ONE})`,
    (registers, host) => {
      const unset = allCpus(host) & ~maskAt(registers, 1, host);
      setResult(registers, firstCpu(unset, host.cpuCount));
    },
  ],
  [`u32 bpf_cpumask_first_and(${TWO})`, find(2, first)],
  [`void bpf_cpumask_set_cpu(u32 cpu, ${CHANGED})`, ofCpu((bits, bit) => bits | bit, 'nothing')],
  [`void bpf_cpumask_clear_cpu(u32 cpu, ${CHANGED})`, ofCpu((bits, bit) => bits & ~bit, 'nothing')],
  [`bool bpf_cpumask_test_cpu(u32 cpu, ${ONE})`, ofCpu((bits) => bits, 'before')],
  [
    `bool bpf_cpumask_test_and_set_cpu(u32 cpu, ${CHANGED})`,
    ofCpu((bits, bit) => bits | bit, 'before'),
  ],
  [
    `bool bpf_cpumask_test_and_clear_cpu(u32 cpu, ${CHANGED})`,
    ofCpu((bits, bit) => bits & ~bit, 'before'),
  ],
  [`void bpf_cpumask_setall(${CHANGED})`, fill(allCpus)],
  [`void bpf_cpumask_clear(${CHANGED})`, fill(() => 0n)],
  [`bool bpf_cpumask_and(${INTO})`, combine((a, b) => a & b)],
  [`void bpf_cpumask_or(${INTO})`, combine((a, b) => a | b)],
  [`void bpf_cpumask_xor(${INTO})`, combine((a, b) => a ^ b)],
  [`bool bpf_cpumask_equal(${TWO})`, compare((a, b) => a === b)],
  [`bool bpf_cpumask_intersects(${TWO})`, compare((a, b) => (a & b) !== 0n)],
  [`bool bpf_cpumask_subset(${TWO})`, compare((a, b) => (a & ~b) === 0n)],
  [`bool bpf_cpumask_empty(${ONE})`, find(1, (bits) => (bits === 0n ? 1 : 0))],
  [`bool bpf_cpumask_full(${ONE})`, find(1, (bits, host) => (bits === allCpus(host) ? 1 : 0))],
  [
    'void bpf_cpumask_copy(struct bpf_cpumask *dst, const struct cpumask *src)',
    (registers, host) => writeMask(host.memory, argument(registers, 1), maskAt(registers, 2, host)),
  ],
  [`u32 bpf_cpumask_any_distribute(${ONE})`, find(1, first)],
  [`u32 bpf_cpumask_any_and_distribute(${TWO})`, find(2, first)],
  [`u32 bpf_cpumask_weight(${ONE})`, find(1, weightOf)],
];

const same: HelperBody = (registers) => setResult64(registers, argument(registers, 1));

const RCU: readonly KfuncFlag[] = ['KF_RCU'];

export const CPUMASK_KFUNCS: readonly KfuncRow[] = [
  {
    prototype: 'struct bpf_cpumask *bpf_cpumask_create(void)',
    flags: ['KF_ACQUIRE', 'KF_RET_NULL'],
    kinds: TRACING_KINDS,
    body: (registers, host) => setResult64(registers, createCpumask(host)),
  },
  {
    prototype: 'void bpf_cpumask_release(struct bpf_cpumask *cpumask)',
    flags: ['KF_RELEASE'],
    kinds: TRACING_KINDS,
    body: (registers, host) => releaseCpumask(host, argument(registers, 1)),
  },
  {
    prototype: 'struct bpf_cpumask *bpf_cpumask_acquire(struct bpf_cpumask *cpumask)',
    flags: ['KF_ACQUIRE', 'KF_TRUSTED_ARGS'],
    kinds: TRACING_KINDS,
    body: (registers, host) => {
      acquireCpumask(host, argument(registers, 1));
      same(registers, host);
    },
  },
  ...ROWS.map(([prototype, body]) => ({ prototype, flags: RCU, kinds: TRACING_KINDS, body })),
  {
    prototype: 'struct task_struct *bpf_task_acquire(struct task_struct *p)',
    flags: ['KF_ACQUIRE', 'KF_RCU', 'KF_RET_NULL'],
    kinds: GENERIC_KINDS,
    body: same,
  },
  {
    prototype: 'void bpf_task_release(struct task_struct *p)',
    flags: ['KF_RELEASE'],
    kinds: GENERIC_KINDS,
    body: () => {},
  },
];
