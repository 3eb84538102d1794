/**
 * A BPF program in the kernel: its struct bpf_prog, its JIT image in a pack, its symbols and its
 * exception table.
 *
 * Reference: bpf_prog_alloc of kernel/bpf/core.c, bpf_int_jit_compile of arch/arm64/net/bpf_jit_comp.c,
 * ex_handler_bpf of arch/arm64/mm/extable.c. Left out: tags in symbol names, constant blinding.
 */
import { readSlots } from '../../bpf/instruction.js';
import type { XlatedProgram } from '../../bpf/program.js';
import { alignUp, viewOf } from '../../common/bytes.js';
import type { Cpu } from '../../cpu/cpu.js';
import { PAGE_SIZE, type Region } from '../../cpu/memory.js';
import { EXTABLE_ENTRY_SIZE } from '../../jit/extable.js';
import { findFixup } from '../../jit/fixup.js';
import type { JitConfig, JitCpu, KernelVersion } from '../../jit/profile.js';
import { compile, type JitImage } from '../../jit/program.js';
import type { Kernel } from '../kernel.js';
import { BPF_PROG, JIT_OFFSETS } from '../offsets.js';
import { BPF_PROG_STATS } from './enter-exit.js';
import type { ProgPack } from './prog-pack.js';

/** A CPU with LSE atomics that runs the kernel at EL1, and a distribution's GCC build: PAC, no BTI. */
export const JIT_CPU: JitCpu = { lse: true, vhe: false, sb: false };
export const JIT_CONFIG: JitConfig = { pac: true, bti: false };

/** The version whose JIT this kernel has. */
const KERNEL: KernelVersion = '6.12';

/** struct bpf_binary_header in front of each image: u32 size, padded to 16. */
const HEADER_SIZE = 16;
/** BPF_LDX | BPF_MEM | BPF_DW. */
const LDX_DW = 0x79;

export interface ProgramParts {
  readonly kernel: Kernel;
  readonly pack: ProgPack;
  readonly callBase: bigint;
  readonly dummyTramp: bigint;
}

export class KernelProgram {
  readonly xlated: XlatedProgram;
  /** Address of its struct bpf_prog. */
  readonly address: bigint;
  /** Images of its functions, main first. */
  readonly images: readonly JitImage[];
  readonly #parts: ProgramParts;
  readonly #allocations: bigint[] = [];
  readonly #packed: bigint[] = [];
  readonly #symbols: string[] = [];
  #region: Region | undefined;
  readonly #fixup = (pc: bigint, _fault: unknown, cpu: Cpu): bigint | undefined =>
    this.#fixFault(pc, cpu);

  /** Compiles and places the program. Throws KernelError when the JIT refuses it. */
  constructor(parts: ProgramParts, xlated: XlatedProgram) {
    this.#parts = parts;
    this.xlated = xlated;
    const { kernel, pack } = parts;
    try {
      this.images = compile(xlated, {
        kernel: KERNEL,
        cpu: JIT_CPU,
        config: JIT_CONFIG,
        offsets: JIT_OFFSETS,
        callBase: parts.callBase,
        dummyTramp: parts.dummyTramp,
        place: (_index, allocSize) => {
          const start = pack.alloc(HEADER_SIZE + allocSize);
          this.#packed.push(start);
          return start + BigInt(HEADER_SIZE);
        },
      }).functions;
      for (const image of this.images) this.#write(image);
      this.address = this.#allocProg();
      kernel.fixups.push(this.#fixup);
    } catch (error) {
      this.free();
      throw error;
    }
  }

  get name(): string {
    return this.xlated.name;
  }

  /** bpf_func: where the main function begins. */
  get entry(): bigint {
    return (this.images[0] as JitImage).base;
  }

  /**
   * prog->call_get_func_ip: it reads ctx[-2], the form that a call of bpf_get_func_ip is rewritten to
   * (nothing else may read below the context).
   */
  get callsGetFuncIp(): boolean {
    if (this.xlated.type !== 'tracing') return false;
    return this.xlated.functions.some(({ insns }) =>
      readSlots(insns).some(({ code, src, off }) => code === LDX_DW && src === 1 && off === -16),
    );
  }

  /** Times that enter() found it active already. */
  get misses(): bigint {
    const { memory } = this.#parts.kernel;
    const stats = memory.read64(this.address + BigInt(BPF_PROG.stats));
    return memory.read64(stats + BigInt(BPF_PROG_STATS.misses));
  }

  free(): void {
    const { kernel, pack } = this.#parts;
    for (const start of this.#packed.splice(0)) pack.free(start);
    for (const address of this.#allocations.splice(0)) kernel.kfree(address);
    if (this.#region) {
      kernel.memory.unmap(this.#region);
      kernel.vmalloc.release(this.#region.address);
      this.#region = undefined;
    }
    for (const name of this.#symbols.splice(0)) kernel.symbols.remove(name);
    const index = kernel.fixups.indexOf(this.#fixup);
    if (index >= 0) kernel.fixups.splice(index, 1);
  }

  #write(image: JitImage): void {
    const { kernel } = this.#parts;
    const bytes = new Uint8Array(image.jitedLength + 8);
    const view = viewOf(bytes);
    image.words.forEach((word, i) => view.setUint32(4 * i, word, true));
    view.setBigUint64(image.jitedLength, image.pltTarget, true);
    kernel.memory.pokeBytes(image.base, bytes);

    const table = new Uint8Array(EXTABLE_ENTRY_SIZE * image.extable.length);
    const entries = viewOf(table);
    image.extable.forEach((entry, i) => {
      entries.setInt32(EXTABLE_ENTRY_SIZE * i, entry.insn, true);
      entries.setUint32(EXTABLE_ENTRY_SIZE * i + 4, entry.fixup, true);
      entries.setInt16(EXTABLE_ENTRY_SIZE * i + 8, entry.type, true);
      entries.setInt16(EXTABLE_ENTRY_SIZE * i + 10, entry.data, true);
    });
    kernel.memory.pokeBytes(image.base + BigInt(image.extableOffset), table);
    kernel.syncText(image.base, image.base + BigInt(image.allocSize));

    const symbol = this.#uniqueSymbol(`bpf_prog_${image.name}`);
    kernel.symbols.add(symbol, image.base, image.jitedLength);
    this.#symbols.push(symbol);
  }

  #uniqueSymbol(wanted: string): string {
    const { symbols } = this.#parts.kernel;
    let name = wanted;
    for (let i = 1; symbols.find(name); i++) name = `${wanted}.${i}`;
    return name;
  }

  #allocProg(): bigint {
    const { kernel } = this.#parts;
    const main = this.xlated.functions[0];
    const address = this.#vmalloc(BPF_PROG.insnsi + main.insns.length);
    const at = (offset: number): bigint => address + BigInt(offset);
    kernel.memory.write32(at(BPF_PROG.len), main.insns.length / 8);
    kernel.memory.write32(at(BPF_PROG.jited_len), (this.images[0] as JitImage).jitedLength);
    kernel.memory.write64(at(BPF_PROG.stats), this.#take(BPF_PROG_STATS.size));
    kernel.memory.write64(at(BPF_PROG.active), this.#take(4 * kernel.cpus.length));
    kernel.memory.write64(at(BPF_PROG.bpf_func), this.entry);
    kernel.memory.writeBytes(at(BPF_PROG.insnsi), main.insns);
    return address;
  }

  /** __vmalloc: whole pages from their first byte on. */
  #vmalloc(size: number): bigint {
    const { kernel } = this.#parts;
    const bytes = alignUp(size, PAGE_SIZE);
    const address = kernel.vmalloc.take(BigInt(bytes + PAGE_SIZE), BigInt(PAGE_SIZE));
    const name = `bpf_prog ${this.name}`;
    this.#region = kernel.memory.map({ name, address, size: bytes, permissions: 'rw' });
    return address;
  }

  #take(size: number): bigint {
    const address = this.#parts.kernel.kmalloc(size);
    this.#allocations.push(address);
    return address;
  }

  /** ex_handler_bpf: the faulting load gives 0 and the program goes on. */
  #fixFault(pc: bigint, cpu: Cpu): bigint | undefined {
    for (const image of this.images) {
      const fixup = findFixup(KERNEL, image, pc);
      if (!fixup) continue;
      if (fixup.clear !== undefined) cpu.setX(fixup.clear, 0n);
      return fixup.resume;
    }
    return undefined;
  }
}
