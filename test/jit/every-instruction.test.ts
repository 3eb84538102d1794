/**
 * Every instruction with immediates, offsets and registers at which code generation changes: images of all
 * profiles, with and without LSE, PAC and BTI, do what the interpreter does, and hold no unknown word.
 */
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { decode } from '../../src/a64/codec.js';
import { encodeSlots, makeSlot, type Slot } from '../../src/bpf/instruction.js';
import { high32, low32 } from '../../src/common/bytes.js';
import { compile, type JitImage } from '../../src/jit/program.js';
import type { KernelVersion } from '../../src/jit/profile.js';
import { VECTOR_OFFSETS } from '../../src/jit/vectors/harness.js';
import type { FuzzCase } from '../../src/lab/fuzz/case.js';
import { interpreterEngine, type FuzzEngine } from '../../src/lab/fuzz/engine.js';
import { foreignEngine, type Jit } from '../../src/lab/fuzz/jit-engine.js';
import { KernelWorkbench } from '../../src/lab/fuzz/kernel-workbench.js';
import { bootLab } from '../../src/node/boot.js';

// each has up to 60 instructions, which TRAMPOLAB_FUZZ_RUNS counts in small programs elsewhere
const RUNS = Math.ceil(Number(process.env['TRAMPOLAB_FUZZ_RUNS'] ?? 3000) / 500);

/** Around what fits 12 bits, 12 shifted bits, 16 bits and their negatives; bitmasks and near misses. */
const IMMEDIATES: readonly number[] = [
  0, 1, 2, 0xff, 0x100, 0xfff, 0x1000, 0x1001, 0x2000, 0xffff, 0x10000, 0xfff000, 0xfff001,
  0x1000000, 0x7fffffff, 0x55555555, 0x33333333, 0x0f0f0f0f, 0x00ff00ff, 0x7ffff, 0x3fff8000,
  0x12345678, 0x00120000,
].flatMap((value) => [value, -value, ~value]);

/** Where an access stops to fit: scaled imm12 of each size, imm9, alignment. */
const offsets = (size: number): number[] =>
  [0, 1, size, 4095 * size, 4096 * size, 255, 256, 257, 4095, 4096, 0x7ff8, 0x1001]
    .flatMap((value) => [value, -value, value - size])
    .filter((value) => value >= -0x7ff8 && value <= 0x7ff8);

/** Bytes on either side of R9. */
const HALF = 0x8000 + 16;
const SIZES = [4, 2, 1, 8] as const;
const ATOMICS = [0x00, 0x40, 0x50, 0xa0, 0x01, 0x41, 0x51, 0xa1, 0xe1, 0xf1];

interface Version {
  readonly kernel: KernelVersion;
  readonly v4: boolean;
  readonly acquireRelease: boolean;
}

const VERSIONS: readonly Version[] = [
  { kernel: '6.1', v4: false, acquireRelease: false },
  { kernel: '6.12', v4: true, acquireRelease: false },
  { kernel: '7.3', v4: true, acquireRelease: true },
];

/** R0..R8 take part; R9 is the middle of the memory. */
const register = fc.nat(8);
const immediate = fc.oneof(
  fc.constantFrom(...IMMEDIATES),
  fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
);
const sizeBits = fc.nat(3);

function anyAlu(v4: boolean): fc.Arbitrary<Slot[]> {
  const operation = fc.constantFrom(
    0x00,
    0x10,
    0x20,
    0x30,
    0x40,
    0x50,
    0x60,
    0x70,
    0x90,
    0xa0,
    0xb0,
    0xc0,
  );
  return fc
    .record({
      operation,
      wide: fc.boolean(),
      x: fc.boolean(),
      dst: register,
      src: register,
      immediate,
      extend: fc.constantFrom(0, 0, 8, 16, 32),
      signed: fc.boolean(),
    })
    .map(({ operation: op, wide, x, dst, src, immediate: value, extend, signed }) => {
      const code = op | (x ? 8 : 0) | (wide ? 7 : 4);
      const division = op === 0x30 || op === 0x90;
      let imm = x ? 0 : value;
      if ([0x60, 0x70, 0xc0].includes(op) && !x) imm = value & (wide ? 63 : 31);
      if (division && !x && imm === 0) imm = 7;
      let off = division && v4 && signed ? 1 : 0;
      if (op === 0xb0 && x && v4) off = wide || extend < 32 ? extend : 0;
      return [makeSlot(code, { dst, src: x ? src : 0, off, imm })];
    });
}

function anyUnary(v4: boolean): fc.Arbitrary<Slot[]> {
  const codes = [0x84, 0x87, 0xd4, 0xdc, ...(v4 ? [0xd7] : [])];
  return fc
    .record({ code: fc.constantFrom(...codes), dst: register, imm: fc.constantFrom(16, 32, 64) })
    .map(({ code, dst, imm }) => [makeSlot(code, { dst, imm: code < 0xd0 ? 0 : imm })]);
}

const anyConstant: fc.Arbitrary<Slot[]> = fc
  .record({
    dst: register,
    blocks: fc.array(fc.constantFrom<bigint[]>(0n, 0xffffn, 1n, 0x8000n, 0x1234n), {
      minLength: 4,
      maxLength: 4,
    }),
  })
  .map(({ dst, blocks }) => {
    const value = blocks.reduce((all, block) => (all << 16n) | block, 0n);
    return [makeSlot(0x18, { dst, imm: low32(value) }), makeSlot(0, { imm: high32(value) })];
  });

/** A jump over one instruction. */
const anyJump: fc.Arbitrary<Slot[]> = fc
  .record({
    operation: fc.constantFrom(0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xa0, 0xb0, 0xc0, 0xd0),
    wide: fc.boolean(),
    x: fc.boolean(),
    dst: register,
    src: register,
    immediate,
  })
  .map(({ operation, wide, x, dst, src, immediate: value }) => [
    makeSlot(operation | (x ? 8 : 0) | (wide ? 5 : 6), {
      dst,
      src: x ? src : 0,
      off: 1,
      imm: x ? 0 : value,
    }),
    makeSlot(0xa7, { dst, imm: 0x5a5a5a }),
  ]);

/** Memory around R9, or the stack below R10. */
const anyPlace = (size: number): fc.Arbitrary<{ base: number; off: number }> =>
  fc.oneof(
    fc.constantFrom(...offsets(size)).map((off) => ({ base: 9, off })),
    fc.integer({ min: -512, max: -size }).map((off) => ({ base: 10, off })),
  );

function anyAccess(v4: boolean): fc.Arbitrary<Slot[]> {
  return sizeBits.chain((bits) => {
    const size = SIZES[bits] ?? 4;
    const modes = v4 && size < 8 ? [0x61, 0x81] : [0x61];
    const load = fc.record({
      code: fc.constantFrom(...modes),
      reg: register,
      place: anyPlace(size),
    });
    const store = fc.record({
      code: fc.constantFrom(0x62, 0x63),
      reg: register,
      place: anyPlace(size),
      immediate,
    });
    return fc.oneof(
      load.map(({ code, reg, place }) => [
        makeSlot(code | (bits << 3), { dst: reg, src: place.base, off: place.off }),
      ]),
      store.map(({ code, reg, place, immediate: imm }) => {
        const isImmediate = code === 0x62;
        const value = isImmediate ? { imm } : { src: reg };
        return [makeSlot(code | (bits << 3), { dst: place.base, off: place.off, ...value })];
      }),
    );
  });
}

/** Naturally aligned; 8 and 16 bits only have acquire and release. */
function anyAtomic(acquireRelease: boolean): fc.Arbitrary<Slot[]> {
  return sizeBits.chain((bits) => {
    const size = SIZES[bits] ?? 4;
    const operations = [...(size >= 4 ? ATOMICS : []), ...(acquireRelease ? [0x100, 0x110] : [])];
    if (operations.length === 0) return fc.constant([]);
    return fc
      .record({ imm: fc.constantFrom(...operations), reg: register, place: anyPlace(size) })
      .map(({ imm, reg, place }) => {
        const off = place.off - (((place.off % size) + size) % size);
        const code = 0xc3 | (bits << 3);
        if (imm === 0x100) return [makeSlot(code, { dst: reg, src: place.base, off, imm })];
        const slots = [makeSlot(code, { dst: place.base, src: reg, off, imm })];
        // as the verifier does: all fetches of 32 bits leave the upper half clear
        return size === 4 && imm === 0xf1 ? [...slots, makeSlot(0xbc, { imm: 1 })] : slots;
      });
  });
}

function anyProgram({ v4, acquireRelease }: Version): fc.Arbitrary<Slot[][]> {
  const one = fc.oneof(
    anyAlu(v4),
    anyUnary(v4),
    anyConstant,
    anyJump,
    anyAccess(v4),
    anyAtomic(acquireRelease),
  );
  return fc.array(one, { minLength: 1, maxLength: 60 });
}

/** Constants into R0..R8, the body, everything folded into R0. */
function wrap(body: readonly Slot[]): Uint8Array {
  const start = Array.from({ length: 9 }, (_, dst) => [
    makeSlot(0x18, { dst, imm: (0x9e3779b9 * (dst + 1)) | 0 }),
    makeSlot(0, { imm: dst % 3 === 0 ? 0 : (0x85ebca6b * (dst + 3)) | 0 }),
  ]).flat();
  const clear = Array.from({ length: 64 }, (_, i) =>
    makeSlot(0x7a, { dst: 10, off: -8 * (i + 1) }),
  );
  const fold = [1, 2, 3, 4, 5, 6, 7, 8].flatMap((src) => [
    makeSlot(0x27, { imm: 31 }),
    makeSlot(0x0f, { src }),
  ]);
  const middle = [makeSlot(0xbf, { dst: 9, src: 1 }), makeSlot(0x07, { dst: 9, imm: HALF })];
  return encodeSlots([...middle, ...start, ...clear, ...body, ...fold, makeSlot(0x95)]);
}

const FLAGS = [
  { lse: true, pac: true, bti: false },
  { lse: false, pac: true, bti: true },
] as const;

function jitOf(
  { kernel }: Version,
  flags: (typeof FLAGS)[number],
  seen: (image: JitImage) => void,
): Jit {
  const { lse, pac, bti } = flags;
  return {
    name: `${kernel}${lse ? ' lse' : ''}${bti ? ' bti' : ''}`,
    compile: (program, { base, callBase }) => {
      const { functions } = compile(program, {
        kernel,
        cpu: { lse, vhe: false, sb: true },
        config: { pac, bti },
        offsets: VECTOR_OFFSETS[kernel],
        callBase,
        dummyTramp: base,
        place: () => base,
      });
      const [image] = functions;
      if (!image) throw new Error('no image');
      seen(image);
      return image.words;
    },
  };
}

describe.each(VERSIONS)('$kernel', (version) => {
  let engines: FuzzEngine[];
  let interpreter: FuzzEngine;
  const images: JitImage[] = [];
  beforeAll(async () => {
    interpreter = interpreterEngine();
    engines = await Promise.all(
      FLAGS.map(async (flags) => {
        const kernel = await bootLab({ version: version.kernel });
        return foreignEngine(
          new KernelWorkbench(kernel),
          jitOf(version, flags, (image) => images.push(image)),
        );
      }),
    );
  });
  afterAll(() => engines.forEach((engine) => engine.close()));

  it('does what the interpreter does, in words that are known', () => {
    fc.assert(
      fc.property(anyProgram(version), (groups) => {
        const insns = wrap(groups.flat());
        const memory = Uint8Array.from({ length: 2 * HALF }, (_, i) => (i * 37 + (i >> 8)) & 0xff);
        const fuzzCase: FuzzCase = { programs: [[{ insns, stackDepth: 512 }]], memory, maps: [] };
        const [expected] = interpreter.run([fuzzCase]);
        expect(expected?.end).toMatch(/^return/);
        for (const engine of engines) {
          images.length = 0;
          const [got] = engine.run([fuzzCase]);
          expect([engine.name, got?.end]).toEqual([engine.name, expected?.end]);
          expect(got?.memory, `memory on ${engine.name}`).toEqual(expected?.memory);
          for (const { words } of images) {
            expect(words.every((word) => decode(word) !== undefined)).toBe(true);
          }
        }
      }),
      { numRuns: RUNS },
    );
  });
});
