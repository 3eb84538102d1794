import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { viewOf } from '../../src/common/bytes.js';
import { InputError } from '../../src/common/errors.js';
import type { Btf } from '../../src/bpf/btf/btf.js';
import { decodeValue } from '../../src/bpf/btf/value.js';
import { parseBtfExt } from '../../src/bpf/btf/ext.js';
import { parseBtf } from '../../src/bpf/btf/parse.js';
import {
  bpftoolPrototype,
  declaration,
  functionPrototype,
  typeName,
} from '../../src/bpf/btf/print.js';
import { readElf } from '../../src/bpf/object/elf.js';

/** Makes a BTF section: types as [name, kind, vlen, kind flag, size or type, ...words]. */
function makeBtf(rows: readonly (readonly [string, number, number, boolean, ...number[]])[]) {
  const strings: number[] = [0];
  const words: number[] = [];
  const stringAt = (text: string): number => {
    if (text === '') return 0;
    const at = strings.length;
    strings.push(...new TextEncoder().encode(text), 0);
    return at;
  };
  for (const [name, kind, vlen, flag, ...rest] of rows) {
    words.push(stringAt(name), ((flag ? 1 << 31 : 0) | (kind << 24) | vlen) >>> 0, ...rest);
  }
  const bytes = new Uint8Array(24 + 4 * words.length + strings.length);
  const view = viewOf(bytes);
  view.setUint16(0, 0xeb9f, true);
  view.setUint8(2, 1);
  view.setUint32(4, 24, true);
  view.setUint32(12, 4 * words.length, true);
  view.setUint32(16, 4 * words.length, true);
  view.setUint32(20, strings.length, true);
  for (const [i, word] of words.entries()) view.setUint32(24 + 4 * i, word >>> 0, true);
  bytes.set(strings, 24 + 4 * words.length);
  return bytes;
}

const INT = ['int', 1, 0, false, 4, (1 << 24) | 32] as const;
const CHAR = ['char', 1, 0, false, 1, (1 << 24) | 8] as const;

describe('parseBtf', () => {
  it('reads every kind', () => {
    const btf = parseBtf(
      makeBtf([
        INT, // 1
        ['', 2, 0, false, 1], // 2 int *
        ['', 3, 0, false, 0, 1, 1, 7], // 3 int[7]
        ['s', 4, 2, false, 12, 0, 1, 0, 0, 1, 32], // 4
        ['bits', 4, 1, true, 4, 0, 1, (3 << 24) | 5], // 5
        ['u', 5, 1, false, 4, 0, 1, 0], // 6
        ['e', 6, 1, true, 4, 0, 0xffffffff], // 7
        ['f', 7, 0, true, 0], // 8 union f
        ['t', 8, 0, false, 4], // 9
        ['', 9, 0, false, 9], // 10 volatile t
        ['', 10, 0, false, 1], // 11 const int
        ['', 11, 0, false, 2], // 12 int *restrict
        ['', 13, 2, false, 1, 0, 2, 0, 0], // 13 int (int *, ...)
        ['fn', 12, 1, false, 13], // 14
        ['v', 14, 0, false, 3, 1], // 15
        ['.data', 15, 1, false, 28, 15, 0, 28], // 16
        ['double', 16, 0, false, 8], // 17
        ['tag', 17, 0, false, 14, 0xffffffff], // 18
        ['user', 18, 0, false, 1], // 19
        ['big', 19, 1, false, 8, 0, 1, 2], // 20
        ['neg', 19, 1, true, 8, 0, 0xfffffffe, 0xffffffff], // 21
      ]),
    );
    expect(btf.types.map(({ kind }) => kind).join(' ')).toBe(
      'void int ptr array struct struct union enum fwd typedef volatile const restrict func_proto ' +
        'func var datasec float decl_tag type_tag enum64 enum64',
    );
    expect(btf.at(5)).toMatchObject({ members: [{ bitOffset: 5, bitSize: 3 }] });
    expect(btf.at(7)).toMatchObject({ signed: true, values: [{ value: -1n }] });
    expect(btf.at(20)).toMatchObject({ values: [{ value: 0x2_0000_0001n }] });
    expect(btf.at(21)).toMatchObject({ values: [{ value: -2n }] });
    expect(btf.at(18)).toMatchObject({ name: 'tag', type: 14, componentIndex: -1 });
    expect(btf.at(14)).toMatchObject({ name: 'fn', linkage: 'global' });
    expect([2, 3, 4, 9, 10, 15, 16, 17].map((id) => btf.sizeOf(id))).toEqual([
      8, 28, 12, 12, 12, 28, 28, 8,
    ]);
    expect(btf.find('typedef', 't')).toBe(9);
    expect(btf.find('struct', 't')).toBeUndefined();
    expect(() => btf.sizeOf(14)).toThrow('BTF type 14 (func) has no size');
    expect([10, 11, 12, 14, 18].map((id) => typeName(btf, id))).toEqual([
      'volatile t',
      'const int',
      'int *restrict',
      'int fn(int *, ...)',
      'int fn(int *, ...)',
    ]);
  });

  it.each<[string, Uint8Array, string | RegExp]>([
    ['short', new Uint8Array(10), 'BTF cut: 10 bytes, its header needs 24'],
    ['magic', new Uint8Array(24), 'BTF has magic 0x0, not 0xeb9f'],
    ['reference', makeBtf([['', 2, 0, false, 9]]), 'BTF type 1 (ptr) refers to type 9 of 1'],
    ['kind', makeBtf([['', 25, 0, false, 0]]), 'BTF type 1 has unknown kind 25'],
    ['vlen', makeBtf([['s', 4, 9, false, 4]]), 'BTF cut in type 1: 120 bytes needed, 12 left'],
    [
      'cut',
      makeBtf([INT]).slice(0, 30),
      /^BTF cut: strings need bytes 40\.\.45, the section has 30$/,
    ],
  ])('refuses: %s', (_, bytes, expected) => {
    expect(() => parseBtf(bytes)).toThrow(expected);
    expect(() => parseBtf(bytes)).toThrow(InputError);
  });

  it.each([
    ['const of itself', makeBtf([['', 10, 0, false, 1]])],
    ['array of itself', makeBtf([['', 3, 0, false, 0, 1, 1, 2]])],
    ['pointer to itself', makeBtf([['', 2, 0, false, 1]])],
  ])('follows no circle: %s', (name, bytes) => {
    const btf = parseBtf(bytes);
    if (!name.startsWith('pointer')) expect(() => btf.sizeOf(1)).toThrow(/refers to itself/);
    expect(() => typeName(btf, 1)).toThrow(/refers to itself/);
  });
});

it('is not caught by types that branch into themselves', () => {
  const self = makeBtf([
    ['', 2, 0, false, 2], // 1 pointer to 2
    ['', 13, 3, false, 1, 0, 1, 0, 1, 0, 1], // 2 function of three 1, returning 1
    ['s', 4, 3, false, 8, 0, 3, 0, 0, 3, 0, 0, 3, 0], // 3 struct of three of itself
    ['f', 12, 1, false, 2], // 4
  ]);
  const btf = parseBtf(self);
  expect(() => typeName(btf, 2)).toThrow(/refers to itself/);
  expect(() => bpftoolPrototype(btf, 4)).toThrow(/refers to itself/);
  expect(() => decodeValue(btf, 3, new Uint8Array(8))).toThrow(/refers to itself/);
});

describe('C text', () => {
  const btf: Btf = parseBtf(
    makeBtf([
      INT, // 1
      CHAR, // 2
      ['', 10, 0, false, 2], // 3 const char
      ['', 2, 0, false, 3], // 4 const char *
      ['', 10, 0, false, 4], // 5 const char *const
      ['', 3, 0, false, 0, 4, 1, 3], // 6 const char *[3]
      ['', 2, 0, false, 6], // 7 const char *(*)[3]
      ['', 13, 1, false, 1, 0, 4], // 8 int (const char *)
      ['', 2, 0, false, 8], // 9 int (*)(const char *)
      ['', 3, 0, false, 0, 9, 1, 2], // 10 int (*[2])(const char *)
      ['', 2, 0, false, 0], // 11 void *
      ['', 4, 0, false, 0], // 12 struct (anon)
      ['xdp_md', 4, 0, false, 24], // 13
      ['', 2, 0, false, 13], // 14 struct xdp_md *
      ['', 13, 0, false, 0], // 15 void (void)
      ['nothing', 12, 0, false, 15], // 16
      ['state', 6, 0, false, 4], // 17
      ['', 3, 0, false, 0, 18, 1, 2], // 18 refers to itself: not printed here
    ]).slice(),
  );

  it.each([
    [3, 'const char x'],
    [4, 'const char *x'],
    [5, 'const char *const x'],
    [6, 'const char *x[3]'],
    [7, 'const char *(*x)[3]'],
    [9, 'int (*x)(const char *)'],
    [10, 'int (*x[2])(const char *)'],
    [11, 'void *x'],
    [12, 'struct (anon) x'],
    [17, 'enum state x'],
  ])('type %i is %s', (id, text) => {
    expect(declaration(btf, id, 'x')).toBe(text);
    expect(typeName(btf, id)).toBe(text.replace(/ ?x(?=$|\[|\))/, ''));
  });

  it('prints prototypes as C and as bpftool does', () => {
    expect(functionPrototype(btf, 16)).toBe('void nothing(void)');
    expect(bpftoolPrototype(btf, 16)).toBe('void nothing(void)');
    expect(() => functionPrototype(btf, 1)).toThrow('BTF type 1 is a int, not a func');
  });
});

describe('decodeValue', () => {
  const btf = parseBtf(
    makeBtf([
      ['int', 1, 0, false, 4, (1 << 24) | 32], // 1
      ['char', 1, 0, false, 1, (1 << 24) | 8], // 2
      ['u64', 1, 0, false, 8, 64], // 3
      ['_Bool', 1, 0, false, 1, (4 << 24) | 8], // 4
      ['', 3, 0, false, 0, 2, 1, 6], // 5 char[6]
      ['', 3, 0, false, 0, 1, 1, 2], // 6 int[2]
      ['color', 6, 2, true, 4, 0, 0xffffffff, 0, 1], // 7 enum, values without names
      ['', 5, 2, false, 4, 0, 1, 0, 0, 2, 0], // 8 union of two nameless members
      ['flags', 4, 2, true, 4, 0, 1, (3 << 24) | 2, 0, 1, (5 << 24) | 5], // 9 bit fields
      ['', 2, 0, false, 1], // 10
      ['double', 16, 0, false, 8], // 11
    ]),
  );
  it.each<[number, number[], unknown]>([
    [1, [0xfe, 255, 255, 255], -2],
    [2, [200], -56],
    [3, [1, 0, 0, 0, 0, 0, 0, 0], 1],
    [3, [255, 255, 255, 255, 255, 255, 255, 255], 0xffff_ffff_ffff_ffffn],
    [4, [1], true],
    [5, [104, 105, 0, 0, 0, 0], 'hi'],
    [5, [200, 105, 0, 0, 0, 1], [-56, 105, 0, 0, 0, 1]],
    [6, [1, 0, 0, 0, 2, 0, 0, 0], [1, 2]],
    [7, [5, 0, 0, 0], 5],
    [10, [0, 0, 0, 0, 0, 128, 255, 255], 0xffff_8000_0000_0000n],
    [11, [0, 0, 0, 0, 0, 0, 240, 63], '000000000000f03f'],
  ])('type %i of %j is %o', (type, bytes, expected) => {
    expect(decodeValue(btf, type, Uint8Array.from(bytes))).toEqual(expected);
  });

  it('takes bit fields apart', () => {
    // bits 2-4 and 5-9, both signed, both called "": the later one stays
    expect(decodeValue(btf, 9, Uint8Array.of(0b0110_0000, 0b10, 0, 0))).toEqual({ '': -13 });
  });

  it('refuses too few bytes', () => {
    expect(() => decodeValue(btf, 3, new Uint8Array(7))).toThrow(
      'BTF type 3 needs 8 bytes, there are 7',
    );
  });
});

describe('an object of clang', () => {
  const file = readFileSync(new URL('../../examples/xdp/vlan_ipv6.o', import.meta.url));
  const section = (name: string): Uint8Array =>
    Uint8Array.from(readElf(file).sections.find((each) => each.name === name)?.bytes ?? []);
  const btfBytes = section('.BTF');
  const extBytes = section('.BTF.ext');
  const btf = parseBtf(btfBytes);

  it('has prototypes, sizes and source lines', () => {
    const ext = parseBtfExt(extBytes, btf);
    const main = ext.functions.get('xdp')?.[0]?.type ?? 0;
    expect(functionPrototype(btf, main)).toBe('int vlan_ipv6(struct xdp_md *ctx)');
    expect(bpftoolPrototype(btf, main)).toBe('int vlan_ipv6(struct xdp_md * ctx)');
    const sub = ext.functions.get('.text')?.[0]?.type ?? 0;
    expect(functionPrototype(btf, sub)).toBe(
      'int upper_protocol(struct xdp_md *ctx, u32 offset, u8 next, u32 *upper)',
    );
    expect(btf.sizeOf(btf.find('struct', 'xdp_md') ?? 0)).toBe(24);
    const texts = ext.lines.get('.text')?.map(({ text }) => text.trim());
    expect(texts).toContain('extension_headers++;');
    expect(ext.lines.get('xdp')?.every(({ line, column }) => line >= 0 && column >= 0)).toBe(true);
  });

  it('survives any damage with a result or an InputError', () => {
    const attempt = (bytes: Uint8Array, ext: Uint8Array): void => {
      try {
        const damaged = parseBtf(bytes);
        parseBtfExt(ext, damaged);
        for (const id of damaged.types.keys()) {
          typeName(damaged, id);
          if (damaged.sizeOf(id) < 4096) decodeValue(damaged, id, new Uint8Array(4096));
        }
      } catch (error) {
        expect(error).toBeInstanceOf(InputError);
      }
    };
    const changes = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 });
    fc.assert(
      fc.property(changes, changes, fc.nat(), (inBtf, inExt, length) => {
        const [bytes, ext] = [btfBytes.slice(), extBytes.slice()];
        for (const [where, value] of inBtf) bytes[where % bytes.length] = value;
        for (const [where, value] of inExt) ext[where % ext.length] = value;
        attempt(bytes, ext);
        attempt(bytes.subarray(0, length % bytes.length), ext);
        attempt(btfBytes, ext.subarray(0, length % ext.length));
      }),
      { numRuns: 400 },
    );
  });
});
