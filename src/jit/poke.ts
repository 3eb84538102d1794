/**
 * Patching JITed text: what bpf_arch_text_poke would write, and the branch words it writes.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: bpf_arch_text_poke, gen_branch_or_nop; aarch64_insn_gen_branch_imm
 * and aarch64_insn_gen_move_reg. A plan is pure: whoever owns memory writes the PLT target first, then
 * the instruction. Every value that the PLT target ever holds is a valid landing place, so nothing need
 * wait between the two.
 *
 * Usage:
 *   const plan = planTextPoke({ ip, type: 'call', oldAddress: 0n, newAddress: image.base, ... });
 *   if (plan.pltWrite) memory.write64(plan.pltWrite.address, plan.pltWrite.target);
 *   if (plan.patch) memory.write32(plan.patch.address, plan.patch.word);
 */
import { AARCH64_BREAK_FAULT, branchWord } from '../a64/immediates.js';
import { ERRNO } from '../common/errno.js';
import { inBranchRange } from './calls.js';
import { nop, orrRegister, ZR } from './emit.js';
import { PLT_TARGET_OFFSET } from './plt.js';

export type PokeType = 'call' | 'jump';

/** The image that `ip` lies in. */
export interface PokedImage {
  readonly base: bigint;
  /** Bytes, without the PLT target. */
  readonly jitedLength: number;
}

export interface PokeRequest {
  readonly ip: bigint;
  readonly type: PokeType;
  /** What the site branches to now and shall branch to; 0 for nothing. */
  readonly oldAddress: bigint;
  readonly newAddress: bigint;
  /** `undefined`: `ip` is not BPF text. */
  readonly image: PokedImage | undefined;
  /** CONFIG_ARM64_BTI_KERNEL: the entry's site is one word further. */
  readonly bti: boolean;
  readonly dummyTramp: bigint;
  /** The word in memory at an address. */
  readonly read: (address: bigint) => number;
}

export interface PokePlan {
  /** 0 or a negative errno. */
  readonly result: number;
  /** First: the PLT's target. Happens even if the instruction then is not what was expected. */
  readonly pltWrite: { readonly address: bigint; readonly target: bigint } | undefined;
  /** Then: the instruction. */
  readonly patch: { readonly address: bigint; readonly word: number } | undefined;
}

/** Words from an image's entry to its poke site. */
export function pokeOffset(bti: boolean): number {
  return bti ? 2 : 1;
}

export function planTextPoke(request: PokeRequest): PokePlan {
  const { image, oldAddress, newAddress, type } = request;
  const refuse = (errno: 'ENOTSUPP' | 'EINVAL' | 'EFAULT'): PokePlan => {
    return { result: -ERRNO[errno], pltWrite: undefined, patch: undefined };
  };
  if (image === undefined) return refuse('ENOTSUPP');
  const entry = request.ip === image.base;
  const site = entry ? request.ip + BigInt(4 * pokeOffset(request.bti)) : request.ip;
  const plt = image.base + BigInt(image.jitedLength - PLT_TARGET_OFFSET);
  const far = (target: bigint): boolean => target !== 0n && !inBranchRange(site, target);
  if (!entry && (far(oldAddress) || far(newAddress))) return refuse('EINVAL');

  const instruction = (target: bigint): number => {
    if (target === 0n) return nop();
    return branchWord(site, far(target) ? plt : target, type === 'call');
  };
  const pltWrite = (target: bigint): PokePlan['pltWrite'] => {
    return { address: plt + BigInt(PLT_TARGET_OFFSET), target };
  };
  const expected = instruction(oldAddress);
  const word = instruction(newAddress);
  if (expected === AARCH64_BREAK_FAULT || word === AARCH64_BREAK_FAULT) return refuse('EFAULT');

  let written: PokePlan['pltWrite'];
  if (far(newAddress)) written = pltWrite(newAddress);
  else if (far(oldAddress)) written = pltWrite(request.dummyTramp);

  if (expected === word) return { result: 0, pltWrite: written, patch: undefined };
  if (request.read(site) !== expected) {
    return { result: -ERRNO.EFAULT, pltWrite: written, patch: undefined };
  }
  return { result: 0, pltWrite: written, patch: { address: site, word } };
}

/** `mov xd, xn` as ftrace writes it at patch sites (ORR). */
export function moveRegisterWord(rd: number, rn: number): number {
  return orrRegister(1, rd, ZR, rn);
}
