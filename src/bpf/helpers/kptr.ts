/**
 * Helpers on kptrs: exchange, and the part of a per-CPU object that a CPU has.
 *
 * Reference: bpf_kptr_xchg in kernel/bpf/helpers.c, bpf_per_cpu_ptr and bpf_this_cpu_ptr in
 * kernel/trace/bpf_trace.c. Left out: per-CPU variables of the kernel.
 */
import { argument, argument32, offsetOf, setResult, setResult64, type Helper } from './helper.js';

export const KPTR_HELPERS: readonly Helper[] = [
  {
    id: 153,
    name: 'per_cpu_ptr',
    arguments: ['percpu', 'anything'],
    result: 'memory_or_null',
    body: (registers, host) => {
      const cpu = argument32(registers, 2) >>> 0;
      if (cpu >= host.cpuCount) setResult(registers, 0);
      else setResult64(registers, host.perCpuAddress(argument(registers, 1), cpu));
    },
  },
  {
    id: 154,
    name: 'this_cpu_ptr',
    arguments: ['percpu'],
    result: 'memory_or_null',
    body: (registers, host) =>
      setResult64(registers, host.perCpuAddress(argument(registers, 1), host.currentCpu())),
  },
  {
    id: 194,
    name: 'kptr_xchg',
    arguments: ['kptr', 'kptr_or_null'],
    result: 'kptr_or_null',
    body: (registers, { memory }) => {
      const at = offsetOf(memory, registers, 1, 8, 'write');
      const before = memory.view.getBigUint64(at, true);
      memory.view.setBigUint64(at, BigInt.asUintN(64, argument(registers, 2)), true);
      setResult64(registers, before);
    },
  },
];
