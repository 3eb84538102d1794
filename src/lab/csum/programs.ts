/**
 * XDP programs of the checksum experiments, as BPF assembly.
 *
 * They are real programs in the form that engines run: R1 points at the xdp_buff, so the packet lies
 * between *(u64 *)(r1 + 0) and *(u64 *)(r1 + 8). Sums are made of words as the little-endian CPU loads
 * them: a ones-complement sum comes out right in memory whatever the byte order (RFC 1071).
 *
 * What a program does in the end, a verdict or a redirect, is text too: `end`.
 *
 * NAT strategies for the L4 checksum: S0 leaves it, S1 updates it (RFC 1624, what bpf_csum_diff is for), S2
 * computes the complete one anew, S3 the new pseudo-header's sum. UDP without a checksum keeps none.
 *
 * Usage:
 *   const program = labProgram(kernel, 'nat', natProgram('S1', '10.0.0.9'));
 */
import { assemble } from '../../bpf/assemble.js';
import { callImmediate } from '../../bpf/call-immediate.js';
import type { XlatedProgram } from '../../bpf/program.js';
import { rawProgram } from '../../bpf/raw-program.js';
import { InputError } from '../../common/errors.js';
import { viewOf } from '../../common/bytes.js';
import type { Kernel } from '../../kernel/kernel.js';
import { parseIpv4 } from '../../net/address.js';

export const NAT_STRATEGIES = ['S0', 'S1', 'S2', 'S3'] as const;
export type NatStrategy = (typeof NAT_STRATEGIES)[number];

export const VERDICTS = { ABORTED: 0, DROP: 1, PASS: 2, TX: 3, REDIRECT: 4 } as const;

/** Assembles a program for a kernel's helpers. */
export function labProgram(kernel: Kernel, name: string, text: string): XlatedProgram {
  const helperImmediate = (id: number): number => {
    const immediate = callImmediate(kernel.bpf.host, id);
    if (immediate === undefined) throw new InputError(`there is no helper ${id}`);
    return immediate;
  };
  return rawProgram(name, assemble(text), { helperImmediate });
}

export function returnProgram(verdict: number): string {
  return `r0 = ${verdict}\nexit`;
}

/** Answers what bpf_redirect_map says of an entry of the map at `address`. */
export function redirectProgram(address: bigint, key: number): string {
  return `r1 = ${address} ll\nr2 = ${key}\nr3 = 0\ncall 51\nexit`;
}

/** Swaps the Ethernet addresses and sends the frame back. */
export function macSwapProgram(end = returnProgram(VERDICTS.TX)): string {
  return `
    r2 = *(u64 *)(r1 + 0)
    r3 = *(u32 *)(r2 + 0)
    r4 = *(u16 *)(r2 + 4)
    r5 = *(u32 *)(r2 + 6)
    r0 = *(u16 *)(r2 + 10)
    *(u32 *)(r2 + 0) = r5
    *(u16 *)(r2 + 4) = r0
    *(u32 *)(r2 + 6) = r3
    *(u16 *)(r2 + 10) = r4
    ${end}`;
}

/** Calls helper 44 or 65 with each delta; goes on with `ok` if all returned 0, else with `failed`. */
export function adjustProgram(
  helper: number,
  deltas: readonly number[],
  ok: string,
  failed: string,
): string {
  const calls = deltas.map((delta) => `r1 = r6\nr2 = ${delta}\ncall ${helper}\nif r0 != 0 goto no`);
  return `r6 = r1\n${calls.join('\n')}\n${ok}\nno:\n${failed}`;
}

/** Adds the carries of `register` in until none is left: sums here stay below 2^32. */
function foldText(register: string, scratch: string): string {
  const round = `${scratch} = ${register}\n${scratch} >>= 16\n${register} &= 65535\n${register} += ${scratch}`;
  return `${round}\n${round}\n${round}`;
}

/** Adds both halves of the 32-bit word in `word` to `sum`; uses up `word`. */
function addHalves(sum: string, word: string, scratch: string): string {
  return `${scratch} = ${word}\n${scratch} &= 65535\n${sum} += ${scratch}\n${word} >>= 16\n${word} &= 65535\n${sum} += ${word}`;
}

/** r5 = ~(~r5 + ~old + new), with r8 the old address and r9 the new one. */
const UPDATE = `
    r5 ^= 65535
    r2 = r8
    r3 = 4294967295 ll
    r2 ^= r3
    ${addHalves('r5', 'r2', 'r4')}
    r2 = r9
    ${addHalves('r5', 'r2', 'r4')}
    ${foldText('r5', 'r4')}
    r5 ^= 65535`;

/** r5 = sum over the pseudo-header: r6 Ethernet header, r7 L4 length in host order, protocol at +23. */
const PSEUDO = `
    r5 = *(u8 *)(r6 + 23)
    r5 <<= 8
    r2 = r7
    r2 = be16 r2
    r5 += r2
    r2 = *(u32 *)(r6 + 26)
    ${addHalves('r5', 'r2', 'r4')}
    r2 = *(u32 *)(r6 + 30)
    ${addHalves('r5', 'r2', 'r4')}`;

/** Behind PSEUDO: adds the L4 bytes. r1 the next byte, r7 how many are left. */
const SUM_L4 = `
    r1 = r6
    r1 += 34
    more:
    if r7 < 2 goto last
    r2 = *(u16 *)(r1 + 0)
    r5 += r2
    r1 += 2
    r7 += -2
    goto more
    last:
    if r7 == 0 goto summed
    r2 = *(u8 *)(r1 + 0)
    r5 += r2
    summed:`;

const NO_ZERO = `
    if r5 != 0 goto store
    r2 = *(u8 *)(r6 + 23)
    if r2 != 17 goto store
    r5 = 65535
    store:`;

const L4_TEXT: Readonly<Record<NatStrategy, string>> = {
  S0: '',
  S1: `
    r5 = *(u16 *)(r1 + 0)
    ${UPDATE}
    ${NO_ZERO}
    *(u16 *)(r1 + 0) = r5`,
  S2: `
    r9 = r1
    r2 = 0
    *(u16 *)(r9 + 0) = r2
    ${PSEUDO}
    ${SUM_L4}
    ${foldText('r5', 'r4')}
    r5 ^= 65535
    ${NO_ZERO}
    *(u16 *)(r9 + 0) = r5`,
  S3: `
    ${PSEUDO}
    ${foldText('r5', 'r4')}
    *(u16 *)(r1 + 0) = r5`,
};

/** Gives TCP and UDP packets over IPv4 another destination, and passes all. */
export function natProgram(
  strategy: NatStrategy,
  address: string,
  end = returnProgram(VERDICTS.PASS),
): string {
  const word = viewOf(parseIpv4(address)).getUint32(0, true);
  return `
    r6 = *(u64 *)(r1 + 0)
    r3 = *(u64 *)(r1 + 8)
    r2 = r6
    r2 += 42
    if r2 > r3 goto pass
    r2 = *(u16 *)(r6 + 12)
    if r2 != 8 goto pass
    r2 = *(u8 *)(r6 + 14)
    if r2 != 69 goto pass
    r1 = r6
    r1 += 40
    r2 = *(u8 *)(r6 + 23)
    if r2 == 17 goto udp
    if r2 != 6 goto pass
    r1 += 10
    udp:
    r8 = *(u32 *)(r6 + 30)
    r9 = ${word} ll
    *(u32 *)(r6 + 30) = r9
    r5 = *(u16 *)(r6 + 24)
    ${UPDATE}
    *(u16 *)(r6 + 24) = r5
    r2 = *(u16 *)(r1 + 0)
    if r2 != 0 goto checked
    r2 = *(u8 *)(r6 + 23)
    if r2 == 17 goto pass
    checked:
    r7 = *(u16 *)(r6 + 16)
    r7 = be16 r7
    r7 += -20
    ${L4_TEXT[strategy]}
    pass:
    ${end}`;
}

export interface EncapOptions {
  /** Addresses of the outer header. */
  readonly source: string;
  readonly destination: string;
  /** Ethernet address of the next hop. */
  readonly nextHop: Uint8Array;
  /** What the program does then. */
  readonly end: string;
  /** Fold the outer checksum until no carry is left. Default: once, as the kernel's sample does. */
  readonly foldAll?: boolean;
}

/**
 * IPIP encapsulation as samples/bpf/xdp_tx_iptunnel_kern.c does it: the id of the outer header is not
 * written, and its checksum is folded once, which is wrong when that carries.
 */
export function encapProgram(options: EncapOptions): string {
  const { source, destination, nextHop, end } = options;
  const word = (address: string): number => viewOf(parseIpv4(address)).getUint32(0, true);
  const hop = viewOf(nextHop);
  const once = 'r4 = r5\nr4 >>= 16\nr5 &= 65535\nr5 += r4';
  return `
    r6 = r1
    r7 = *(u64 *)(r6 + 0)
    r3 = *(u64 *)(r6 + 8)
    r2 = r7
    r2 += 34
    if r2 > r3 goto drop
    r8 = *(u16 *)(r7 + 16)
    r9 = *(u32 *)(r7 + 0)
    r2 = *(u16 *)(r7 + 4)
    *(u16 *)(r10 - 8) = r2
    r1 = r6
    r2 = -20
    call 44
    if r0 != 0 goto drop
    r7 = *(u64 *)(r6 + 0)
    *(u32 *)(r7 + 6) = r9
    r2 = *(u16 *)(r10 - 8)
    *(u16 *)(r7 + 10) = r2
    r2 = ${hop.getUint32(0, true)} ll
    *(u32 *)(r7 + 0) = r2
    r2 = ${hop.getUint16(4, true)}
    *(u16 *)(r7 + 4) = r2
    r2 = 8
    *(u16 *)(r7 + 12) = r2
    r2 = 69
    *(u16 *)(r7 + 14) = r2
    r8 = be16 r8
    r8 += 20
    r8 = be16 r8
    *(u16 *)(r7 + 16) = r8
    r2 = 0
    *(u16 *)(r7 + 20) = r2
    r2 = 1032
    *(u16 *)(r7 + 22) = r2
    r2 = 0
    *(u16 *)(r7 + 24) = r2
    r2 = ${word(source)} ll
    *(u32 *)(r7 + 26) = r2
    r2 = ${word(destination)} ll
    *(u32 *)(r7 + 30) = r2
    r5 = 0
    ${[14, 16, 18, 20, 22, 24, 26, 28, 30, 32].map((at) => `r2 = *(u16 *)(r7 + ${at})\nr5 += r2`).join('\n')}
    ${options.foldAll ? foldText('r5', 'r4') : once}
    r5 ^= 65535
    *(u16 *)(r7 + 24) = r5
    ${end}
    drop:
    r0 = ${VERDICTS.DROP}
    exit`;
}
