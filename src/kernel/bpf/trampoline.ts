/**
 * BPF trampolines: which programs are attached to a function, and the image that calls them.
 *
 * Reference: kernel/bpf/trampoline.c: bpf_trampoline_link_prog, bpf_trampoline_unlink_prog,
 * bpf_trampoline_update (6.12). Attaching or detaching makes a new image and lets the site go to it; the old
 * one goes away when nothing runs in it any more (`trampoline-image.ts`). A site that a livepatch has too is
 * shared (bpf_tramp_ftrace_ops_func) once the image is made with BPF_TRAMP_F_ORIG_STACK. Left out:
 * BPF_TRAMP_F_TAIL_CALL_CTX.
 */
import { KernelError } from '../../common/errors.js';
import { TRAMP_FLAGS, type LinkKind } from '../../jit/trampoline-model.js';
import type { FtraceOps, OpsCommand } from '../ftrace/ops.js';
import type { Prototype } from '../prototype.js';
import { enterName, exitName } from './enter-exit.js';
import { BPF_MAX_TRAMP_LINKS } from './profile.js';
import type { KernelProgram } from './program.js';
import { FtraceSite, ProgramSite, type TrampolineSite } from './site.js';
import { TrampolineImage, type ImageParts } from './trampoline-image.js';

export type { LinkKind } from '../../jit/trampoline-model.js';
export type { TrampolineImage as PlacedImage } from './trampoline-image.js';

export const LINK_KINDS = ['fentry', 'fmod_ret', 'fexit'] as const satisfies readonly LinkKind[];

/** One program attached to one function. */
export interface TrampolineLink {
  readonly kind: LinkKind;
  readonly program: KernelProgram;
  readonly cookie: bigint;
  /** One half of an fsession. */
  readonly session: boolean;
}

/** The trampoline of one function. */
export class Trampoline {
  readonly target: TrampolineSite;
  readonly model: Prototype;
  image: TrampolineImage | undefined;
  /** The program that replaces the function (freplace). */
  extension: KernelProgram | undefined;
  readonly #parts: ImageParts;
  readonly #symbol: string;
  /** Most recently attached first, as they run. */
  #links: readonly TrampolineLink[] = [];
  /** BPF_TRAMP_F_* of the image that is used or being made. */
  #flags = 0;

  constructor(parts: ImageParts, key: number, target: TrampolineSite) {
    this.#parts = parts;
    this.#symbol = `bpf_trampoline_${key}`;
    this.target = target;
    this.model = target.model;
    if (this.ops) this.ops.opsFunc = (command) => this.#shareIpmodify(command);
  }

  get links(): readonly TrampolineLink[] {
    return this.#links;
  }

  /** The ftrace_ops of the direct call; a BPF function has none, and in v5 all share one. */
  get ops(): FtraceOps | undefined {
    return this.target instanceof FtraceSite ? this.target.ops : undefined;
  }

  get inUse(): boolean {
    return this.#links.length > 0 || this.extension !== undefined;
  }

  /** bpf_trampoline_link_prog; both halves of a session at once. On failure nothing has changed. */
  link(added: readonly TrampolineLink[]): void {
    const { name } = this.target;
    if (this.extension) {
      throw new KernelError('EBUSY', `${name} is replaced by ${this.extension.name} (freplace)`);
    }
    if (this.#links.length >= BPF_MAX_TRAMP_LINKS) {
      throw new KernelError('E2BIG', `${name} has ${BPF_MAX_TRAMP_LINKS} programs attached`);
    }
    for (const { kind, program } of added) {
      if (this.#links.some((each) => each.kind === kind && each.program === program)) {
        throw new KernelError('EBUSY', `${program.name} is attached to ${name} already`);
      }
    }
    this.#update([...added, ...this.#links]);
    for (const { program } of added) program.hold();
  }

  /** bpf_trampoline_unlink_prog. */
  unlink(removed: readonly TrampolineLink[]): void {
    for (const link of removed) {
      if (!this.#links.includes(link)) throw this.#notAttached(link.program);
    }
    this.#update(this.#links.filter((each) => !removed.includes(each)));
    for (const { program } of removed) program.put();
  }

  /** The same for BPF_TRAMP_REPLACE: no image, the entry jumps to the program. */
  replace(program: KernelProgram): void {
    const { target } = this;
    if (!(target instanceof ProgramSite)) {
      throw new KernelError('EINVAL', `${target.name}: freplace cannot replace kernel functions`);
    }
    if (this.extension) {
      throw new KernelError(
        'EBUSY',
        `${target.name} is replaced by ${this.extension.name} already`,
      );
    }
    if (this.#links.length > 0) {
      throw new KernelError('EBUSY', `${target.name} is traced, freplace cannot replace it`);
    }
    target.replace(program.entry);
    this.extension = program;
    this.#parts.kernel.bpf.host.setExtended(target.program, true);
    program.hold();
  }

  unreplace(program: KernelProgram): void {
    const { target } = this;
    if (this.extension !== program || !(target instanceof ProgramSite)) {
      throw this.#notAttached(program);
    }
    target.unreplace(program.entry);
    this.extension = undefined;
    this.#parts.kernel.bpf.host.setExtended(target.program, false);
    program.put();
  }

  #notAttached(program: KernelProgram): KernelError {
    return new KernelError('ENOENT', `${program.name} is not attached to ${this.target.name}`);
  }

  #update(links: readonly TrampolineLink[]): void {
    const { target } = this;
    const old = this.image;
    const oldFlags = this.#flags;
    let next: TrampolineImage | undefined;
    if (links.length > 0) {
      try {
        next = this.#install(links, old);
      } catch (error) {
        this.#flags = oldFlags;
        throw error;
      }
    } else if (old) {
      target.unregister(old);
    }
    this.image = next;
    this.#links = links;
    old?.put();
    next?.name(this.#symbol);
  }

  /** Generates an image and lets the site go to it; again with other flags when ftrace says -EAGAIN. */
  #install(links: readonly TrampolineLink[], old: TrampolineImage | undefined): TrampolineImage {
    const { target } = this;
    for (;;) {
      this.#flags = flagsOf(links) | (this.#flags & TRAMP_FLAGS.SHARE_IPMODIFY);
      if (this.#flags & TRAMP_FLAGS.SHARE_IPMODIFY && this.#flags & TRAMP_FLAGS.CALL_ORIG) {
        this.#flags |= TRAMP_FLAGS.ORIG_STACK;
      }
      const next = this.#generate(links);
      try {
        if (old) target.modify(old, next);
        else target.register(next);
        return next;
      } catch (error) {
        next.discard();
        if (!(error instanceof KernelError && error.errno === 'EAGAIN')) throw error;
      }
    }
  }

  /** bpf_tramp_ftrace_ops_func: is the site to be shared with an IPMODIFY ops, or no longer? */
  #shareIpmodify(command: OpsCommand): void {
    const { SHARE_IPMODIFY, ORIG_STACK, CALL_ORIG } = TRAMP_FLAGS;
    const lacksOrigStack = (this.#flags & CALL_ORIG) !== 0 && (this.#flags & ORIG_STACK) === 0;
    switch (command) {
      case 'ENABLE_SHARE_IPMODIFY_SELF':
        if (!lacksOrigStack) return;
        this.#flags |= SHARE_IPMODIFY;
        throw new KernelError('EAGAIN', `bpf: ${this.target.name} needs an image for livepatch`);
      case 'ENABLE_SHARE_IPMODIFY_PEER':
        this.#flags |= SHARE_IPMODIFY;
        if (lacksOrigStack) this.#update(this.#links);
        return;
      case 'DISABLE_SHARE_IPMODIFY_PEER': {
        const hadOrigStack = (this.#flags & ORIG_STACK) !== 0;
        this.#flags &= ~SHARE_IPMODIFY;
        if (hadOrigStack) this.#update(this.#links);
      }
    }
  }

  #generate(links: readonly TrampolineLink[]): TrampolineImage {
    const { kernel } = this.#parts;
    const ordered = LINK_KINDS.flatMap((kind) => links.filter((link) => link.kind === kind));
    const { parameters, returnSize } = this.model;
    return new TrampolineImage(this.#parts, {
      model: { arguments: parameters.map(({ size, struct }) => ({ size, struct })), returnSize },
      flags: this.#flags,
      links: ordered.map(({ kind, program, cookie, session }) => ({
        kind,
        program: program.address,
        entry: program.entry,
        cookie,
        session,
        sessionCookie: session && program.callsSessionCookie,
        enter: kernel.symbol(enterName(program.enterExit)),
        exit: kernel.symbol(exitName(program.enterExit)),
      })),
      functionAddress: this.target.address,
    });
  }
}

/** BPF_TRAMP_F_* as bpf_trampoline_update chooses them. */
function flagsOf(links: readonly TrampolineLink[]): number {
  const callsOriginal = links.some((link) => link.kind !== 'fentry');
  const usesIp = links.some((link) => link.program.callsGetFuncIp);
  return (
    (callsOriginal ? TRAMP_FLAGS.CALL_ORIG | TRAMP_FLAGS.SKIP_FRAME : TRAMP_FLAGS.RESTORE_REGS) |
    (usesIp ? TRAMP_FLAGS.IP_ARG : 0)
  );
}
