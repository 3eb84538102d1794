/**
 * The BPF subsystem of the kernel: host for maps and helpers, loaded programs, attachments.
 *
 * Reference: kernel/bpf/syscall.c: bpf_tracing_prog_attach, kernel/bpf/trampoline.c:
 * bpf_trampoline_get, bpf_trampoline_put. Left out: links as files, bpf_link_update.
 *
 * Usage:
 *   const object = load(parseObject(bytes), kernel.bpf.host);
 *   const program = kernel.bpf.load(object.programs[0].xlated);
 *   const attached = kernel.bpf.attach(program, 'fentry', 'bpf_fentry_test2');
 *   kernel.bpf.attach(other, 'fexit', { program: xdp, function: 'parse' });
 *   kernel.bpf.attachKprobe(third, { function: 'bpf_fentry_test1', offset: 8 });
 */
import { encode } from '../../a64/codec.js';
import type { HelperVersion } from '../../bpf/helpers/checksum.js';
import type { XlatedProgram } from '../../bpf/program.js';
import { KernelError } from '../../common/errors.js';
import { dummyTramp } from '../../jit/plt.js';
import type { KernelVersion } from '../../jit/profile.js';
import type { Kernel } from '../kernel.js';
import {
  checkAttachTarget,
  checkKind,
  checkNoTailCall,
  type AttachKind,
  type CheckedTarget,
} from './attach-check.js';
import { codegenOf, type CodegenOptions } from './codegen.js';
import { enterExitFunctions } from './enter-exit.js';
import { KernelBpfHost } from './host.js';
import { ImagePages, type ImageMemory } from './image-memory.js';
import {
  ProbePrograms,
  type KprobeMultiOptions,
  type KprobeOptions,
  type Link,
} from './probe-programs.js';
import { BPF_PROFILES, type BpfProfile } from './profile.js';
import { ProgPack } from './prog-pack.js';
import { KernelProgram, type LoadProgramOptions } from './program.js';
import { throwFunction } from './throw.js';
import { FtraceSite, ProgramSite, type FunctionSiteMaker, type TrampolineSite } from './site.js';
import { StructOpsRegistry } from './struct-ops.js';
import { BpfText } from './text.js';
import type { ImageParts, TrampolineImage } from './trampoline-image.js';
import { Trampoline, type LinkKind, type TrampolineLink } from './trampoline.js';

/** A function of a loaded program as the place to attach to. */
export interface ProgramTarget {
  readonly program: KernelProgram;
  /** Default: the main function. */
  readonly function?: string;
}

/** A program behind a trampoline. */
export interface Attachment extends Link {
  readonly trampoline: Trampoline;
  readonly kind: AttachKind;
}

/** u64 __bpf_call_base(...): returns 0; what helper offsets count from. */
const CALL_BASE = [encode('MOVZ', { sf: 1, hw: 0, imm16: 0, Rd: 0 }), encode('RET', { Rn: 30 })];

export class Bpf {
  readonly host: KernelBpfHost;
  readonly profile: BpfProfile;
  /** Memory of all images. */
  readonly images: ImageMemory;
  readonly text: BpfText;
  readonly structOps: StructOpsRegistry;
  readonly #kernel: Kernel;
  readonly #functionSite: FunctionSiteMaker;
  readonly #statsEnabled: bigint;
  readonly #probes: ProbePrograms;
  readonly #trampolines = new Map<bigint, Trampoline>();
  readonly #imageParts: ImageParts;
  /** Keys of kernel functions, which stay the same as BTF ids do. */
  readonly #keys = new Map<bigint, number>();
  #nextKey = 1;

  constructor(
    kernel: Kernel,
    options: {
      readonly seed: number;
      readonly version: KernelVersion;
      readonly codegen: CodegenOptions;
      /** Image pages are guarded: see `RegionSpec`. */
      readonly guarded: boolean;
      readonly helpers: HelperVersion;
      readonly functionSite: FunctionSiteMaker | undefined;
    },
  ) {
    this.#kernel = kernel;
    this.#functionSite = options.functionSite ?? ((...parts) => new FtraceSite(...parts));
    const codegen = codegenOf(options.codegen);
    const base = BPF_PROFILES[options.version];
    this.profile = { ...base, codegen, offsets: { ...base.offsets, ...codegen.offsets } };
    this.images =
      this.profile.images === 'packs'
        ? new ProgPack(kernel.memory, kernel.vmalloc, options.guarded)
        : new ImagePages(kernel.memory, kernel.vmalloc, options.guarded);
    kernel.text.addWords('__bpf_call_base', CALL_BASE);
    const dummy = kernel.text.addWords('dummy_tramp', dummyTramp(codegen.config));
    this.text = new BpfText(kernel, codegen.config.bti, dummy);
    this.#statsEnabled = kernel.data.define('bpf_stats_enabled_key', 4);
    const live = new Map<bigint, TrampolineImage>();
    const { profile, images, text } = this;
    this.#imageParts = { kernel, profile, images, text, live };
    const enterExit = {
      profile,
      statsEnabled: this.#statsEnabled,
      schedClock: () => this.host.clock(),
      releaseImage: (descriptor: bigint) => live.get(descriptor)?.released(),
    };
    kernel.define(...enterExitFunctions(enterExit));
    this.#probes = new ProbePrograms(kernel, enterExit);
    if (profile.exceptions) kernel.define(throwFunction(kernel, text));
    this.host = new KernelBpfHost(kernel, {
      seed: options.seed,
      profile,
      isBpfText: (address) => text.find(address) !== undefined,
      loadProgram: (program) => this.load(program),
      helpers: options.helpers,
    });
    this.structOps = new StructOpsRegistry(this.#imageParts, () => this.host.types);
  }

  /** kernel.bpf_stats_enabled: run counts and times of programs behind trampolines. Off at boot. */
  get statsEnabled(): boolean {
    return this.#kernel.memory.read32(this.#statsEnabled) !== 0;
  }

  set statsEnabled(on: boolean) {
    this.#kernel.memory.write32(this.#statsEnabled, on ? 1 : 0);
  }

  /** Trampoline images that exist, those included that only running calls still hold. */
  get liveTrampolineImages(): number {
    return this.#imageParts.live.size;
  }

  /** JITs a program. Throws KernelError when the JIT refuses it. */
  load(xlated: XlatedProgram, options?: LoadProgramOptions): KernelProgram {
    return new KernelProgram(
      {
        kernel: this.#kernel,
        profile: this.profile,
        images: this.images,
        text: this.text,
        callBase: this.host.callBase,
        dummyTramp: this.#kernel.symbol('dummy_tramp'),
      },
      xlated,
      options,
    );
  }

  /**
   * Attaches a program to a kernel function or to a function of a BPF program. On failure nothing has
   * changed.
   * @param cookie what bpf_get_attach_cookie gives there
   */
  attach(
    program: KernelProgram,
    kind: AttachKind,
    target: string | ProgramTarget,
    cookie = 0n,
  ): Attachment {
    checkKind(program, kind);
    checkAttachTarget(program, kind, this.checkedTarget(target), this.profile.version);
    if (kind === 'freplace' && typeof target !== 'string') {
      checkNoTailCall(target.program, this.host);
    }
    const trampoline = this.#trampolineOf(target);
    try {
      const undo = this.#connect(trampoline, program, kind, cookie);
      const detach = (): void => {
        undo();
        this.#put(trampoline);
      };
      return { trampoline, program, kind, detach };
    } catch (error) {
      this.#put(trampoline);
      throw error;
    }
  }

  /** Attaches a kprobe program to a kprobe or kretprobe of its own. Throws KernelError: EINVAL, ENOENT. */
  attachKprobe(program: KernelProgram, options: KprobeOptions): Link {
    return this.#probes.attachKprobe(program, options);
  }

  /** Attaches a kprobe_multi program to many functions. Throws KernelError: EOPNOTSUPP, EINVAL, ENOENT, ESRCH. */
  attachKprobeMulti(program: KernelProgram, options: KprobeMultiOptions): Link {
    return this.#probes.attachKprobeMulti(program, options);
  }

  /** What is known of a target before anything is attached to it. */
  checkedTarget(target: string | ProgramTarget): CheckedTarget {
    if (typeof target !== 'string') {
      const { program } = target;
      const name = target.function ?? program.xlated.functions[0].name;
      return { kind: 'program', program, function: name };
    }
    const address = this.#kernel.symbols.find(target)?.address;
    const body = address === undefined ? undefined : this.#kernel.text.functions.get(address);
    return { kind: 'kernel', name: target, errorInjection: body?.errorInjection ?? false };
  }

  #connect(
    trampoline: Trampoline,
    program: KernelProgram,
    kind: AttachKind,
    cookie: bigint,
  ): () => void {
    if (kind === 'freplace') {
      trampoline.replace(program);
      return () => trampoline.unreplace(program);
    }
    const { target, model } = trampoline;
    const links = kindsOf(kind, model.returnSize).map((each): TrampolineLink => {
      return { kind: each, program, cookie, session: kind === 'fsession' };
    });
    trampoline.link(links);
    if (target.program?.xlated.type === 'tracing') program.tracesTracing = true;
    return () => trampoline.unlink(links);
  }

  /** The trampoline of a kernel function, while something is attached to it. */
  trampolineAt(name: string): Trampoline | undefined {
    return this.#trampolines.get(this.#kernel.symbol(name));
  }

  /** bpf_trampoline_get. */
  #trampolineOf(target: string | ProgramTarget): Trampoline {
    const { address, site } =
      typeof target === 'string' ? this.#kernelFunction(target) : this.#bpfFunction(target);
    const known = this.#trampolines.get(address);
    if (known) return known;
    const key = this.#keys.get(address) ?? this.#nextKey++;
    if (typeof target === 'string') this.#keys.set(address, key);
    const trampoline = new Trampoline(this.#imageParts, key, site(key));
    this.#trampolines.set(address, trampoline);
    return trampoline;
  }

  /** bpf_trampoline_put. */
  #put(trampoline: Trampoline): void {
    if (trampoline.inUse) return;
    this.#trampolines.delete(trampoline.target.address);
    trampoline.target.close();
  }

  #kernelFunction(name: string): Place {
    const { address } = this.#kernel.symbols.get(name);
    const model = this.#kernel.text.prototypes.get(address);
    if (!model) throw new KernelError('EINVAL', `${name} is no function with a known prototype`);
    const target = { name, address, model };
    return { address, site: (key) => this.#functionSite(this.#kernel, key, target) };
  }

  #bpfFunction({ program, function: name }: ProgramTarget): Place {
    const image = program.functionImage(name ?? program.xlated.functions[0].name);
    return { address: image.base, site: () => new ProgramSite(this.text, program, image) };
  }
}

/** bpf_attach_type_to_tramp. */
function kindsOf(kind: Exclude<AttachKind, 'freplace'>, returnSize: number): readonly LinkKind[] {
  switch (kind) {
    case 'lsm':
      return [returnSize === 0 ? 'fexit' : 'fmod_ret'];
    case 'fsession':
      return ['fentry', 'fexit'];
    default:
      return [kind];
  }
}

interface Place {
  readonly address: bigint;
  readonly site: (key: number) => TrampolineSite;
}
