/**
 * The BPF trampoline: the code between a patch site and the programs attached to it.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: arch_bpf_trampoline_size, prepare_trampoline,
 * invoke_bpf_prog; kernel/bpf/trampoline.c: bpf_trampoline_update. Its order: frame, arguments into the
 * ctx array, fentry programs, fmod_ret programs (a non-zero result skips the original), the original
 * body, fexit programs, return. `listing` names each range of words.
 *
 * The size is first taken with every call in its long form and `im` in four words; the image then is
 * usually shorter than its allocation.
 *
 * Usage:
 *   const model = { arguments: [{ size: 4, struct: false }] };
 *   const trampoline = compileTrampoline(model, TRAMP_FLAGS.RESTORE_REGS, [link], {
 *     config, offsets, functionAddress, im, enter, exit, place: (size) => region.allocate(size),
 *   });
 */
import { KernelError } from '../common/errors.js';
import { emitCall } from './calls.js';
import { CodeBuffer } from './code-buffer.js';
import { MOVE_INT64_MAX, moveAddress, moveInt32, moveInt64 } from './constants.js';
import { moveRegister } from './context.js';
import {
  addImmediate,
  adr,
  blr,
  bti,
  cbnz,
  cbz,
  FP,
  ldpPostIndex,
  loadImmediate,
  LR,
  lslImmediate,
  lsrImmediate,
  nop,
  ret,
  SP,
  storeImmediate,
  stpPreIndex,
  subImmediate,
  ZR,
} from './emit.js';
import type { JitConfig, KernelVersion, StructOffsets } from './profile.js';
import { trampolineFrame, type TrampolineFrame } from './trampoline-frame.js';
import {
  type ArgumentPlacement,
  argumentSlots,
  type FunctionModel,
  type LinkKind,
  placeArguments,
  TRAMP_FLAGS,
  type TrampolineLink,
} from './trampoline-model.js';
import { TRAMPOLINE_PROFILES, type TrampolineProfile } from './trampoline-profile.js';

const PAGE_SIZE = 4096;
/** Larger structures are passed by reference: btf_distill_func_proto refuses them. */
const MAX_ARGUMENT_SIZE = 16;
/** Scratch that no argument is in. */
const TMP = 10;
/** Callee-saved: the running program's struct bpf_prog, and what its enter function returned. */
const PROGRAM = 19;
const START = 20;
/** Bit of the argument-count word that says that the original has returned (7.3). */
const IS_RETURN = 1n << 63n;
/** Where the argument-count word has the distance of the session cookie from ctx, in slots (7.3). */
const COOKIE_INDEX_SHIFT = 8n;

export interface TrampolineOptions {
  /** Default 6.12. */
  readonly kernel?: KernelVersion;
  /** What that version does its own way. Default: its profile; others for releases near it and bugs of old ones. */
  readonly profile?: TrampolineProfile;
  readonly config: JitConfig;
  readonly offsets: Pick<StructOffsets, 'insnsi'>;
  /** Address of the traced function: what IP_ARG stores. */
  readonly functionAddress: bigint;
  /** Address of the struct bpf_tramp_image. */
  readonly im: bigint;
  /** Address of the copy of it that an estimate `of the copy` is made with. Default 0. */
  readonly imCopy?: bigint;
  /** __bpf_tramp_enter and __bpf_tramp_exit. */
  readonly enter: bigint;
  readonly exit: bigint;
  /** The allocator: address of an image of `allocSize` bytes. */
  readonly place: (allocSize: number) => bigint;
}

/** A named range of words. */
export interface ListingEntry {
  /** Word indexes, `end` exclusive. */
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

export interface Trampoline {
  readonly kernel: KernelVersion;
  readonly base: bigint;
  readonly words: Uint32Array;
  /** Bytes of `words`: what the kernel function returns. */
  readonly length: number;
  readonly allocSize: number;
  /**
   * With CALL_ORIG: offset of the NOP that becomes a branch over the fexit programs, and of its target.
   * In 7.3 it is the one before the first of them, so that there is none without any.
   */
  readonly ipAfterCall: number | undefined;
  readonly ipEpilogue: number | undefined;
  readonly frame: TrampolineFrame;
  readonly listing: readonly ListingEntry[];
}

/**
 * Generates a trampoline. `links` are in the order in which they run, within each kind.
 * Throws KernelError: EINVAL (argument size), ENOTSUPP (arguments), E2BIG (larger than a page, from 6.12), EFBIG (same, 6.1).
 */
export function compileTrampoline(
  model: FunctionModel,
  flags: number,
  links: readonly TrampolineLink[],
  options: TrampolineOptions,
): Trampoline {
  const kernel = options.kernel ?? '6.12';
  const profile = options.profile ?? TRAMPOLINE_PROFILES[kernel];
  for (const { size } of model.arguments) {
    if (size < 1 || size > MAX_ARGUMENT_SIZE) {
      throw new KernelError(
        'EINVAL',
        `trampoline for a function with an argument of ${size} bytes`,
      );
    }
  }
  if (profile.wideReturn === 'refused' && keepsReturn(flags) && (model.returnSize ?? 8) > 8) {
    throw new KernelError(
      'ENOTSUPP',
      `trampoline that keeps a return value of ${model.returnSize} bytes`,
    );
  }
  const placement = placeArguments(model);
  profile.checkArguments(model, placement);
  const estimate = new Generator(profile, model, placement, flags, links, options, undefined);
  estimate.generate();
  const size = 4 * estimate.code.length;
  if (size > PAGE_SIZE) {
    const errno = profile.allocation === 'page' ? 'EFBIG' : 'E2BIG';
    throw new KernelError(errno, `trampoline of ${size} bytes is larger than a page`);
  }
  const allocSize = profile.allocation === 'page' ? PAGE_SIZE : size;
  const base = options.place(allocSize);
  const final = new Generator(profile, model, placement, flags, links, options, base);
  final.generate();
  const { words, labels } = final.code;
  const listing = labels.map(({ start, text }, index) => {
    return { start, end: labels[index + 1]?.start ?? words.length, text };
  });
  return {
    kernel,
    base,
    words: Uint32Array.from(words),
    length: 4 * words.length,
    allocSize,
    ipAfterCall: final.ipAfterCall,
    ipEpilogue: final.ipEpilogue,
    frame: final.frame,
    listing: listing.filter(({ start, end }) => end > start),
  };
}

function keepsReturn(flags: number): boolean {
  return (flags & TRAMP_FLAGS.CALL_ORIG) !== 0;
}

/** One pass. */
class Generator {
  readonly code: CodeBuffer;
  readonly frame: TrampolineFrame;
  ipAfterCall: number | undefined;
  ipEpilogue: number | undefined;
  readonly #profile: TrampolineProfile;
  readonly #placement: ArgumentPlacement;
  readonly #flags: number;
  readonly #links: readonly TrampolineLink[];
  readonly #options: TrampolineOptions;
  readonly #structOps: boolean;
  readonly #sessions: boolean;

  constructor(
    profile: TrampolineProfile,
    model: FunctionModel,
    placement: ArgumentPlacement,
    flags: number,
    links: readonly TrampolineLink[],
    options: TrampolineOptions,
    base: bigint | undefined,
  ) {
    this.code = new CodeBuffer(base);
    this.#profile = profile;
    this.#placement = placement;
    this.#flags = flags;
    this.#links = links;
    this.#options = options;
    const fentry = this.#linksOf('fentry');
    this.#structOps = fentry.length === 1 && fentry[0]?.structOps === true;
    this.#sessions = profile.sessions && fentry.some((link) => link.session);
    const cookies = fentry.filter((link) => profile.sessions && link.sessionCookie).length;
    this.frame = trampolineFrame(model, flags, {
      structOps: this.#structOps,
      sessionCookies: cookies,
    });
  }

  generate(): void {
    const { frame, code } = this;
    this.#enterFrame();
    this.#saveContext();
    if (this.#has('CALL_ORIG')) this.#callWithImage('enter', this.#options.enter);
    this.#startSessions();
    this.#invokeAll('fentry', this.#has('RET_FENTRY_RET'), 0n);
    const skips = this.#invokeModifyReturn();
    if (this.#has('CALL_ORIG')) this.#callOriginal();
    for (const { hole, retval } of skips) {
      code.patch(hole, cbnz(1, retval, code.length - hole));
    }
    if (this.#sessions) this.#storeCount('mark the return', IS_RETURN);
    this.#invokeAll('fexit', false, IS_RETURN);
    if (this.#has('CALL_ORIG')) {
      if (this.ipAfterCall !== undefined) this.ipEpilogue = 4 * code.length;
      this.#callWithImage('exit', this.#options.exit);
    }
    if (this.#has('RESTORE_REGS')) this.#restoreArguments();
    code.label('restore x19, x20');
    this.#load(PROGRAM, frame.x19);
    this.#load(START, frame.x20);
    if (frame.retval !== undefined) {
      code.label('load return value');
      this.#load(0, frame.retval);
    }
    this.#leave();
  }

  #has(flag: keyof typeof TRAMP_FLAGS): boolean {
    return (this.#flags & TRAMP_FLAGS[flag]) !== 0;
  }

  #linksOf(kind: LinkKind): readonly TrampolineLink[] {
    return this.#links.filter((link) => link.kind === kind);
  }

  #emit(word: number): void {
    this.code.emit(word);
  }

  #move(rd: number, rn: number): void {
    this.#emit(moveRegister(this.#profile, 1, rd, rn));
  }

  #load(rt: number, offset: number): void {
    this.#emit(loadImmediate(3, false, rt, SP, offset));
  }

  #store(rt: number, offset: number): void {
    this.#emit(storeImmediate(3, rt, SP, offset));
  }

  #call(target: bigint): void {
    emitCall(this.code, target, this.#profile.directCalls, TMP);
  }

  #enterFrame(): void {
    const { code, frame } = this;
    if (this.#options.config.bti) {
      code.label('landing pad');
      this.#emit(bti('jc'));
    }
    if (frame.parentRecord !== undefined) {
      code.label('frame record of the parent');
      this.#emit(stpPreIndex(FP, 9, SP, -16));
      this.#move(FP, SP);
    }
    code.label(this.#structOps ? 'frame record' : 'frame record of the traced function');
    this.#emit(stpPreIndex(FP, LR, SP, -16));
    this.#move(FP, SP);
    code.label('reserve stack');
    this.#emit(subImmediate(1, SP, SP, frame.stackSize));
  }

  /** ip, count, arguments: the ctx array; then x19 and x20. */
  #saveContext(): void {
    const { code, frame } = this;
    if (frame.ip !== undefined) {
      code.label('save function address');
      code.emitAll(moveAddress(TMP, this.#options.functionAddress));
      this.#store(TMP, frame.ip);
    }
    code.label('save argument count');
    const count = BigInt(frame.argumentSlots);
    code.emitAll(
      this.#profile.countWidth === 32 ? moveInt64(TMP, count) : moveInt32(1, TMP, Number(count)),
    );
    this.#store(TMP, frame.nregs);
    let slot = 0;
    for (const [index, argument] of this.#placement.inRegisters.entries()) {
      code.label(`save argument ${index}`);
      for (let i = 0; i < argumentSlots(argument); i++, slot++) {
        this.#store(slot, frame.args + 8 * slot);
      }
    }
    this.#copyStackArguments(frame.args + 8 * slot, true);
    code.label('save x19, x20');
    this.#store(PROGRAM, frame.x19);
    this.#store(START, frame.x20);
  }

  /** Copies incoming stack arguments through x10; programs get the unused bytes of the last slot clear. */
  #copyStackArguments(to: number, clean: boolean): void {
    let from = this.#structOps ? 16 : 32;
    let offset = to;
    const first = this.#placement.inRegisters.length;
    for (const [index, argument] of this.#placement.onStack.entries()) {
      this.code.label(clean ? `save argument ${first + index}` : `pass argument ${first + index}`);
      const slots = argumentSlots(argument);
      for (let i = 0; i < slots; i++, from += 8, offset += 8) {
        this.#emit(loadImmediate(3, false, TMP, FP, from));
        const used = argument.size % 8;
        if (clean && i === slots - 1 && used !== 0) {
          this.#emit(lslImmediate(1, TMP, TMP, 64 - 8 * used));
          this.#emit(lsrImmediate(1, TMP, TMP, 64 - 8 * used));
        }
        this.#store(TMP, offset);
      }
    }
  }

  /** __bpf_tramp_enter(im) or __bpf_tramp_exit(im). */
  #callWithImage(which: 'enter' | 'exit', target: bigint): void {
    const { code } = this;
    code.label(`call __bpf_tramp_${which}`);
    const estimates = code.base === undefined && this.#profile.allocation === 'estimate';
    code.emitAll(estimates ? this.#estimatedImage() : this.#moveImage(this.#options.im));
    this.#call(target);
  }

  #moveImage(im: bigint): readonly number[] {
    return this.#profile.imageAddress === '48 bits' ? moveAddress(0, im) : moveInt64(0, im);
  }

  /** The size is taken before the image, and so its address, exists. */
  #estimatedImage(): readonly number[] {
    if (this.#profile.imageAddressEstimate === 'most') {
      return Array.from({ length: MOVE_INT64_MAX }, () => nop());
    }
    return this.#moveImage(this.#options.imCopy ?? 0n);
  }

  /** Clears session cookies and the return value that sessions may ask for at entry. */
  #startSessions(): void {
    if (!this.#sessions) return;
    const { code, frame } = this;
    code.label('clear session cookies and return value');
    code.emitAll(moveInt32(1, TMP, 0));
    for (let i = 0; i < frame.sessionCookieCount; i++) {
      this.#store(TMP, frame.sessionCookies + 8 * i);
    }
    if (frame.retval !== undefined) this.#store(TMP, frame.retval);
  }

  /** The argument-count word with more in it, as session programs see it. */
  #storeCount(text: string, bits: bigint): void {
    this.code.label(text);
    this.code.emitAll(moveInt64(TMP, BigInt(this.frame.argumentSlots) | bits));
    this.#store(TMP, this.frame.nregs);
  }

  #invokeAll(kind: LinkKind, saveResult: boolean, bits: bigint): void {
    const { frame } = this;
    let cookie = frame.sessionCookies;
    for (const [index, link] of this.#linksOf(kind).entries()) {
      const name = `${kind} ${index}`;
      if (this.#sessions && link.session && link.sessionCookie) {
        const distance = BigInt((frame.args - cookie) / 8);
        this.#storeCount(`${name}: session cookie`, bits | (distance << COOKIE_INDEX_SHIFT));
        cookie += 8;
      }
      this.#invoke(name, link, saveResult);
    }
  }

  #invoke(name: string, link: TrampolineLink, saveResult: boolean): void {
    const { code, frame } = this;
    if (this.#profile.nopBeforeProgram) {
      code.label(`${name}: pad`);
      if (link.kind === 'fexit' && this.#has('CALL_ORIG')) this.ipAfterCall ??= 4 * code.length;
      this.#emit(nop());
    }
    const cookie = link.cookie ?? 0n;
    code.label(`${name}: attach cookie`);
    if (cookie !== 0n) code.emitAll(moveInt64(TMP, cookie));
    this.#store(cookie === 0n ? ZR : TMP, frame.runCtx);
    code.label(`${name}: enter`);
    code.emitAll(moveAddress(PROGRAM, link.program));
    this.#move(0, PROGRAM);
    this.#emit(addImmediate(1, 1, SP, frame.runCtx));
    this.#call(link.enter);
    code.label(`${name}: skip if not entered`);
    const { startSaved } = this.#profile;
    if (startSaved === 'always') this.#move(START, 0);
    const skip = code.hole();
    if (startSaved === 'if entered') this.#move(START, 0);
    code.label(`${name}: run`);
    this.#emit(addImmediate(1, 0, SP, frame.args));
    if (link.jited === false) {
      code.emitAll(moveAddress(1, link.program + BigInt(this.#options.offsets.insnsi)));
    }
    this.#call(link.entry);
    if (saveResult && frame.retval !== undefined) {
      code.label(`${name}: keep result`);
      this.#store(0, frame.retval);
    }
    code.patch(skip, cbz(1, 0, code.length - skip));
    code.label(`${name}: exit`);
    this.#move(0, PROGRAM);
    this.#move(1, START);
    this.#emit(addImmediate(1, 2, SP, frame.runCtx));
    this.#call(link.exit);
  }

  /** The fmod_ret programs; gives the branches taken when one returned non-zero. */
  #invokeModifyReturn(): { hole: number; retval: number }[] {
    const { code, frame } = this;
    const links = this.#linksOf('fmod_ret');
    if (links.length === 0) return [];
    if (frame.retval === undefined) throw new KernelError('EINVAL', 'fmod_ret without CALL_ORIG');
    code.label('clear return value');
    this.#store(ZR, frame.retval);
    const skips: { hole: number; retval: number }[] = [];
    for (const [index, link] of links.entries()) {
      this.#invoke(`fmod_ret ${index}`, link, true);
      code.label(`fmod_ret ${index}: skip the original`);
      this.#load(TMP, frame.retval);
      skips.push({ hole: code.hole(), retval: TMP });
    }
    return skips;
  }

  #restoreArguments(): void {
    let slot = 0;
    for (const [index, argument] of this.#placement.inRegisters.entries()) {
      this.code.label(`restore argument ${index}`);
      for (let i = 0; i < argumentSlots(argument); i++, slot++) {
        this.#load(slot, this.frame.args + 8 * slot);
      }
    }
  }

  /** Into the traced function behind its patch site, with the return address behind the RET here. */
  #callOriginal(): void {
    const { code, frame } = this;
    this.#restoreArguments();
    this.#copyStackArguments(0, false);
    code.label('call original');
    this.#load(TMP, frame.returnAddress);
    if (this.#profile.originalBy === 'blr') {
      this.#emit(blr(TMP));
    } else {
      this.#emit(adr(LR, 8));
      this.#emit(ret(TMP));
    }
    if (frame.retval !== undefined) {
      code.label('keep return value');
      this.#store(0, frame.retval);
    }
    if (this.#profile.nopAfterCall) {
      this.ipAfterCall = 4 * code.length;
      code.label('becomes a branch to the epilogue');
      this.#emit(nop());
    }
  }

  #leave(): void {
    const { code } = this;
    code.label('pop frames');
    this.#move(SP, FP);
    this.#emit(ldpPostIndex(FP, LR, SP, 16));
    if (this.#structOps) {
      code.label('return');
      return this.#emit(ret(LR));
    }
    this.#emit(ldpPostIndex(FP, 9, SP, 16));
    if (this.#has('SKIP_FRAME')) {
      code.label('return to the parent');
      this.#move(LR, 9);
      return this.#emit(ret(9));
    }
    code.label('return to the traced function');
    this.#move(TMP, LR);
    this.#move(LR, 9);
    this.#emit(ret(TMP));
  }
}
