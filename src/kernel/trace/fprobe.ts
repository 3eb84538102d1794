/**
 * fprobe: handlers at the entry and the return of any number of functions.
 *
 * Those that only want entries share one ftrace_ops, `fprobe_ftrace_ops`; those that want returns are followed by function
 * graph. arm64 has them since 6.14 (CONFIG_FPROBE needed rethook before, which arm64 has not): earlier
 * kernels answer -EOPNOTSUPP, as does kprobe_multi of BPF, which is made of them.
 *
 * Reference: kernel/trace/fprobe.c (register_fprobe_ips, fprobe_ftrace_entry, fprobe_fgraph_entry; 7.2).
 * Left out: data between entry and return, patterns of names.
 */
import { KernelError } from '../../common/errors.js';
import type { GraphEvent, GraphOps } from '../ftrace/graph.js';
import { FTRACE_OPS_FL, type FtraceOps } from '../ftrace/ops.js';
import type { KernelContext } from '../function.js';
import type { Kernel } from '../kernel.js';

export interface FprobeEvent {
  /** First byte of the function. */
  readonly address: bigint;
  /** Where the function was called from. */
  readonly ret: bigint;
  /** struct ftrace_regs. */
  readonly fregs: bigint;
}

export interface Fprobe {
  readonly name: string;
  readonly entry?: (kernel: KernelContext, event: FprobeEvent) => void;
  readonly exit?: (kernel: KernelContext, event: FprobeEvent) => void;
}

/** A registered one with its sites. */
type Active = readonly [probe: Fprobe, sites: ReadonlySet<bigint>];

const ENTRY_FUNC = 'fprobe_ftrace_entry';

export class Fprobes {
  readonly #kernel: Kernel;
  readonly #entries: Active[] = [];
  readonly #graphs = new Map<Fprobe, GraphOps>();
  #ops: FtraceOps | undefined;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** Throws KernelError: EOPNOTSUPP, in kernels without CONFIG_FPROBE. */
  checkSupported(name: string): void {
    const { version } = this.#kernel.bpf.profile;
    if (version === '7.3') return;
    const why = `arm64 ${version} has no fprobe (CONFIG_FPROBE)`;
    throw new KernelError('EOPNOTSUPP', `fprobe ${name}: ${why}`);
  }

  /** register_fprobe_syms. */
  register(probe: Fprobe, functions: readonly string[]): void {
    const { ftrace, graph, symbols } = this.#kernel;
    this.checkSupported(probe.name);
    if (functions.length === 0 || this.#isRegistered(probe)) {
      const why = functions.length === 0 ? 'no functions' : 'registered already';
      throw new KernelError('EINVAL', `fprobe ${probe.name}: ${why}`);
    }
    const sites = functions.map((name) => {
      const symbol = symbols.find(name);
      const ip = symbol && ftrace.location(symbol.address);
      if (ip === undefined) {
        throw new KernelError('ENOENT', `fprobe ${probe.name}: ${name} cannot be traced`);
      }
      return ip;
    });
    if (probe.exit) {
      const ops = this.#graphOps(probe, new Set(sites));
      graph.register(ops);
      this.#graphs.set(probe, ops);
      return;
    }
    this.#entries.push([probe, new Set(sites)]);
    this.#update();
  }

  /** unregister_fprobe. */
  unregister(probe: Fprobe): void {
    if (!this.#isRegistered(probe)) {
      throw new KernelError('EINVAL', `fprobe ${probe.name} is not registered`);
    }
    const graph = this.#graphs.get(probe);
    if (graph) {
      this.#kernel.graph.unregister(graph);
      this.#graphs.delete(probe);
      return;
    }
    this.#entries.splice(
      this.#entries.findIndex(([each]) => each === probe),
      1,
    );
    this.#update();
  }

  #isRegistered(probe: Fprobe): boolean {
    return this.#graphs.has(probe) || this.#entries.some(([each]) => each === probe);
  }

  #eventOf({ ip, ret, fregs }: GraphEvent): FprobeEvent {
    const offset = this.#kernel.symbols.lookup(ip)?.offset ?? 0;
    return { address: ip - BigInt(offset), ret, fregs };
  }

  #graphOps(probe: Fprobe, filter: ReadonlySet<bigint>): GraphOps {
    return {
      name: 'fprobe_graph_ops',
      filter,
      entry: (kernel, event) => {
        probe.entry?.(kernel, this.#eventOf(event));
        return true;
      },
      return: (kernel, event) => probe.exit?.(kernel, this.#eventOf(event)),
    };
  }

  /** fprobe_ftrace_entry. */
  #entered(kernel: KernelContext, ip: bigint, ret: bigint, fregs: bigint): void {
    const event = this.#eventOf({ ip, ret, fregs, depth: 0 });
    for (const [probe, sites] of this.#entries) if (sites.has(ip)) probe.entry?.(kernel, event);
  }

  /** Brings fprobe_ftrace_ops to what the probes want together. */
  #update(): void {
    const { ftrace } = this.#kernel;
    const ops = this.#sharedOps();
    if (ops.has(FTRACE_OPS_FL.ENABLED)) ftrace.unregister(ops);
    ops.filter.clear();
    const sites = this.#entries.flatMap(([, each]) => [...each]);
    for (const ip of sites) ftrace.setFilterIp(ops, ip, false);
    if (sites.length > 0) ftrace.register(ops);
  }

  #sharedOps(): FtraceOps {
    if (this.#ops) return this.#ops;
    const { ftrace, data } = this.#kernel;
    this.#kernel.define({
      name: ENTRY_FUNC,
      prototype: `void ${ENTRY_FUNC}(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops, struct ftrace_regs *fregs)`,
      parameters: 4,
      notrace: true,
      body: (kernel, ip: bigint, parent: bigint, _ops: bigint, fregs: bigint) =>
        this.#entered(kernel, ip, parent, fregs),
    });
    const address = data.define('fprobe_ftrace_ops', ftrace.profile.ops.size);
    this.#ops = ftrace.createOps('fprobe_ftrace_ops', address, this.#kernel.symbol(ENTRY_FUNC));
    return this.#ops;
  }
}
