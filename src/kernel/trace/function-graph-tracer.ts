/**
 * The function_graph tracer: a user of function graph that keeps entries and returns and shows them as calls in one
 * another, as tracefs' `trace` does.
 *
 *   # CPU  INSNS                     FUNCTION CALLS
 *    0)                |  outer() {
 *    0)   12 insns     |    leaf();
 *    0)   57 insns     |  }
 *
 * Reference: kernel/trace/trace_functions_graph.c (trace_graph_entry, trace_graph_return,
 * print_graph_entry_leaf, print_graph_entry_nested, print_graph_return). In place of the duration, which
 * means nothing here, stands how many instructions the CPUs executed meanwhile.
 */
import type { GraphEvent, GraphOps } from '../ftrace/graph.js';
import type { KernelContext } from '../function.js';
import type { Kernel } from '../kernel.js';

interface GraphRecord {
  readonly kind: 'entry' | 'return';
  readonly ip: bigint;
  readonly depth: number;
  readonly cpu: number;
  readonly executed: number;
}

const HEADER = [
  '# CPU  INSNS                     FUNCTION CALLS',
  '# |     |                         |   |   |   |',
];

export class FunctionGraphTracer implements GraphOps {
  readonly name = 'function_graph';
  readonly filter = new Set<bigint>();
  readonly records: GraphRecord[] = [];
  readonly #kernel: Kernel;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** Follows these functions, or all when there are none. */
  start(functions: readonly string[] = []): void {
    const { ftrace, graph } = this.#kernel;
    this.filter.clear();
    for (const name of functions) {
      const ip = ftrace.location(this.#kernel.symbol(name));
      if (ip === undefined) throw ftrace.noSite(name);
      this.filter.add(ip);
    }
    graph.register(this);
  }

  stop(): void {
    this.#kernel.graph.unregister(this);
  }

  entry(kernel: KernelContext, event: GraphEvent): boolean {
    this.#note('entry', kernel, event);
    return true;
  }

  return(kernel: KernelContext, event: GraphEvent): void {
    this.#note('return', kernel, event);
  }

  lines(): string[] {
    const lines = [...HEADER];
    const open = new Map<string, GraphRecord>();
    for (let i = 0; i < this.records.length; i++) {
      const record = this.records[i] as GraphRecord;
      const { kind, ip, depth, cpu } = record;
      const next = this.records[i + 1];
      const key = `${cpu} ${depth}`;
      const name = this.#kernel.symbols.lookup(ip)?.name ?? `0x${ip.toString(16)}`;
      const isLeaf =
        kind === 'entry' && next?.kind === 'return' && next.ip === ip && next.cpu === cpu;
      if (isLeaf) {
        lines.push(line(cpu, depth, `${name}();`, next.executed - record.executed));
        i++;
      } else if (kind === 'entry') {
        open.set(key, record);
        lines.push(line(cpu, depth, `${name}() {`));
      } else {
        const begun = open.get(key);
        open.delete(key);
        // an entry from before the tracer was started is not known
        const tail = begun ? '}' : `} /* ${name} */`;
        lines.push(line(cpu, depth, tail, begun && record.executed - begun.executed));
      }
    }
    return lines;
  }

  #note(kind: GraphRecord['kind'], kernel: KernelContext, { ip, depth }: GraphEvent): void {
    const executed = this.#kernel.cpus.reduce((sum, cpu) => sum + cpu.executed, 0);
    this.records.push({ kind, ip, depth, cpu: kernel.currentCpu, executed });
  }
}

function line(cpu: number, depth: number, text: string, executed?: number): string {
  const insns = executed === undefined ? '' : `${executed} insns`;
  return `${String(cpu).padStart(2)})  ${insns.padStart(11)}  |  ${'  '.repeat(depth)}${text}`;
}
