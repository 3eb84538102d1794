/**
 * A program's arm64 image beside where it comes from: C line, BPF instruction, A64 words with addresses.
 *
 *   int drop(struct xdp_md * ctx):
 *   ; prologue
 *   ffff800008000010:  d503245f  bti c
 *   ; return XDP_DROP;
 *      0: (b7) r0 = 1
 *   ffff800008000034:  d2800027  movz x7, #1
 *
 * What `bpftool prog dump jited` prints, with the BPF instructions between. Addresses are those at
 * which the image would be placed now; calls show the symbol they go to.
 */
import { print } from '../a64/print.js';
import { hex32 } from '../common/bytes.js';
import { compile, type JitImage } from '../jit/program.js';
import type { KernelVersion } from '../jit/profile.js';
import { DEFAULT_CODEGEN } from '../kernel/bpf/codegen.js';
import type { Kernel } from '../kernel/kernel.js';
import { BPF_PROFILES } from '../kernel/bpf/profile.js';
import {
  sourceLines,
  listInstructions,
  type ListedInstruction,
  type ListedProgram,
  type ListingOptions,
} from './xlated-listing.js';

export interface ImageOptions extends ListingOptions {
  /** Whose JIT. Default 6.12. */
  readonly kernel?: KernelVersion;
}

/** A stretch of an image: what one BPF instruction became, or prologue, epilogue and PLT. */
interface Piece {
  readonly instruction?: ListedInstruction;
  readonly part?: 'prologue' | 'epilogue' | 'plt';
  /** Bytes from the image's start. */
  readonly from: number;
  readonly to: number;
}

export function listJited(
  kernel: Kernel,
  listed: ListedProgram,
  options: ImageOptions = {},
): string[] {
  const images = compileImages(kernel, listed, options);
  const instructions = listInstructions(listed);
  return images.flatMap((image, number) => {
    const own = instructions.filter((instruction) => instruction.function === number);
    const prototype = own[0]?.prototype ?? image.name;
    return [
      `${prototype}:`,
      ...piecesOf(image, own).flatMap((piece) => pieceLines(kernel, images, image, piece, options)),
    ];
  });
}

/** One record per A64 instruction run: `{ pc, words, disasm, bpf?, src? }`. */
export function jitedRecords(
  kernel: Kernel,
  listed: ListedProgram,
  options: ImageOptions = {},
): object[] {
  const images = compileImages(kernel, listed, options);
  const instructions = listInstructions(listed);
  return images.map((image, number) => {
    const own = instructions.filter((instruction) => instruction.function === number);
    return {
      name: image.name,
      ...(own[0]?.prototype === undefined ? {} : { proto: own[0].prototype }),
      pc: `0x${image.base.toString(16)}`,
      insns: piecesOf(image, own).map(({ instruction, part, from, to }) => ({
        ...(part === undefined ? {} : { part }),
        ...(instruction?.line ? { src: instruction.line.text.trimStart() } : {}),
        ...(instruction ? { index: instruction.index, bpf: instruction.text } : {}),
        a64: wordsOf(image, from, to).map(([address, word]) => ({
          pc: `0x${address.toString(16)}`,
          disasm: print(word, address, (target) => symbolAt(kernel, images, target)),
          ...(options.opcodes ? { opcodes: hex32(word) } : {}),
        })),
      })),
    };
  });
}

function compileImages(
  kernel: Kernel,
  { xlated }: ListedProgram,
  { kernel: version = '6.12' }: ImageOptions,
): readonly JitImage[] {
  const { images: memory, host } = kernel.bpf;
  const taken: bigint[] = [];
  try {
    return compile(xlated, {
      kernel: version,
      cpu: DEFAULT_CODEGEN.cpu,
      config: DEFAULT_CODEGEN.config,
      offsets: BPF_PROFILES[version].offsets,
      callBase: host.callBase,
      dummyTramp: kernel.symbol('dummy_tramp'),
      place: (_index, size) => {
        // 16 bytes of struct bpf_binary_header in front
        const start = memory.alloc(16 + size);
        taken.push(start);
        return start + 16n;
      },
    }).functions;
  } finally {
    for (const start of taken) memory.free(start);
  }
}

function piecesOf(image: JitImage, instructions: readonly ListedInstruction[]): Piece[] {
  const starts = instructions.map(({ slot }) => image.insnOffsets[slot] ?? 0);
  const bodies = instructions.map((instruction, i): Piece => ({
    instruction,
    from: starts[i] ?? 0,
    to: starts[i + 1] ?? image.epilogueOffset,
  }));
  const pieces: Piece[] = [
    { part: 'prologue', from: 0, to: starts[0] ?? image.epilogueOffset },
    ...bodies,
    { part: 'epilogue', from: image.epilogueOffset, to: image.pltOffset },
    { part: 'plt', from: image.pltOffset, to: image.jitedLength },
  ];
  return pieces;
}

function pieceLines(
  kernel: Kernel,
  images: readonly JitImage[],
  image: JitImage,
  { instruction, part, from, to }: Piece,
  options: ImageOptions,
): string[] {
  const heads = instruction
    ? [
        ...sourceLines(instruction, options),
        `${String(instruction.index).padStart(4)}: ${instruction.text}`,
      ]
    : [`; ${part}`];
  const words = wordsOf(image, from, to).map(([address, word]) => {
    const text = print(word, address, (target) => symbolAt(kernel, images, target));
    return `${address.toString(16)}:  ${options.opcodes ? `${hex32(word)}  ` : ''}${text}`;
  });
  return part !== undefined && words.length === 0 ? [] : [...heads, ...words];
}

function wordsOf(image: JitImage, from: number, to: number): [address: bigint, word: number][] {
  return [...image.words.subarray(from / 4, to / 4)].map((word, i) => [
    image.base + BigInt(from + 4 * i),
    word,
  ]);
}

/** The symbol at an address: of the kernel, or of an image of this program. */
function symbolAt(kernel: Kernel, images: readonly JitImage[], address: bigint): string {
  for (const { base, words, name } of images) {
    const offset = address - base;
    if (offset >= 0n && offset < BigInt(4 * words.length))
      return `${name}+0x${offset.toString(16)}`;
  }
  return kernel.symbols.format(address);
}
