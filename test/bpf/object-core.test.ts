import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError, KernelError } from '../../src/common/errors.js';
import { helperBodies } from '../../src/bpf/helpers/table.js';
import { viewOf } from '../../src/common/bytes.js';
import { BtfBuilder } from '../../src/bpf/btf/builder.js';
import type { Btf } from '../../src/bpf/btf/btf.js';
import { CoreTarget } from '../../src/bpf/btf/core-match.js';
import { CORE_KIND, essentialName } from '../../src/bpf/btf/core-spec.js';
import { parseBtf } from '../../src/bpf/btf/parse.js';
import { declareUapiTypes } from '../../src/bpf/btf/uapi-types.js';
import { writeBtf } from '../../src/bpf/btf/write.js';
import { makeSlot, type Slot } from '../../src/bpf/instruction.js';
import { createInterpreter } from '../../src/bpf/interpreter.js';
import { POISON, relocateCore } from '../../src/bpf/object/core.js';
import { load } from '../../src/bpf/object/load.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { readVariable } from '../../src/bpf/object/variables.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { BPF_PROFILES } from '../../src/kernel/bpf/profile.js';
import { KernelTypes } from '../../src/kernel/bpf/types.js';
import { declareVirtioNetTypes } from '../../src/virtio/driver/types.js';
import { SK_BUFF } from '../../src/stack/skb.js';
import { XDP_BUFF } from '../../src/bpf/xdp-buff.js';

const read = (path: string): Uint8Array =>
  Uint8Array.from(readFileSync(new URL(`../vectors/${path}`, import.meta.url)));

const labTypes = new KernelTypes(BPF_PROFILES['6.12']);
labTypes.declare(declareVirtioNetTypes);

/** One relocation of `slots[0]`; the error's text when it is refused. */
function relocated(
  local: Btf,
  target: Btf,
  root: number | undefined,
  kind: keyof typeof CORE_KIND,
  access: string,
  slots: readonly Slot[],
): readonly Slot[] | string {
  const copy = slots.slice();
  const relocation = { offset: 0, type: root ?? 0, access, kind: CORE_KIND[kind] };
  try {
    relocateCore(
      copy,
      [relocation],
      local,
      () => new CoreTarget(target),
      () => 'here',
    );
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  return copy;
}

const loadOf = (code: number, off: number): Slot => makeSlot(code, { dst: 1, src: 2, off });
const number = (imm: number): Slot => makeSlot(0xb7, { dst: 1, imm });

describe('the types of the lab', () => {
  it('answer every kind of relocation of a compiled program', () => {
    const host = new PlainHost({ memorySize: 1 << 20 });
    const spec = parseObject(read('objects/kernel_types.o'));
    const object = load(spec, host, { kernelBtf: labTypes.btf });
    const xdp = host.allocate('xdp_buff', XDP_BUFF.size);
    host.memory.write32(xdp.address + BigInt(XDP_BUFF.frameSize), 4096);
    host.memory.write32(xdp.address + BigInt(XDP_BUFF.flags), 0xffffffff);
    const ctx = host.allocate('ctx', 16);
    host.memory.write64(ctx.address, xdp.address);
    const interpreter = createInterpreter(object.program('kernel_types').xlated, host);
    expect(interpreter.run(ctx.address)).toMatchObject({ kind: 'return', r0: 0n });
    const view = viewOf(readVariable(object, host.memory, 'result'));
    const results = Array.from({ length: 16 }, (_, i) => view.getUint32(4 * i, true));
    expect(results.slice(0, 4), 'rxq, ifindex, sizeof frame_sz, no_such_field').toEqual([
      32, 224, 4, 0,
    ]);
    expect(results.slice(4, 9), 'iphdr.version: byte, size, shifts; ifindex is signed').toEqual([
      0, 1, 56, 60, 1,
    ]);
    expect(results[9], 'sk_buff.cb[7]').toBe(Number(SK_BUFF.offset.cb) + 7);
    expect(results.slice(10, 15), 'in6_addr, nowhere, PASS, NEVER, sizeof xdp_buff').toEqual([
      1, 0, 2, 0, 56,
    ]);
    expect(results[15], 'read as u32, not as the u64 it was compiled to').toBe(4096);
    interpreter.close();
    object.free();
  });

  it('are the same after writing and reading', () => {
    for (const btf of [labTypes.btf, parseBtf(read('xdp/obj/core_reloc.min.btf'))]) {
      expect(parseBtf(writeBtf(btf)).types).toEqual(btf.types);
    }
    const object = parseObject(read('xdp/obj/globals_mix.o')).btf;
    if (!object) throw new Error('no BTF');
    expect(parseBtf(writeBtf(object)).types).toEqual(object.types);
  });

  it('are needed', () => {
    const host = new PlainHost({ memorySize: 1 << 16 });
    expect(() => load(parseObject(read('objects/kernel_types.o')), host)).toThrow(
      /ESRCH: CO-RE relocations need the BTF of the kernel/,
    );
    expect(host.memory.regions).toEqual([]);
  });
});

describe('a member that the kernel does not have', () => {
  const loadAlone = (name: string): unknown => {
    const spec = parseObject(read('objects/missing_member.o'));
    const programs = spec.programs.filter((program) => program.name === name);
    const host = new PlainHost({ memorySize: 1 << 20 });
    return load(spec, host, { kernelBtf: labTypes.btf, programs });
  };

  it('is named where it is read', () => {
    expect(() => loadAlone('reads')).toThrow(
      /^-EINVAL: invalid CO-RE relocation: the kernel has no struct xdp_buff\.no_such_member: program 'reads' insn \d+ \(missing_member\.c:12: return/,
    );
  });

  it('may be read where the program has made sure of it', () => {
    expect(loadAlone('asks')).toBeDefined();
  });
});

it('flavours are what follows three underscores', () => {
  for (const [name, essential] of [
    ['task_struct___old', 'task_struct'],
    ['task_struct', 'task_struct'],
    ['a___b___c', 'a___b'],
    ['___x', '___x'],
    ['a____b', 'a____b'],
    ['a___', 'a___'],
  ] as const) {
    expect(essentialName(name), name).toBe(essential);
  }
});

describe('relocating one instruction', () => {
  const local = new BtfBuilder()
    .struct('pair', 16, { a: ['u64', 0], b: ['u32', 8], s: ['int', 12] })
    .struct('list', 8, { items: ['u32[2]', 0] })
    .enum('color', { RED: 1 })
    .build();
  const target = new BtfBuilder()
    .struct('pair', 32, { b: ['u16', 2], a: ['u64', 24], s: ['long', 8] })
    .struct('list', 64, { pad: ['u64', 0], items: ['u32[4]', 8] })
    .enum('color', { GREEN: 1, RED: 7 })
    .build();
  const pair = local.find('struct', 'pair');
  const list = local.find('struct', 'list');
  const color = local.find('enum', 'color');

  it.each<[string, Parameters<typeof relocated>, readonly Slot[] | RegExp]>([
    [
      'a load',
      [local, target, pair, 'FIELD_BYTE_OFFSET', '0:0', [loadOf(0x79, 0)]],
      [loadOf(0x79, 24)],
    ],
    [
      'a load of a field that is narrower',
      [local, target, pair, 'FIELD_BYTE_OFFSET', '0:1', [loadOf(0x61, 8)]],
      [loadOf(0x69, 2)],
    ],
    [
      'a store',
      [local, target, pair, 'FIELD_BYTE_OFFSET', '0:1', [makeSlot(0x62, { off: 8, imm: 3 })]],
      [makeSlot(0x6a, { off: 2, imm: 3 })],
    ],
    [
      'a load of a signed field of another size',
      [local, target, pair, 'FIELD_BYTE_OFFSET', '0:2', [loadOf(0x61, 12)]],
      /4 bytes here, 8 in the kernel, and not both unsigned/,
    ],
    ['a number', [local, target, pair, 'FIELD_BYTE_OFFSET', '0:0', [number(0)]], [number(24)]],
    [
      'an element of an array',
      [local, target, list, 'FIELD_BYTE_OFFSET', '0:0:1', [number(4)]],
      [number(12)],
    ],
    [
      'the third of an array of structs',
      [local, target, pair, 'FIELD_BYTE_OFFSET', '2:1', [number(40)]],
      [number(66)],
    ],
    ['a size', [local, target, pair, 'TYPE_SIZE', '0', [number(16)]], [number(32)]],
    ['an enum value', [local, target, color, 'ENUMVAL_VALUE', '0', [number(1)]], [number(7)]],
    ['a match', [local, target, color, 'TYPE_MATCHES', '0', [number(1)]], [number(1)]],
    ['no match', [local, target, pair, 'TYPE_MATCHES', '0', [number(1)]], [number(0)]],
    [
      'a 64-bit constant',
      [local, target, color, 'ENUMVAL_VALUE', '0', [makeSlot(0x18, { imm: 1 }), makeSlot(0)]],
      [makeSlot(0x18, { imm: 7 }), makeSlot(0)],
    ],
    [
      'another number than the compiler put there',
      [local, target, pair, 'FIELD_BYTE_OFFSET', '0:1', [number(9)]],
      /struct pair\.b: the instruction holds 9, not 8/,
    ],
    [
      'a register operation',
      [local, target, pair, 'FIELD_BYTE_OFFSET', '0:1', [makeSlot(0x0f)]],
      /opcode 0x0f, which has nothing to relocate/,
    ],
    [
      'an access string that is none',
      [local, target, pair, 'FIELD_BYTE_OFFSET', '0:x', [number(0)]],
      /-EINVAL: here: CO-RE access '0:x'/,
    ],
    [
      'a member that is not there locally',
      [local, target, pair, 'FIELD_BYTE_OFFSET', '0:9', [number(0)]],
      /struct pair has 3 members/,
    ],
  ])('%s', (_name, args, expected) => {
    const result = relocated(...args);
    if (expected instanceof RegExp) expect(result).toMatch(expected);
    else expect(result).toEqual(expected);
  });

  it('poisons what must be there and is not', () => {
    const empty = new BtfBuilder().struct('pair', 0, {}).build();
    const poison = makeSlot(0x85, { imm: POISON });
    expect(relocated(local, empty, pair, 'FIELD_BYTE_OFFSET', '0:1', [loadOf(0x61, 8)])).toEqual([
      poison,
    ]);
    const wide = [makeSlot(0x18, { imm: 1 }), makeSlot(0)];
    expect(relocated(local, empty, color, 'ENUMVAL_VALUE', '0', wide)).toEqual([poison, poison]);
    expect(relocated(local, empty, pair, 'FIELD_EXISTS', '0:1', [number(1)])).toEqual([number(0)]);
  });

  it('refuses candidates that disagree', () => {
    const two = new BtfBuilder()
      .struct('pair', 8, { b: ['u32', 0] })
      .struct('pair___v2', 8, { b: ['u32', 4] })
      .build();
    expect(relocated(local, two, pair, 'FIELD_BYTE_OFFSET', '0:1', [number(8)])).toMatch(
      /struct pair\.b is ambiguous: BTF types \d+ and \d+ of the kernel give 0 and 4/,
    );
    const same = new BtfBuilder()
      .struct('pair', 8, { b: ['u32', 4] })
      .struct('pair___v2', 16, { b: ['u32', 4] })
      .build();
    expect(relocated(local, same, pair, 'FIELD_BYTE_OFFSET', '0:1', [number(8)])).toEqual([
      number(4),
    ]);
  });
});

it('damaged objects with CO-RE and externs are loaded or refused with one line', () => {
  const objects = ['objects/kernel_types.o', 'objects/externs.o', 'xdp/obj/core_reloc.o'].map(read);
  const host = new PlainHost({ helpers: helperBodies(), memorySize: 1 << 20 });
  const change = fc.record({ at: fc.nat({ max: 1 << 16 }), byte: fc.nat({ max: 255 }) });
  fc.assert(
    fc.property(
      fc.constantFrom(...objects),
      fc.array(change, { minLength: 1, maxLength: 4 }),
      (original, changes) => {
        const bytes = original.slice();
        for (const { at, byte } of changes) bytes[at % bytes.length] = byte;
        let message = '';
        try {
          load(parseObject(bytes), host, { kernelBtf: labTypes.btf }).free();
        } catch (error) {
          if (!(error instanceof InputError || error instanceof KernelError)) throw error;
          message = error.message;
        }
        expect(message).not.toContain('\n');
        expect(host.memory.regions).toEqual([]);
      },
    ),
    { numRuns: 300 },
  );
});

it('contexts and packet headers have the sizes of their C structs', () => {
  const btf = declareUapiTypes(new BtfBuilder()).build();
  for (const [name, size] of [
    ['xdp_md', 24],
    ['__sk_buff', 192],
    ['iphdr', 20],
    ['ipv6hdr', 40],
    ['tcphdr', 20],
  ] as const) {
    const id = btf.find('struct', name);
    const type = btf.at(id ?? 0);
    if (type.kind !== 'struct') throw new Error(`no struct ${name}`);
    expect(btf.sizeOf(id ?? 0), name).toBe(size);
    for (const { type: field, bitOffset, name: member } of type.members) {
      expect(bitOffset / 8 + btf.sizeOf(field), `${name}.${member}`).toBeLessThanOrEqual(size);
    }
  }
});
