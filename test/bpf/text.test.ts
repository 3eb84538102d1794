import * as fc from 'fast-check';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { bytesToHex, hexToBytes } from '../../src/common/bytes.js';
import { assemble } from '../../src/bpf/assemble.js';
import { disassemble } from '../../src/bpf/disassemble.js';
import { encodeSlots, makeSlot, readSlots, type Slot } from '../../src/bpf/instruction.js';
import { ATOMIC, atomicOperation, OPCODES } from '../../src/bpf/opcodes.js';

/** Slots in hex, and the line that bpftool prints for them. */
const LISTING: readonly (readonly [string, string])[] = [
  ['bf16000000000000', '(bf) r6 = r1'],
  ['b7000000ffffffff', '(b7) r0 = -1'],
  ['bc21000000000000', '(bc) w1 = w2'],
  ['bf21080000000000', '(bf) r1 = (s8)r2'],
  ['bc21100000000000', '(bc) w1 = (s16)w2'],
  ['0f21000000000000', '(0f) r1 += r2'],
  ['c70100003f000000', '(c7) r1 s>>= 63'],
  ['3f21010000000000', '(3f) r1 s/= r2'],
  ['9401010003000000', '(94) w1 s%= 3'],
  ['8701000000000000', '(87) r1 = -r1'],
  ['8401000000000000', '(84) w1 = -w1'],
  ['dc01000010000000', '(dc) r1 = be16 r1'],
  ['d401000020000000', '(d4) r1 = le32 r1'],
  ['d701000040000000', '(d7) r1 = bswap64 r1'],
  ['7910080000000000', '(79) r0 = *(u64 *)(r1 +8)'],
  ['71a0fcff00000000', '(71) r0 = *(u8 *)(r10 -4)'],
  ['8110000000000000', '(81) r0 = *(s32 *)(r1 +0)'],
  ['7a0af8ff05000000', '(7a) *(u64 *)(r10 -8) = 5'],
  ['6b21020000000000', '(6b) *(u16 *)(r1 +2) = r2'],
  ['db21000000000000', '(db) lock *(u64 *)(r1 +0) += r2'],
  ['c321040050000000', '(c3) lock *(u32 *)(r1 +4) &= r2'],
  ['db21000001000000', '(db) r2 = atomic64_fetch_add((u64 *)(r1 +0), r2)'],
  ['c3210000e1000000', '(c3) r2 = atomic_xchg((u32 *)(r1 +0), r2)'],
  ['db210000f1000000', '(db) r0 = atomic64_cmpxchg((u64 *)(r1 +0), r0, r2)'],
  ['d321000000010000', '(d3) r1 = load_acquire((u8 *)(r2 +0))'],
  ['cb21000010010000', '(cb) store_release((u16 *)(r1 +0), r2)'],
  ['2501030005000000', '(25) if r1 > 0x5 goto pc+3'],
  ['16010300feffffff', '(16) if w1 == 0xfffffffe goto pc+3'],
  ['7d21fdff00000000', '(7d) if r1 s>= r2 goto pc-3'],
  ['0500ffff00000000', '(05) goto pc-1'],
  ['0600000000000100', '(06) gotol pc+65536'],
  ['8510000005000000', '(85) call pc+5'],
  ['8500000005000000', '(85) call helper#5'],
  ['8d02000000000000', '(8d) callx r2'],
  ['f500000000000000', '(f5) tail_call'],
  ['c200000000000000', '(c2) nospec'],
  ['9500000000000000', '(95) exit'],
  ['18060000157c4a7f00000000b979379e', '(18) r6 = 0x9e3779b97f4a7c15'],
  ['18110000030000000000000000000000', '(18) r1 = map[fd:3]'],
  ['18220000030000000000000008000000', '(18) r2 = map[fd:3][0]+8'],
  ['280000000c000000', '(28) r0 = *(u16 *)skb[12]'],
];

/** A slot of every kind with all fields that it uses at random. */
const anySlots: fc.Arbitrary<Slot[]> = fc
  .record({
    code: fc.constantFrom(...OPCODES.flatMap((opcode, code) => (opcode ? [code] : []))),
    dst: fc.integer({ min: 0, max: 10 }),
    src: fc.integer({ min: 0, max: 10 }),
    off: fc.integer({ min: -0x8000, max: 0x7fff }),
    imm: fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff }),
    high: fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff }),
    choice: fc.nat(),
  })
  .map(({ code, dst, src, off, imm, high, choice }): Slot[] => {
    const opcode = OPCODES[code];
    const operand = (isRegister: boolean): Partial<Slot> => (isRegister ? { src } : { imm });
    const pick = <T>(...items: readonly T[]): T => items[choice % items.length] as T;
    switch (opcode?.kind) {
      case 'alu': {
        const isRegister = opcode.source === 'register';
        const isDivision = opcode.op === 'div' || opcode.op === 'mod';
        const extensions = opcode.width === 64 ? [0, 8, 16, 32] : [0, 8, 16];
        const isExtending = opcode.op === 'mov' && isRegister;
        const variant = isDivision ? pick(0, 1) : isExtending ? pick(...extensions) : 0;
        return [makeSlot(code, { dst, off: variant, ...operand(isRegister) })];
      }
      case 'neg':
        return [makeSlot(code, { dst })];
      case 'end':
        return [makeSlot(code, { dst, imm: pick(16, 32, 64) })];
      case 'jump':
        return [makeSlot(code, { dst, off, ...operand(opcode.source === 'register') })];
      case 'goto':
        return [makeSlot(code, opcode.long ? { imm } : { off })];
      case 'may_goto':
        return [makeSlot(code, { off })];
      case 'call':
        return [
          makeSlot(code, opcode.source === 'register' ? { dst } : { imm, src: pick(0, 1, 2) }),
        ];
      case 'load':
        return [makeSlot(code, { dst, src, off })];
      case 'store':
        return [makeSlot(code, { dst, off, ...operand(opcode.source === 'register') })];
      case 'atomic': {
        const legal = ATOMIC.filter((row) => atomicOperation(row.imm, opcode.size));
        return [makeSlot(code, { dst, src, off, imm: pick(...legal).imm })];
      }
      case 'ld_imm64':
        return [makeSlot(code, { dst, imm }), makeSlot(0, { imm: high })];
      case 'packet_load':
        return [
          makeSlot(code, opcode.mode === 'abs' ? { imm: imm >>> 1 } : { src, imm: imm >>> 1 }),
        ];
      default:
        return [makeSlot(code)];
    }
  });

describe('disassemble and assemble', () => {
  it.each(LISTING)('%s is %s', (hex, text) => {
    expect(disassemble(hexToBytes(hex)).map((line) => line.text)).toEqual([text]);
    expect(bytesToHex(assemble(text))).toBe(hex);
  });

  it('reads back whatever it prints', () => {
    fc.assert(
      fc.property(fc.array(anySlots, { minLength: 1, maxLength: 8 }), (slots) => {
        const insns = encodeSlots(slots.flat());
        const text = disassemble(insns).map((line) => `${line.index}: ${line.text}`);
        expect(readSlots(assemble(text.join('\n')))).toEqual(readSlots(insns));
      }),
      { numRuns: 2000 },
    );
  });

  it('reads back the benchmark programs', () => {
    const file = new URL('../vectors/bpf/bench-programs.jsonl', import.meta.url);
    for (const line of readFileSync(file, 'utf8').trim().split('\n')) {
      const { insns_hex: hex } = JSON.parse(line) as { readonly insns_hex: string };
      const text = disassemble(hexToBytes(hex)).map((each) => each.text);
      expect(bytesToHex(assemble(text.join('\n')))).toBe(hex);
    }
  });

  it('takes labels, comments and names', () => {
    const insns = assemble(`
      ; counts to five
            r0 = 0
      loop: r0 += 1            // one more
            if r0 < 5 goto loop
            call bpf_ktime_get_ns#5
            call leaf
            gotol end
      leaf: *(u32 *)(r10 - 4) = 0xffffffff
      end:  exit`);
    expect(disassemble(insns).map((line) => line.text)).toEqual([
      '(b7) r0 = 0',
      '(07) r0 += 1',
      '(a5) if r0 < 0x5 goto pc-2',
      '(85) call helper#5',
      '(85) call pc+1',
      '(06) gotol pc+1',
      '(62) *(u32 *)(r10 -4) = -1',
      '(95) exit',
    ]);
  });

  it.each([
    ['w7 = *(u32 *)(r1 + 4)', '6117040000000000'],
    ['*(u16 *)(r1 + 0) = w3', '6b31000000000000'],
    ['r3 = 5000000000 ll', '1803000000f2052a0000000001000000'],
    ['r3 = xchg_64(r1 + 40, r3)', 'db312800e1000000'],
    ['w0 = cmpxchg32_32(r1 + 76, w0, w6)', 'c3614c00f1000000'],
    ['w3 = atomic_fetch_add((u32 *)(r1 + 56), w3)', 'c331380001000000'],
    ['lock *(u32 *)(r7 + 0) |= w6', 'c367000040000000'],
    ['if r1 s> -1 goto +3', '65010300ffffffff'],
  ])('reads llvm: %s', (text, hex) => {
    expect(bytesToHex(assemble(text))).toBe(hex);
  });

  it.each([
    ['w0 = *(u64 *)(r1 + 0)', "line 1: cannot assemble 'w0 = *(u64 *)(r1 + 0)'"],
    ['r0 = 1\nr0 ?= 2', "line 2: cannot assemble 'r0 ?= 2'"],
    ['goto nowhere', "line 1: no label 'nowhere'"],
    ['r1 += w2', "line 1: cannot assemble 'r1 += w2'"],
    ['r1 += 5000000000', "line 1: cannot assemble 'r1 += 5000000000'"],
    ['r1 = be16 r2', "line 1: cannot assemble 'r1 = be16 r2'"],
    ['*(s8 *)(r1 +0) = r2', "line 1: cannot assemble '*(s8 *)(r1 +0) = r2'"],
  ])('refuses %j', (text, message) => {
    expect(() => assemble(text)).toThrow(message);
  });

  it('uses names that it is given', () => {
    const insns = hexToBytes('850000000100000018010000000000100000000000800ff0');
    const lines = disassemble(insns, {
      call: ({ imm }) => (imm === 1 ? 'bpf_map_lookup_elem#1' : undefined),
      constant: () => 'map[id:7]',
    });
    expect(lines.map(({ text }) => text)).toEqual([
      '(85) call bpf_map_lookup_elem#1',
      '(18) r1 = map[id:7]',
    ]);
  });
});
