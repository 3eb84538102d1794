/**
 * Names of addresses for schedules: symbols as they come and go during an operation, fields of ftrace_ops.
 *
 * A trampoline that is put loses its symbol before it is freed; here the first name that bytes had stays.
 */
import { FTRACE_OPS } from '../../kernel/offsets.js';
import type { FtraceOps } from '../../kernel/ftrace/ops.js';
import type { Kernel } from '../../kernel/kernel.js';

interface Named {
  readonly name: string;
  readonly address: bigint;
  readonly size: number;
}

export class NameTable {
  readonly #kernel: Kernel;
  readonly #symbols: Named[] = [];
  /** Where they begin, and what they are called. */
  readonly #starts = new Set<bigint>();
  readonly #names = new Set<string>();
  readonly #ops = new Map<bigint, string>();
  readonly #opsFields: ReadonlyMap<number, string>;
  readonly #blocks: Named[] = [];

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    const { size: _, ...fields } = { ...FTRACE_OPS, ...kernel.ftrace.profile.ops };
    this.#opsFields = new Map(Object.entries(fields).map(([name, offset]) => [offset, name]));
    this.addOps(kernel.ftrace.nopOps);
    this.addOps(kernel.ftrace.listOps);
    this.collect();
  }

  addOps(ops: FtraceOps): void {
    this.#ops.set(ops.address, ops.name);
  }

  addBlock(name: string, address: bigint, size: number): void {
    this.#blocks.push({ name, address, size });
  }

  /** Takes in what has a name now. */
  collect(): void {
    for (const symbol of this.#kernel.symbols) {
      const { address, size } = symbol;
      if (size === 0 || this.#starts.has(address)) continue;
      let { name } = symbol;
      while (this.#names.has(name)) name += "'";
      this.#symbols.push({ name, address, size });
      this.#starts.add(address);
      this.#names.add(name);
    }
    for (const ops of this.#kernel.ftrace.list()) this.addOps(ops);
  }

  /** `bpf_fentry_test1+0x4`. */
  format = (address: bigint): string => {
    const symbol = this.#find(address);
    if (!symbol) return this.#kernel.symbols.format(address);
    return `${symbol.name}+0x${(address - symbol.address).toString(16)}`;
  };

  /** A pointer's value: the ops, function or image that it points to. */
  pointer(value: bigint): string {
    const ops = this.#ops.get(value);
    if (ops !== undefined) return `&${ops}`;
    const symbol = this.#find(value);
    if (symbol) return symbol.address === value ? symbol.name : this.format(value);
    return value < 4096n ? `${value}` : `0x${value.toString(16)}`;
  }

  /** A variable: a literal, a field of an ops, a word. */
  variable(address: bigint): string {
    const site = this.#kernel.ftrace.records.get(address + 12n);
    if (site) return `literal of ${site.name}`;
    for (const [start, name] of this.#ops) {
      const offset = address - start;
      if (offset < 0n || offset >= BigInt(this.#kernel.ftrace.profile.ops.size)) continue;
      return `${name}.${this.#opsFields.get(Number(offset)) ?? `+${offset}`}`;
    }
    const symbol = this.#find(address);
    if (symbol?.address === address) return symbol.name;
    const image = this.#find(address - 4n);
    if (!symbol && image?.name.startsWith('bpf_prog_')) return `PLT target of ${image.name}`;
    const block = this.#blocks.find((each) => isIn(each, address));
    if (!block) return this.format(address);
    return block.address === address ? block.name : `${block.name}+${address - block.address}`;
  }

  /** What is freed. */
  block(address: bigint): string {
    const ops = this.#ops.get(address);
    if (ops !== undefined) return ops;
    const block = this.#blocks.find((each) => isIn(each, address));
    if (block) return block.name;
    const region = this.#kernel.memory.regionAt(address);
    return region?.address === address ? region.name : `slab object 0x${address.toString(16)}`;
  }

  #find(address: bigint): Named | undefined {
    return this.#symbols.find((each) => isIn(each, address));
  }
}

function isIn({ address, size }: Named, at: bigint): boolean {
  return at >= address && at < address + BigInt(size);
}
