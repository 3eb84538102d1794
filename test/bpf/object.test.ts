import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { viewOf } from '../../src/common/bytes.js';
import { InputError, KernelError } from '../../src/common/errors.js';
import { helperBodies } from '../../src/bpf/helpers/table.js';
import { readElf } from '../../src/bpf/object/elf.js';
import { load } from '../../src/bpf/object/load.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { attachmentOf } from '../../src/bpf/object/sections.js';
import { selectProgram } from '../../src/bpf/object/select.js';
import type { ObjectSpec } from '../../src/bpf/object/spec.js';
import { PlainHost } from '../../src/bpf/plain-host.js';

const read = (path: string): Uint8Array =>
  Uint8Array.from(readFileSync(new URL(`../../${path}`, import.meta.url)));
const counter = read('examples/xdp/count_protocols.o');
const vlan = read('examples/xdp/vlan_ipv6.o');
const globals = read('test/vectors/xdp/obj/globals_mix.o');
const tails = read('test/vectors/xdp/obj/tail_chain.o');

/** The one-line message of what `action` refuses; anything but the two error classes fails the test. */
function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (!(error instanceof InputError || error instanceof KernelError)) throw error;
    expect(error.message).not.toContain('\n');
    return error.message;
  }
  return 'accepted';
}

const makeHost = (): PlainHost => new PlainHost({ helpers: helperBodies(), memorySize: 1 << 20 });

/** Loads, and checks that nothing stays allocated, whether it works or not. */
function tryLoad(spec: ObjectSpec, host: PlainHost = makeHost()): string {
  const message = refusal(() => load(spec, host).free());
  expect(host.memory.regions).toEqual([]);
  return message;
}

describe('parseObject', () => {
  it('finds programs, maps, license and source lines', () => {
    const spec = parseObject(counter, { name: 'some/dir/count_protocols.o' });
    expect(spec.name).toBe('count_protocols');
    expect(spec.license).toBe('GPL');
    expect(spec.programs).toEqual([
      {
        name: 'count_protocols',
        section: 'xdp',
        kind: 'xdp',
        frags: false,
        sleepable: false,
        xdpAttach: 'device',
        functionIndex: 0,
      },
    ]);
    expect(spec.maps).toMatchObject([
      { name: 'counters', type: 6, keySize: 4, valueSize: 16, maxEntries: 256, flags: 0 },
    ]);
    const [main] = spec.functions;
    expect(main?.relocations).toMatchObject([{ kind: 'map', map: 'counters' }]);
    expect(main?.lines[0]).toMatchObject({ slot: 0 });
    expect(main?.lines.map(({ text }) => text.trim())).toContain('counter->packets++;');
    expect(main?.lines.every(({ file }) => file.endsWith('count_protocols.c'))).toBe(true);
  });

  it('finds subprograms and global data with their variables', () => {
    const spec = parseObject(vlan, { name: 'vlan_ipv6.o' });
    expect(spec.functions.map(({ name, isStatic }) => [name, isStatic])).toEqual([
      ['upper_protocol', true],
      ['vlan_ipv6', false],
    ]);
    expect(spec.maps.map(({ name, section }) => [name, section])).toEqual([
      ['vlan_ipv.rodata', '.rodata'],
      ['vlan_ipv.data', '.data'],
      ['vlan_ipv.bss', '.bss'],
    ]);
    const [rodata, data] = spec.maps;
    expect(data?.variables).toMatchObject([{ name: 'last_port', offset: 0, size: 2 }]);
    expect(data?.data).toEqual(Uint8Array.of(0xff, 0xff));
    expect(rodata?.data?.slice(0, 2)).toEqual(Uint8Array.of(666 & 255, 666 >> 8));
    const main = spec.functions[1];
    expect(main?.relocations.filter(({ kind }) => kind === 'call')).toMatchObject([{ callee: 0 }]);
  });

  it('keeps several programs and sections apart', () => {
    const spec = parseObject(tails, { name: 'tail_chain.o' });
    expect(spec.programs.map(({ name }) => name)).toEqual([
      'chain_entry',
      'chain_v4',
      'chain_v6',
      'chain_tcp',
      'chain_udp',
    ]);
    const custom = parseObject(globals, { name: 'globals_mix' });
    expect(custom.maps.map(({ name }) => name)).toEqual([
      'globals_.data',
      'globals_.rodata',
      '.data.extra',
      '.rodata.cst32',
      'globals_.bss',
    ]);
  });

  it.each([
    ['xdp', { kind: 'xdp', frags: false }],
    ['xdp.frags', { kind: 'xdp', frags: true }],
    ['xdp/devmap', { kind: 'xdp', xdpAttach: 'devmap' }],
    ['xdp.frags/cpumap', { kind: 'xdp', frags: true, xdpAttach: 'cpumap' }],
    ['fentry/bpf_fentry_test1', { kind: 'fentry', attachTarget: 'bpf_fentry_test1' }],
    ['fexit.s/vfs_read', { kind: 'fexit', attachTarget: 'vfs_read', sleepable: true }],
    ['fmod_ret/security_file_open', { kind: 'fmod_ret', attachTarget: 'security_file_open' }],
    ['tc', { kind: 'tc' }],
    ['socket', { kind: 'socket' }],
    ['kprobe/vfs_read+0x8', { kind: 'kprobe', attachTarget: 'vfs_read+0x8' }],
    ['kretprobe', { kind: 'kretprobe' }],
    ['kprobe.multi/vfs_*', { kind: 'kprobe_multi', attachTarget: 'vfs_*' }],
    ['kretprobe.multi/vfs_*', { kind: 'kretprobe_multi', attachTarget: 'vfs_*' }],
    ['uprobe/bash', { kind: 'unsupported' }],
    ['xdping', { kind: 'unsupported' }],
  ])('section %s', (section, expected) => {
    expect(attachmentOf(section)).toMatchObject(expected);
  });
});

describe('selectProgram', () => {
  const spec = parseObject(tails);
  it('takes the only program, or the named one', () => {
    expect(selectProgram(parseObject(counter)).name).toBe('count_protocols');
    expect(selectProgram(spec, 'chain_v6').name).toBe('chain_v6');
  });
  it.each([
    [undefined, /^the object has 5 programs, name one of: chain_entry \(xdp\), chain_v4/],
    ['chain_v7', /^the object has no program 'chain_v7', but: chain_entry/],
    ['xdp', /^section 'xdp' has 5 programs, name one of:/],
  ])('%s: says what there is', (name, expected) => {
    expect(refusal(() => selectProgram(spec, name))).toMatch(expected);
  });
});

describe('load', () => {
  it('relocates maps, data and calls to addresses', () => {
    const host = makeHost();
    const object = load(parseObject(vlan, { name: 'vlan_ipv6' }), host);
    const { xlated, functions } = object.program('vlan_ipv6');
    expect(xlated.type).toBe('xdp');
    expect(xlated.functions.map(({ name }) => name)).toEqual(['vlan_ipv6', 'upper_protocol']);
    const call = callOf(xlated.functions[0].insns);
    expect(call).toEqual({ src: 1, off: 1 });
    // every 64-bit constant lies in one of the data maps
    const regions = [...object.maps.values()].map(({ valueAddress, spec }) => ({
      start: valueAddress,
      end: valueAddress + BigInt(spec.valueSize),
    }));
    for (const constant of constantsOf(xlated.functions[0].insns)) {
      expect(regions.some(({ start, end }) => constant >= start && constant < end)).toBe(true);
    }
    expect(functions[0]?.lines.at(-1)?.slot).toBeLessThan(xlated.functions[0].insns.length / 8);
    object.free();
    expect(host.memory.regions).toEqual([]);
  });

  it('keeps source lines on their instructions when slots move', () => {
    const object = load(parseObject(counter), makeHost());
    const { xlated, functions, spec } = object.program('count_protocols');
    const before = object.spec.functions[spec.functionIndex];
    // data and data_end loads become one instruction each; the look-up in slot 24 becomes nine
    const [main] = xlated.functions;
    expect(main.inlined).toMatchObject([{ first: 24, length: 9, at: 25 }]);
    expect(main.insns.length).toBe((before?.insns.length ?? 0) + 8 * 8);
    expect(functions[0]?.lines.map(({ slot }) => slot)).toEqual(
      before?.lines.map(({ slot }) => (slot > 24 ? slot + 8 : slot)),
    );
  });

  it('can change a map before it is made', () => {
    const object = load(parseObject(counter), makeHost(), {
      adjustMap: (map) => ({ ...map, maxEntries: 300 }),
    });
    expect(object.maps.get('counters')?.spec.maxEntries).toBe(300);
    expect(refusal(() => object.program('nobody'))).toBe("program 'nobody' is not loaded");
  });
});

describe('less usual objects', () => {
  it('values of a map of devices: programs read them only', () => {
    const spec = parseObject(read('test/vectors/objects/device_maps.o'));
    const alone = (name: string): ObjectSpec => ({
      ...spec,
      programs: spec.programs.filter((program) => program.name === name),
    });
    expect(tryLoad(alone('reads'))).toBe('accepted');
    expect(tryLoad(alone('writes'))).toMatch(/^-EACCES: .*program 'writes'.*device_maps\.c:18: /);
  });

  const object = (name: string): ObjectSpec =>
    parseObject(read(`test/vectors/objects/${name}.o`), { name });

  it('takes map definitions from before BTF', () => {
    const spec = object('legacy_maps');
    expect(spec.license).toBe('Dual BSD/GPL');
    expect(spec.maps).toMatchObject([
      { name: 'first', type: 2, keySize: 4, valueSize: 8, maxEntries: 2, flags: 0 },
      { name: 'second', type: 1, keySize: 8, valueSize: 16, maxEntries: 5, flags: 1 },
    ]);
    const loaded = load(spec, makeHost());
    const addresses = [...loaded.maps.values()].map(({ address }) => address);
    expect(constantsOf(loaded.program('legacy').xlated.functions[0].insns)).toEqual(addresses);
  });

  it('refuses a kernel function by its name, but loads what does not need it', () => {
    const spec = object('kfunc');
    expect(tryLoad(spec)).toBe(
      "-EINVAL: metadata kfuncs require device-bound program: program 'uses_kfunc' insn 7 (kfunc.c:15: return bpf_xdp_metadata_rx_hash(ctx, &hash, &type) ? XDP_ABORTED : XDP_PASS;)",
    );
    const empty = new PlainHost();
    expect(() => load(spec, empty)).toThrow(
      /^-ESRCH: extern 'bpf_xdp_metadata_rx_hash' \(__ksym\): the kernel has no such function: function 'uses_kfunc' insn 7 /,
    );
    expect(spec.notes).toEqual([
      "map 'pinned': pinning is ignored",
      "section '.data': 2 pointers in it are not relocated",
    ]);
    expect(spec.maps[0]).toMatchObject({ name: 'pinned', keySize: 4, valueSize: 24, keyType: 0 });
    const only = load(spec, makeHost(), { programs: [selectProgram(spec, 'plain')] });
    expect(only.programs.map(({ xlated }) => xlated.name)).toEqual(['plain']);
  });

  it('links callbacks, global and static functions once each, and follows the context into them', () => {
    const helpers = new Map([[181, () => {}]]);
    const loaded = load(object('callback'), new PlainHost({ helpers, memorySize: 1 << 16 }), {
      // adding an unknown index makes a packet pointer whose range has not been checked
      check: false,
    });
    const { functions } = loaded.program('sum_bytes').xlated;
    expect(functions.map(({ name }) => name)).toEqual([
      'sum_bytes',
      'add_byte',
      'four_times',
      'twice',
    ]);
    // ld_imm64 with source 4, the callee's index in the second slot's off
    const main = viewOf(functions[0].insns);
    const at =
      Array.from({ length: 16 }, (_, i) => 8 * i).find((i) => main.getUint8(i) === 0x18) ?? 0;
    expect([main.getUint8(at + 1) >> 4, main.getInt16(at + 10, true)]).toEqual([4, 1]);
    // walk->ctx->data and data_end: the loads through the context have become u64 loads
    const callback = functions[1]?.insns ?? new Uint8Array(0);
    const loads = Array.from({ length: callback.length / 8 }, (_, i) => callback[8 * i]);
    expect(loads.filter((code) => code === 0x79)).toHaveLength(3);
  });
});

function callOf(insns: Uint8Array): { src: number; off: number } | undefined {
  const view = viewOf(insns);
  for (let at = 0; at < insns.length; at += 8) {
    const src = view.getUint8(at + 1) >> 4;
    if (view.getUint8(at) === 0x85 && src === 1) return { src, off: view.getInt16(at + 2, true) };
  }
  return undefined;
}

function constantsOf(insns: Uint8Array): bigint[] {
  const view = viewOf(insns);
  const constants: bigint[] = [];
  for (let at = 0; at < insns.length; at += 8) {
    if (view.getUint8(at) !== 0x18) continue;
    const high = BigInt(view.getUint32(at + 12, true)) << 32n;
    constants.push(high | BigInt(view.getUint32(at + 4, true)));
    at += 8;
  }
  return constants;
}

/** A copy with bytes changed. */
function changed(
  bytes: Uint8Array,
  change: (view: DataView, copy: Uint8Array) => void,
): Uint8Array {
  const copy = bytes.slice();
  change(viewOf(copy), copy);
  return copy;
}

/** Offset in the file of the contents of a section. */
function contentsOf(bytes: Uint8Array, name: string): number {
  const section = readElf(bytes).sections.find((each) => each.name === name);
  if (!section) throw new Error(`no section ${name}`);
  return section.bytes.byteOffset - bytes.byteOffset;
}

/** The object with one u8 of a function's instruction changed. */
function withCode(bytes: Uint8Array, slot: number, byte: number, value: number): Uint8Array {
  const at = contentsOf(bytes, 'xdp') + 8 * slot + byte;
  return changed(bytes, (view) => view.setUint8(at, value));
}

/** The object with a section renamed in place: its name keeps its length. */
function renamed(bytes: Uint8Array, from: string, to: string): Uint8Array {
  const { sections } = readElf(bytes);
  const index = sections.findIndex(({ name }) => name === from);
  const headers = Number(viewOf(bytes).getBigUint64(40, true));
  const names = sections[viewOf(bytes).getUint16(62, true)];
  if (!names) throw new Error('no section names');
  const offset = viewOf(bytes).getUint32(headers + 64 * index, true);
  const at = names.bytes.byteOffset - bytes.byteOffset + offset;
  return changed(bytes, (_, copy) => copy.set(new TextEncoder().encode(to), at));
}

describe('bad objects, each with one clear line', () => {
  it.each<[string, Uint8Array, RegExp | string]>([
    ['empty file', new Uint8Array(0), 'not an ELF object: the file is empty'],
    ['text', new TextEncoder().encode('#!/bin/sh\n'), /^not an ELF object: it does not start with/],
    [
      'x86-64 object',
      changed(counter, (view) => view.setUint16(18, 62, true)),
      'object is for machine 62 (x86-64), not 247 (BPF)',
    ],
    ['big-endian', changed(counter, (view) => view.setUint8(5, 2)), /^object is big-endian/],
    ['32-bit', changed(counter, (view) => view.setUint8(4, 1)), /^object is ELF class 1, not 2/],
    [
      'executable',
      changed(counter, (view) => view.setUint16(16, 2, true)),
      'object has ELF type 2, not 1 (relocatable)',
    ],
    [
      'header only',
      counter.slice(0, 40),
      'object cut in its ELF header: 64 bytes needed, 40 there',
    ],
    [
      'half a file',
      counter.slice(0, counter.length >> 1),
      /^object cut: section headers need bytes \d+\.\.\d+, the file has \d+$/,
    ],
    [
      'no BTF',
      renamed(counter, '.BTF', '.btf'),
      /^object has no \.BTF section, which its '\.maps' needs/,
    ],
    [
      'all in .text',
      renamed(renamed(vlan, '.text', '.tex_'), 'xdp', '.te'),
      /program '.*'|relocation/,
    ],
  ])('%s', (_, bytes, expected) => {
    const message = refusal(() => tryLoad(parseObject(bytes)));
    if (typeof expected === 'string') expect(message).toBe(expected);
    else expect(refusal(() => load(parseObject(bytes), makeHost()))).toMatch(expected);
  });

  it('no programs', () => {
    // without its executable flag the section holds no functions
    const { sections } = readElf(counter);
    const index = sections.findIndex(({ name }) => name === 'xdp');
    const headers = Number(viewOf(counter).getBigUint64(40, true));
    const bytes = changed(counter, (view) => view.setUint8(headers + 64 * index + 8, 2));
    expect(refusal(() => parseObject(bytes))).toBe(
      'object has no programs: no executable section has a function',
    );
  });

  it('undefined symbol', () => {
    const { symbols } = readElf(counter);
    const index = symbols.findIndex(({ name }) => name === 'counters');
    const at = contentsOf(counter, '.symtab') + 24 * index + 6;
    const bytes = changed(counter, (view) => view.setUint16(at, 0, true));
    expect(refusal(() => parseObject(bytes))).toMatch(
      /^function 'count_protocols' insn \d+: relocation to undefined symbol 'counters'$/,
    );
  });

  const spec = parseObject(counter);
  const withMap = (change: Partial<ObjectSpec['maps'][number]>): ObjectSpec => ({
    ...spec,
    maps: spec.maps.map((map) => ({ ...map, ...change })),
  });

  it.each([
    ['type 99', withMap({ type: 99 }), "map 'counters': unknown map type 99"],
    ['type 33', withMap({ type: 33 }), "map 'counters': map type 33 (ARENA) is not supported"],
    ['type 7', withMap({ type: 7 }), /^-EINVAL: cannot pass map_type STACK_TRACE into func /],
    ['key size', withMap({ keySize: 8 }), /^-EINVAL: map counters: key size 8/],
    ['too large', withMap({ maxEntries: 1 << 30 }), /^-(ENOMEM|E2BIG): /],
    [
      'section',
      { ...spec, programs: spec.programs.map((p) => ({ ...p, kind: 'unsupported' as const })) },
      "program 'count_protocols': section 'xdp' is not supported",
    ],
  ])('map or program: %s', (_, bad, expected) => {
    const message = tryLoad(bad);
    if (typeof expected === 'string') expect(message).toBe(expected);
    else expect(message).toMatch(expected);
  });

  const last = (counterMain().insns.length >> 3) - 1;
  it.each<[string, Uint8Array, RegExp]>([
    [
      'jump out of range',
      withCode(counter, last - 1, 0, 0x05),
      /^-EINVAL: jump out of range from insn \d+ to \d+: program 'count_protocols' insn \d+ \(/,
    ],
    [
      'missing exit',
      withCode(counter, last, 0, 0xb7),
      /^-EINVAL: last insn is not an exit or jmp: program 'count_protocols' insn \d+/,
    ],
    [
      'unknown opcode',
      withCode(counter, 0, 0, 0xff),
      /^-EINVAL: unknown opcode ff: program 'count_protocols' insn 0/,
    ],
    [
      'unknown helper',
      unknownHelper(),
      /^-EINVAL: unknown func bpf_user_ringbuf_drain#209: program 'count_protocols' insn \d+ \(count_protocols\.c:\d+: /,
    ],
    [
      'context offset',
      withCode(counter, 1, 2, 2),
      /^-EACCES: invalid bpf_context access off=2 size=4: program 'count_protocols' insn 1 \(count_protocols\.c:\d+: void \*/,
    ],
  ])('%s', (_, bytes, expected) => {
    const bad = parseObject(jumpFar(bytes, expected, last - 1));
    expect(tryLoad(bad)).toMatch(expected);
  });

  function counterMain() {
    const [main] = parseObject(counter).functions;
    if (!main) throw new Error('no function');
    return main;
  }

  function unknownHelper(): Uint8Array {
    const insns = counterMain().insns;
    let slot = 0;
    while (insns[8 * slot] !== 0x85) slot++;
    return withCode(counter, slot, 4, 209);
  }

  /** For the jump: a distance that leaves the program. */
  function jumpFar(bytes: Uint8Array, expected: RegExp, slot: number): Uint8Array {
    return expected.source.includes('jump out') ? withCode(bytes, slot, 2, 100) : bytes;
  }

  it("takes the kernel's word for a context offset", () => {
    const reject = parseObject(read('test/vectors/xdp/obj/reject_ctx_offset.o'));
    expect(tryLoad(reject)).toBe(
      '-EACCES: invalid bpf_context access off=36 size=4: program \'ctx_offset\' insn 0 (ctx_offset.c:3: SEC("xdp") int ctx_offset(struct xdp_md *ctx) { return ((u32 *)ctx)[9] & 3; }) [R1=ctx() R10=fp0]',
    );
  });
});

describe('damaged objects', () => {
  const host = makeHost();
  const objects = [counter, vlan, globals, tails, read('examples/tracing/call_record.o')];

  it('every prefix is refused with one line', () => {
    for (const bytes of objects.slice(0, 2)) {
      for (let length = 0; length < bytes.length; length += length < 100 ? 1 : 13) {
        expect(refusal(() => parseObject(bytes.subarray(0, length)))).not.toBe('accepted');
      }
    }
  });

  it('any change is loaded or refused with one line, and leaves nothing', () => {
    const change = fc.tuple(fc.nat(), fc.oneof(fc.nat(255), fc.constantFrom(0, 0x7f, 0x80, 0xff)));
    fc.assert(
      fc.property(
        fc.constantFrom(...objects),
        fc.array(change, { minLength: 1, maxLength: 6 }),
        (original, changes) => {
          const bytes = original.slice();
          for (const [where, value] of changes) bytes[where % bytes.length] = value;
          refusal(() => tryLoad(parseObject(bytes), host));
        },
      ),
      { numRuns: 800 },
    );
  });

  it('any change of what is decoded is loaded or refused, too', () => {
    const names = ['xdp', '.BTF', '.BTF.ext', '.symtab', '.relxdp', '.maps'];
    const targets = objects.slice(0, 4).flatMap((bytes) =>
      readElf(bytes)
        .sections.filter(({ name, size }) => names.includes(name) && size > 0)
        .map(({ bytes: part, size }) => ({ bytes, at: part.byteOffset - bytes.byteOffset, size })),
    );
    fc.assert(
      fc.property(
        fc.constantFrom(...targets),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        ({ bytes, at, size }, changes) => {
          const copy = bytes.slice();
          for (const [where, value] of changes) copy[at + (where % size)] = value;
          refusal(() => tryLoad(parseObject(copy), host));
        },
      ),
      { numRuns: 1000 },
    );
  });
});
