/**
 * A BPF program in the kernel: its struct bpf_prog, its JIT images, its symbols and its exception table.
 *
 * Reference: bpf_prog_alloc of kernel/bpf/core.c, bpf_int_jit_compile of arch/arm64/net/bpf_jit_comp.c,
 * ex_handler_bpf of arch/arm64/mm/extable.c, __bpf_prog_put of kernel/bpf/syscall.c. Whoever loaded it
 * holds it, and so does each attachment, of it and to it; after the last one has let go and a grace
 * period has passed its memory is freed. Left out: tags in symbol names, constant blinding.
 */
import type { Btf } from '../../bpf/btf/btf.js';
import { readSlots } from '../../bpf/instruction.js';
import { usesSessionCookie } from '../../bpf/object/session-kfuncs.js';
import type { XlatedProgram } from '../../bpf/program.js';
import { alignUp, viewOf } from '../../common/bytes.js';
import { KernelError } from '../../common/errors.js';
import type { Cpu } from '../../cpu/cpu.js';
import { PAGE_SIZE, type Region } from '../../cpu/memory.js';
import type { JitFunctionInput } from '../../jit/context.js';
import { EXTABLE_ENTRY_SIZE } from '../../jit/extable.js';
import { findFixup } from '../../jit/fixup.js';
import { compile, type JitImage } from '../../jit/program.js';
import { PROFILES } from '../../jit/profiles.js';
import type { Kernel } from '../kernel.js';
import { MAPPABLE } from '../range-allocator.js';
import { parsePrototype, type Prototype } from '../prototype.js';
import { prototypeFromBtf } from './btf-prototype.js';
import { PrivateStack } from './private-stack.js';
import { BPF_PROG_STATS, enterExitKind, type EnterExitKind } from './enter-exit.js';
import type { FunctionInBtf } from './function-match.js';
import type { ImageMemory } from './image-memory.js';
import type { BpfProfile } from './profile.js';
import type { BpfText } from './text.js';

/** struct bpf_binary_header in front of each image: u32 size, padded to 16. */
const HEADER_SIZE = 16;
/** BPF_LDX | BPF_MEM | BPF_DW. */
const LDX_DW = 0x79;

export interface LoadProgramOptions {
  /** prog->sleepable: it may sleep. Default false. */
  readonly sleepable?: boolean;
  /** BPF_PROG_TYPE_LSM: for one hook (BPF_LSM_MAC), or the shim of BPF_LSM_CGROUP. Default: it is none. */
  readonly lsm?: 'mac' | 'cgroup';
  /**
   * C prototypes of its functions, as its BTF has them; what traces one without takes five u64, as the kernel
   * does for functions whose BTF cannot be relied on. Default none.
   */
  readonly prototypes?: readonly string[];
  /** Its BTF: ids of its functions' `func` by name. Prototypes follow from it. Default none. */
  readonly btf?: { readonly btf: Btf; readonly functions: ReadonlyMap<string, number> };
  /** BPF_PROG_TYPE_STRUCT_OPS: called through a member of a structure. Default false. */
  readonly structOps?: boolean;
  /** expected_attach_type BPF_TRACE_KPROBE_MULTI of a kprobe program. Default false. */
  readonly kprobeMulti?: boolean;
  /** License is GPL-compatible. Default: it is. */
  readonly gpl?: boolean;
}

/** struct bpf_prog_stats. */
export interface ProgramStats {
  readonly runs: bigint;
  readonly nanoseconds: bigint;
  /** Times that enter() found it active already. */
  readonly misses: bigint;
}

export interface ProgramParts {
  readonly kernel: Kernel;
  readonly profile: BpfProfile;
  readonly images: ImageMemory;
  readonly text: BpfText;
  readonly callBase: bigint;
  readonly dummyTramp: bigint;
}

export class KernelProgram {
  readonly xlated: XlatedProgram;
  /** Address of its struct bpf_prog. */
  readonly address: bigint;
  /** Images of its functions, main first. */
  readonly images: readonly JitImage[];
  readonly sleepable: boolean;
  readonly lsm: 'mac' | 'cgroup' | undefined;
  readonly structOps: boolean;
  readonly kprobeMulti: boolean;
  readonly gpl: boolean;
  /** aux->attach_tracing_prog: it is a tracing program that traces another. */
  tracesTracing = false;
  readonly #prototypes: ReadonlyMap<string, Prototype>;
  readonly #btf: LoadProgramOptions['btf'];
  #references = 1;
  #loaded = true;
  readonly #parts: ProgramParts;
  readonly #allocations: bigint[] = [];
  readonly #packed: bigint[] = [];
  readonly #privateStacks: PrivateStack[] = [];
  readonly #symbols: string[] = [];
  readonly #texts: bigint[] = [];
  #region: Region | undefined;
  readonly #fixup = (pc: bigint, _fault: unknown, cpu: Cpu): bigint | undefined =>
    this.#fixFault(pc, cpu);

  /** Compiles and places the program. Throws KernelError when the JIT refuses it. */
  constructor(parts: ProgramParts, xlated: XlatedProgram, options: LoadProgramOptions = {}) {
    this.#parts = parts;
    this.xlated = xlated;
    this.sleepable = options.sleepable ?? false;
    this.lsm = options.lsm;
    this.structOps = options.structOps ?? false;
    this.kprobeMulti = options.kprobeMulti ?? false;
    this.gpl = options.gpl ?? true;
    this.#btf = options.btf;
    const prototypes = (options.prototypes ?? []).map((text) => parsePrototype(text));
    this.#prototypes = new Map(prototypes.map((prototype) => [prototype.name, prototype]));
    const { kernel, images, profile } = parts;
    try {
      this.images = compile(
        { ...xlated, functions: this.#jitInputs() },
        {
          kernel: profile.version,
          profile: { ...PROFILES[profile.version], ...profile.codegen.jit },
          cpu: profile.codegen.cpu,
          config: profile.codegen.config,
          offsets: profile.offsets,
          callBase: parts.callBase,
          dummyTramp: parts.dummyTramp,
          place: (_index, allocSize) => {
            const start = images.alloc(HEADER_SIZE + allocSize);
            this.#packed.push(start);
            return start + BigInt(HEADER_SIZE);
          },
        },
      ).functions;
      for (const [index, image] of this.images.entries()) this.#write(image, index);
      this.address = this.#allocProg();
      kernel.fixups.push(this.#fixup);
    } catch (error) {
      this.#release();
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

  /** prog->call_session_cookie. */
  get callsSessionCookie(): boolean {
    if (this.xlated.type !== 'tracing') return false;
    return this.xlated.functions.some(({ insns }) => usesSessionCookie(readSlots(insns)));
  }

  get enterExit(): EnterExitKind {
    return enterExitKind(this);
  }

  /** The function called `name`. Throws KernelError: EINVAL. */
  functionImage(name: string): JitImage {
    const image = this.images.find((each) => each.name === name);
    if (image) return image;
    const names = this.images.map((each) => each.name).join(', ');
    throw new KernelError('EINVAL', `${this.name} has no function ${name} (it has: ${names})`);
  }

  /** What its BTF says of the function called `name`. */
  prototypeOf(name: string): Prototype | undefined {
    const known = this.functionInBtf(name);
    return this.#prototypes.get(name) ?? (known && prototypeFromBtf(known));
  }

  /** The function called `name` in its BTF. */
  functionInBtf(name: string): FunctionInBtf | undefined {
    const id = this.#btf?.functions.get(name);
    return this.#btf && id !== undefined && id !== 0 ? { btf: this.#btf.btf, id } : undefined;
  }

  /** Its main function in its BTF. */
  get main(): FunctionInBtf | undefined {
    return this.functionInBtf(this.xlated.functions[0].name);
  }

  get stats(): ProgramStats {
    const { kernel, profile } = this.#parts;
    const stats = kernel.memory.read64(this.address + BigInt(profile.bpfProg.stats));
    const at = (offset: number): bigint => kernel.memory.read64(stats + BigInt(offset));
    return {
      runs: at(BPF_PROG_STATS.cnt),
      nanoseconds: at(BPF_PROG_STATS.nsecs),
      misses: at(BPF_PROG_STATS.misses),
    };
  }

  /** Times that enter() found it active already. */
  get misses(): bigint {
    return this.stats.misses;
  }

  /** bpf_prog_inc. */
  hold(): void {
    this.#references++;
  }

  /** bpf_prog_put. */
  put(): void {
    this.#references--;
    if (this.#references > 0) return;
    this.#parts.kernel.rcu.call(this.sleepable ? 'tasks_trace' : 'rcu', () => this.#release());
  }

  /** The loader lets go; attachments may still hold it. */
  free(): void {
    if (!this.#loaded) return;
    this.#loaded = false;
    this.put();
  }

  #release(): void {
    const { kernel, images, text } = this.#parts;
    for (const start of this.#packed.splice(0)) images.free(start);
    for (const base of this.#texts.splice(0)) text.remove(base);
    for (const address of this.#allocations.splice(0)) kernel.kfree(address);
    for (const stack of this.#privateStacks.splice(0)) stack.free();
    if (this.#region) {
      kernel.memory.unmap(this.#region);
      kernel.vmalloc.release(this.#region.address);
      this.#region = undefined;
    }
    for (const name of this.#symbols.splice(0)) kernel.symbols.remove(name);
    const index = kernel.fixups.indexOf(this.#fixup);
    if (index >= 0) kernel.fixups.splice(index, 1);
  }

  /** The functions with their private stacks. */
  #jitInputs(): JitFunctionInput[] {
    return this.xlated.functions.map((fn) => {
      if (!fn.usesPrivateStack) return fn;
      const stack = new PrivateStack(this.#parts.kernel, fn.name, fn.stackDepth);
      this.#privateStacks.push(stack);
      return { ...fn, privateStack: stack.pointer };
    });
  }

  /** Entry of the function that bpf_throw ends in. */
  get #exceptionCallback(): bigint | undefined {
    const index = this.xlated.functions.findIndex((fn) => fn.exceptionCallback);
    return this.images[index]?.base;
  }

  #write(image: JitImage, index: number): void {
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
    kernel.flushText(image.base, image.base + BigInt(image.allocSize));

    this.#parts.text.add({
      base: image.base,
      jitedLength: image.jitedLength,
      function: { isMain: index === 0, exceptionCallback: this.#exceptionCallback },
    });
    this.#texts.push(image.base);
    const symbol = kernel.symbols.unique(`bpf_prog_${image.name}`);
    kernel.symbols.add(symbol, image.base, image.jitedLength);
    this.#symbols.push(symbol);
  }

  #allocProg(): bigint {
    const { kernel, profile } = this.#parts;
    const offsets = profile.bpfProg;
    const main = this.xlated.functions[0];
    const address = this.#vmalloc(offsets.insnsi + main.insns.length);
    const at = (offset: number): bigint => address + BigInt(offset);
    kernel.memory.write32(at(offsets.len), main.insns.length / 8);
    kernel.memory.write32(at(offsets.jited_len), (this.images[0] as JitImage).jitedLength);
    kernel.memory.write64(at(offsets.stats), this.#take(BPF_PROG_STATS.size));
    kernel.memory.write64(at(offsets.active), this.#take(4 * kernel.cpus.length));
    kernel.memory.write64(at(offsets.bpf_func), this.entry);
    kernel.memory.writeBytes(at(offsets.insnsi), main.insns);
    return address;
  }

  /** __vmalloc: whole pages from their first byte on. */
  #vmalloc(size: number): bigint {
    const { kernel } = this.#parts;
    const bytes = alignUp(size, PAGE_SIZE);
    const address = kernel.vmalloc.take(BigInt(bytes + PAGE_SIZE), BigInt(PAGE_SIZE), MAPPABLE);
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
      const fixup = findFixup(this.#parts.profile.version, image, pc);
      if (!fixup) continue;
      if (fixup.clear !== undefined) cpu.setX(fixup.clear, 0n);
      return fixup.resume;
    }
    return undefined;
  }
}
