/**
 * Tracers and probes on one kernel function, beside whatever else is attached to it: function graph, kprobes and kretprobes at
 * the entry, fprobes; and what they saw, one line each.
 *
 *   const probes = attachProbes(kernel, 'bpf_fentry_test1', { graph: true, kprobe: 1 });
 *   kernel.call('bpf_fentry_test1', 1n);
 *   probes.lines(); // ['kprobe 0: bpf_fentry_test1+0x0, x0 0x1', ...]
 */
import type { Kernel } from '../kernel/kernel.js';
import type { Fprobe } from '../kernel/trace/fprobe.js';
import { FunctionGraphTracer } from '../kernel/trace/function-graph-tracer.js';

export interface ProbeCounts {
  readonly graph?: boolean;
  readonly kprobe?: number;
  readonly kretprobe?: number;
  readonly fprobe?: number;
}

export interface AttachedProbes {
  /** What was seen until now, in order; the graph last. */
  lines(): readonly string[];
  detach(): void;
}

/** All or nothing. Throws KernelError for what the kernel refuses. */
export function attachProbes(kernel: Kernel, fn: string, counts: ProbeCounts): AttachedProbes {
  const { kprobes, kretprobes, fprobes, symbols } = kernel;
  const address = kernel.symbol(fn);
  const seen: string[] = [];
  const undo: (() => void)[] = [];
  const detach = (): void => {
    for (const step of undo.splice(0).reverse()) step();
  };
  const hex = (value: bigint): string => `0x${value.toString(16)}`;
  const note = (name: string, place: bigint, value: bigint): void => {
    seen.push(`${name}: ${symbols.format(place)}, x0 ${hex(value)}`);
  };
  const graph = new FunctionGraphTracer(kernel);
  const each = (count: number | undefined, attach: (index: number) => void): void => {
    for (let i = 0; i < (count ?? 0); i++) attach(i);
  };
  try {
    each(counts.kprobe, (i) => {
      const label = `kprobe ${i}`;
      const probe = {
        name: `lab_${i}`,
        address,
        pre: (cpu: { pc: bigint; getX(register: number): bigint }): void =>
          note(label, cpu.pc, cpu.getX(0)),
      };
      kprobes.register(probe);
      undo.push(() => kprobes.unregister(probe));
    });
    each(counts.kretprobe, (i) => {
      const label = `kretprobe ${i}`;
      const probe = {
        name: `lab_${i}`,
        address,
        handler: (cpu: { getX(register: number): bigint }): void =>
          note(label, address, cpu.getX(0)),
      };
      kretprobes.register(probe);
      undo.push(() => kretprobes.unregister(probe));
    });
    each(counts.fprobe, (i) => {
      const label = `fprobe ${i}`;
      const probe: Fprobe = {
        name: `lab_${i}`,
        entry: ({ memory }, event) => note(label, event.address, memory.read64(event.fregs)),
      };
      fprobes.register(probe, [fn]);
      undo.push(() => fprobes.unregister(probe));
    });
    if (counts.graph) {
      graph.start([fn]);
      undo.push(() => graph.stop());
    }
  } catch (error) {
    detach();
    throw error;
  }
  return { lines: () => [...seen, ...(counts.graph ? graph.lines() : [])], detach };
}
