/**
 * kprobes: a BRK in the place of any instruction of the kernel's text, handlers before and after it.
 *
 * At the BRK the pre-handlers run; then the instruction is executed from a copy in a slot, behind which another BRK ends the
 * step (it is simulated where the copy would see another pc), then the post-handlers run. A probe at a function's
 * entry lies at F, where `mov x9, x30` stands, so it does not touch what ftrace patches; one on the
 * patch site itself (F+4) is refused, as arm64 has no KPROBES_ON_FTRACE.
 *
 *   kernel.kprobes.register({ name: 'p', address: kernel.symbol('bpf_fentry_test1'), pre: (cpu) => ... });
 *
 * Reference: kernel/kprobes.c (register_kprobe, aggr_pre_handler), arch/arm64/kernel/probes/kprobes.c
 * (kprobe_brk_handler, kprobe_ss_brk_handler, prepare_singlestep). Left out: optimised probes,
 * disabled ones, the blacklist beyond entry code and functions marked notrace.
 */
import { encode } from '../../a64/codec.js';
import { hex64, viewOf } from '../../common/bytes.js';
import { KernelError } from '../../common/errors.js';
import type { Cpu } from '../../cpu/cpu.js';
import type { Kernel } from '../kernel.js';
import { steppingOf, type Stepping } from './instruction.js';

export const KPROBES_BRK_IMM = 0x004;
export const KPROBES_BRK_SS_IMM = 0x006;

export interface Kprobe {
  readonly name: string;
  readonly address: bigint;
  /** Before the instruction. True: the handler has changed pc, the instruction is not executed. */
  readonly pre?: (cpu: Cpu) => boolean | void;
  /** After it. */
  readonly post?: (cpu: Cpu) => void;
}

/** All probes of an address. */
interface Armed {
  readonly address: bigint;
  /** Where its function begins. */
  readonly start: bigint;
  readonly word: number;
  readonly stepping: Exclude<Stepping, { kind: 'refused' }>;
  /** Address of its instruction slot; 0 when it is simulated. */
  readonly slot: bigint;
  readonly probes: Kprobe[];
}

const PAGE_SIZE = 4096;
/** The copy and the BRK behind it. */
const SLOT_SIZE = 8;

export class Kprobes {
  /** Hits inside of handlers: the instruction is executed, handlers are not called. */
  missed = 0;
  readonly #kernel: Kernel;
  readonly #armed = new Map<bigint, Armed>();
  /** By slot address. */
  readonly #slots = new Map<bigint, Armed>();
  #page: bigint | undefined;
  /** CPUs that are in a handler. */
  readonly #handling = new Set<Cpu>();

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    kernel.executor.breaks.set(KPROBES_BRK_IMM, (cpu) => this.#hit(cpu));
    kernel.executor.breaks.set(KPROBES_BRK_SS_IMM, (cpu) => this.#stepped(cpu));
  }

  /** Addresses with a probe, as kprobes/list in debugfs has them. */
  list(): string[] {
    return [...this.#armed.values()].flatMap(({ address, probes }) =>
      probes.map(() => `${address.toString(16)}  k  ${this.#kernel.symbols.format(address)}`),
    );
  }

  /** Is there a probe in the function that begins at `start`? */
  isIn(start: bigint): boolean {
    if (this.#armed.size === 0) return false;
    for (const armed of this.#armed.values()) if (armed.start === start) return true;
    return false;
  }

  /** register_kprobe. */
  register(probe: Kprobe): void {
    const { address } = probe;
    const armed = this.#armed.get(address);
    if (armed?.probes.includes(probe)) {
      throw new KernelError('EINVAL', `kprobe ${probe.name} is registered already`);
    }
    if (armed) {
      armed.probes.push(probe);
      return;
    }
    const start = this.#check(probe);
    const word = this.#kernel.memory.read32(address);
    const stepping = steppingOf(word);
    if (stepping.kind === 'refused') throw this.#refusal(probe, stepping.why);
    const slot = stepping.kind === 'slot' ? this.#takeSlot(word) : 0n;
    const made: Armed = { address, start, word, stepping, slot, probes: [probe] };
    this.#armed.set(address, made);
    if (slot !== 0n) this.#slots.set(slot, made);
    this.#patch(address, encode('BRK', { imm16: KPROBES_BRK_IMM }));
  }

  /** unregister_kprobe: with the last one the instruction is back in its place. */
  unregister(probe: Kprobe): void {
    const armed = this.#armed.get(probe.address);
    const at = armed?.probes.indexOf(probe) ?? -1;
    if (!armed || at < 0) throw new KernelError('EINVAL', `kprobe ${probe.name} is not registered`);
    armed.probes.splice(at, 1);
    if (armed.probes.length > 0) return;
    this.#patch(armed.address, armed.word);
    this.#armed.delete(armed.address);
    this.#slots.delete(armed.slot);
  }

  #refusal({ name, address }: Kprobe, why: string): KernelError {
    const place = this.#kernel.symbols.format(address);
    return new KernelError('EINVAL', `kprobe ${name} at ${place}: ${why}`);
  }

  /** Where the probed function begins. */
  #check(probe: Kprobe): bigint {
    const { address } = probe;
    const { symbols, text, ftrace } = this.#kernel;
    const symbol = symbols.lookup(address);
    if (address % 4n !== 0n || !symbol || address >= text.end || address < text.region.address) {
      throw this.#refusal(probe, `${hex64(address)} is no instruction of the kernel's text`);
    }
    const start = address - BigInt(symbol.offset);
    if (ftrace.location(start) === undefined) {
      throw this.#refusal(probe, 'on the kprobe blacklist (NOKPROBE)');
    }
    if (ftrace.records.has(address)) {
      throw this.#refusal(probe, "a patch site is ftrace's (no KPROBES_ON_FTRACE on arm64)");
    }
    return start;
  }

  #takeSlot(word: number): bigint {
    const { kernel, page } = { kernel: this.#kernel, page: this.#page ?? this.#mapPage() };
    this.#page = page;
    let slot = page;
    while (this.#slots.has(slot)) slot += BigInt(SLOT_SIZE);
    if (slot >= page + BigInt(PAGE_SIZE)) throw new KernelError('ENOMEM', 'no kprobe slot is free');
    const bytes = new Uint8Array(SLOT_SIZE);
    viewOf(bytes).setUint32(0, word, true);
    viewOf(bytes).setUint32(4, encode('BRK', { imm16: KPROBES_BRK_SS_IMM }), true);
    kernel.memory.pokeBytes(slot, bytes);
    kernel.syncText(slot, slot + BigInt(SLOT_SIZE));
    return slot;
  }

  #mapPage(): bigint {
    const address = this.#kernel.vmalloc.take(BigInt(PAGE_SIZE), BigInt(PAGE_SIZE));
    const name = 'kprobe_insn_page';
    this.#kernel.memory.map({ name, address, size: PAGE_SIZE, permissions: 'rx' });
    this.#kernel.symbols.add(name, address, PAGE_SIZE);
    return address;
  }

  #patch(address: bigint, word: number): void {
    const bytes = new Uint8Array(4);
    viewOf(bytes).setUint32(0, word, true);
    this.#kernel.memory.pokeBytes(address, bytes);
    this.#kernel.syncText(address, address + 4n);
  }

  /** kprobe_brk_handler: pc is at a probe's BRK. */
  #hit(cpu: Cpu): boolean {
    const armed = this.#armed.get(cpu.pc);
    if (!armed) return false;
    if (this.#handling.has(cpu)) {
      this.missed++;
      this.#step(cpu, armed);
      return true;
    }
    let changed = false;
    this.handle(cpu, () => {
      for (const { pre } of armed.probes) {
        if (changed) break;
        changed = pre?.(cpu) === true;
      }
    });
    if (!changed) this.#step(cpu, armed);
    return true;
  }

  /** kprobe_ss_brk_handler: the copy in a slot has been executed. */
  #stepped(cpu: Cpu): boolean {
    const armed = this.#slots.get(cpu.pc - 4n);
    if (!armed) return false;
    cpu.pc = armed.address + 4n;
    this.#runPost(cpu, armed);
    return true;
  }

  #step(cpu: Cpu, armed: Armed): void {
    if (armed.stepping.kind === 'slot') {
      cpu.pc = armed.slot;
      return;
    }
    armed.stepping.run(cpu);
    this.#runPost(cpu, armed);
  }

  #runPost(cpu: Cpu, { probes }: Armed): void {
    if (this.#handling.has(cpu)) return;
    this.handle(cpu, () => {
      for (const { post } of probes) post?.(cpu);
    });
  }

  /** Calls handlers: probes that are hit meanwhile are missed (kprobe_running). */
  handle(cpu: Cpu, run: () => void): void {
    this.#handling.add(cpu);
    try {
      run();
    } finally {
      this.#handling.delete(cpu);
    }
  }
}
