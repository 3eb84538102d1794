import { beforeEach, describe, expect, it } from 'vitest';
import { assemble } from '../../src/bpf/assemble.js';
import { disassemble } from '../../src/bpf/disassemble.js';
import { listingNames } from '../../src/bpf/helpers/names.js';
import { rawProgram } from '../../src/bpf/raw-program.js';
import type { RegisterPairs } from '../../src/bpf/host.js';
import { helperBodies, helperTable, type HelperOptions } from '../../src/bpf/helpers/table.js';
import { createMap } from '../../src/bpf/maps/create.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { XdpBuff } from '../../src/bpf/xdp-buff.js';

let host: PlainHost;

beforeEach(() => {
  host = new PlainHost({ helpers: helperBodies(), cpuCount: 2 });
});

/** Calls helper `id` and gives R0, signed. */
function call(id: number, args: readonly (bigint | number)[], options: HelperOptions = {}): bigint {
  const registers: RegisterPairs = new Int32Array(22);
  for (const [index, value] of args.entries()) {
    registers[2 * index + 2] = Number(BigInt.asIntN(32, BigInt(value)));
    registers[2 * index + 3] = Number(BigInt.asIntN(32, BigInt(value) >> 32n));
  }
  const helper = helperTable(options).get(id);
  if (!helper) throw new Error(`no helper ${id}`);
  helper.body(registers, host);
  return (BigInt(registers[1]) << 32n) | BigInt(registers[0] >>> 0);
}

function place(bytes: Uint8Array | string): bigint {
  const data = typeof bytes === 'string' ? new TextEncoder().encode(bytes) : bytes;
  const { address } = host.allocate('data', data.length);
  host.memory.writeBytes(address, data);
  return address;
}

describe('helper table', () => {
  it('gives every helper one number and one name', () => {
    const helpers = [...helperTable().values()];
    expect(new Set(helpers.map(({ name }) => name)).size).toBe(helpers.length);
    for (const [id, helper] of helperTable()) expect(helper.id).toBe(id);
    expect(helperTable().has(12)).toBe(false);
  });
});

describe('listing names', () => {
  it('name helpers, subprograms and maps', () => {
    const map = createMap(
      { name: 'counts', type: 'ARRAY', keySize: 4, valueSize: 8, maxEntries: 1, flags: 0 },
      host,
    );
    const text = `call 5\ncall 3000\ncall sub\nr1 = 0x${map.address.toString(16)} ll\nexit\nsub: exit`;
    const program = rawProgram('main', assemble(text), {
      helperImmediate: (id) => (id === 5 ? 0x500 : 48),
    });
    const lines = disassemble(program.functions[0].insns, listingNames(program, host));
    expect(lines.map((line) => line.text)).toEqual([
      '(85) call bpf_ktime_get_ns#1280',
      '(85) call helper#48',
      '(85) call main_sub_1',
      '(18) r1 = map[counts]',
      '(95) exit',
    ]);
  });
});

describe('maps', () => {
  it('look up, update, delete', () => {
    const map = createMap(
      { name: 'm', type: 'PERCPU_HASH', keySize: 4, valueSize: 8, maxEntries: 2, flags: 0 },
      host,
    );
    const key = place(new Uint8Array(4));
    const value = place(new Uint8Array(8).fill(1));
    expect(call(1, [map.address, key])).toBe(0n);
    expect(call(3, [map.address, key])).toBe(-2n);
    expect(call(2, [map.address, key, value, 2])).toBe(-2n);
    expect(call(2, [map.address, key, value, 1n << 32n])).toBe(-22n);
    expect(call(2, [map.address, key, value, 0])).toBe(0n);
    const address = BigInt.asUintN(64, call(1, [map.address, key]));
    expect(host.memory.read64(address)).toBe(0x0101_0101_0101_0101n);
    const other = BigInt.asUintN(64, call(195, [map.address, key, 1]));
    expect(host.memory.read64(other)).toBe(0n);
    expect(call(195, [map.address, key, 2])).toBe(0n);
    expect(call(3, [map.address, key])).toBe(0n);
  });

  it('fault where no map is', () => {
    expect(() => call(1, [0x1234n, 0n])).toThrow('read of 248 bytes at 0x0000000000001234');
  });
});

describe('general', () => {
  it('tell CPU, time and random numbers', () => {
    host.setCurrentCpu(1);
    expect(call(8, [])).toBe(1n);
    expect(call(42, [])).toBe(0n);
    expect(call(5, [])).toBeLessThan(call(5, []));
    expect(call(7, [])).toBe(BigInt(new PlainHost().random()));
    expect(call(14, [], { pidTgid: () => (5n << 32n) | 6n })).toBe((5n << 32n) | 6n);
  });

  it('read memory that may not be there', () => {
    const to = place(new Uint8Array(8).fill(0xff));
    const from = place('hello\0..');
    expect(call(113, [to, 4, from])).toBe(0n);
    expect(host.memory.readBytes(to, 5)).toEqual(Uint8Array.of(104, 101, 108, 108, 255));
    expect(call(113, [to, 8, from + 1n])).toBe(-14n);
    expect(host.memory.read64(to)).toBe(0n);
    expect(call(115, [to, 8, from])).toBe(6n);
    expect(call(115, [to, 3, from])).toBe(3n);
    expect(host.memory.readBytes(to, 3)).toEqual(Uint8Array.of(104, 101, 0));
  });

  it.each([
    [105, '  -42x', 0, 5n, -42n],
    [105, '0x1f', 0, 4n, 31n],
    [105, '017', 0, 3n, 15n],
    [106, 'ff ', 16, 2n, 255n],
    [106, '-1', 10, -22n, undefined],
    [105, 'x', 10, -22n, undefined],
    [105, '1', 7, -22n, undefined],
    [105, '9223372036854775808', 10, -34n, undefined],
    [106, '18446744073709551615', 10, 20n, -1n],
  ])('helper %i parses %j in base %i', (id, text, base, result, value) => {
    const to = place(new Uint8Array(8));
    expect(call(id, [place(text), text.length, base, to])).toBe(result);
    if (value !== undefined) expect(BigInt.asIntN(64, host.memory.read64(to))).toBe(value);
  });

  it('compare strings', () => {
    expect(call(182, [place('abc'), 3, place('abd\0')])).toBe(-1n);
    expect(call(182, [place('abd'), 2, place('abc\0')])).toBe(0n);
    expect(call(182, [place('b\0x'), 3, place('b\0y')])).toBe(0n);
  });
});

describe('trace_printk', () => {
  it.each([
    ['n %d\n', [-1], 'n -1', 5n],
    ['%u %x %X', [0xffff_ffff_ffff_fffen, 255, 255], '4294967294 ff FF', 16n],
    ['%lld|%llu', [-5, -1], '-5|18446744073709551615', 23n],
    ['[%5d|%-4d|%04x]', [7, 7, 0xab], '[    7|7   |00ab]', 17n],
    ['100%% %c', [65], '100% A', 6n],
    ['%99999999999d', [7], ' '.repeat(1023), 1023n],
    ['%px', [0xffff_8000_1234_5678n], 'ffff800012345678', 16n],
  ] as const)('%j', (format, args, line, length) => {
    const address = place(`${format}\0`);
    expect(call(6, [address, format.length + 1, ...args])).toBe(length);
    expect(host.log).toEqual([line]);
  });

  it('shows strings and addresses', () => {
    const format = place('%s %pI4 [%s]\0');
    const ip = place(Uint8Array.of(192, 0, 2, 1));
    expect(call(6, [format, 13, place('eth0\0'), ip, 0x10n])).toBe(17n);
    expect(host.log).toEqual(['eth0 192.0.2.1 []']);
  });

  it.each(['%d %d %d %d\0', '%y\0', '\u0007\0', 'no end'])('refuses %j', (format) => {
    expect(call(6, [place(format), format.length])).toBe(-22n);
    expect(host.log).toEqual([]);
  });
});

describe('csum_diff', () => {
  const from = Uint8Array.of(0x01, 0x02, 0x03, 0x04);
  const to = Uint8Array.of(0x11, 0x12, 0x13, 0x14, 0xff, 0xff, 0x00, 0x80);

  it('of 6.12: folded data plus the seed', () => {
    const v = { version: '6.12' } as const;
    // words of to: 0x1211 + 0x1413 + 0xffff + 0x8000 = 0x1a623, folded 0xa624
    expect(call(28, [0, 0, place(to), 8, 0], v)).toBe(0xa624n);
    expect(call(28, [0, 0, place(to), 8, 0xffff_ffffn], v)).toBe(0xa624n);
    expect(call(28, [0, 0, place(to), 8, 0x1_0000], v)).toBe(0x1_a624n);
    // ~from: 0xfdfe + 0xfbfc = 0x1f9fa, folded 0xf9fb
    expect(call(28, [place(from), 4, 0, 0, 0], v)).toBe(0xf9fbn);
    expect(call(28, [place(from), 3, 0, 0, 0], v)).toBe(-22n);
    expect(call(28, [place(new Uint8Array(512)), 512, place(to), 8, 0], v)).toBe(-22n);
  });

  it('of 6.18: everything folded, any size', () => {
    const v = { version: '6.18' } as const;
    expect(call(28, [0, 0, place(to), 8, 0x1_0000], v)).toBe(0xa625n);
    expect(call(28, [0, 0, place(to), 3, 0], v)).toBe(0x1224n);
    expect(call(28, [place(from), 4, place(to), 8, 0], v)).toBe(0xa020n);
  });
});

describe('tracing context', () => {
  it('gives arguments, their number, the return value and the function', () => {
    const { address } = host.allocate('frame', 64);
    for (const [index, value] of [0xf00dn, 2n, 11n, 22n, 33n].entries()) {
      host.memory.write64(address + BigInt(8 * index), value);
    }
    const ctx = address + 16n;
    const to = place(new Uint8Array(8));
    expect(call(173, [ctx])).toBe(0xf00dn);
    expect(call(185, [ctx])).toBe(2n);
    expect(call(183, [ctx, 1, to])).toBe(0n);
    expect(host.memory.read64(to)).toBe(22n);
    expect(call(183, [ctx, 2, to])).toBe(-22n);
    expect(call(184, [ctx, to])).toBe(0n);
    expect(host.memory.read64(to)).toBe(33n);
    expect(call(174, [ctx], { attachCookie: () => 99n })).toBe(99n);
  });
});

describe('xdp', () => {
  let xdp: XdpBuff;

  beforeEach(() => {
    xdp = XdpBuff.create(host, { ifindex: 1, queueIndex: 0 });
    const frame = host.allocate('frame', 2048);
    xdp.setFrame(frame.address, 2048, 256, 60);
    host.memory.writeBytes(
      xdp.data,
      Uint8Array.from({ length: 60 }, (_, i) => i),
    );
  });

  const borders = (): readonly number[] =>
    [xdp.dataMeta, xdp.data, xdp.dataEnd].map((at) => Number(at - xdp.dataHardStart));

  it.each([
    [-216, 0n, [40, 40, 316]],
    [-217, -22n, [256, 256, 316]],
    [46, 0n, [302, 302, 316]],
    [47, -22n, [256, 256, 316]],
  ])('adjust_head %i', (delta, result, expected) => {
    expect(call(44, [xdp.address, delta])).toBe(result);
    expect(borders()).toEqual(expected);
  });

  it('adjust_head carries metadata along', () => {
    expect(call(54, [xdp.address, -4])).toBe(0n);
    host.memory.write32(xdp.dataMeta, 0xabcd);
    expect(call(44, [xdp.address, -20])).toBe(0n);
    expect(borders()).toEqual([232, 236, 316]);
    expect(host.memory.read32(xdp.dataMeta)).toBe(0xabcd);
    expect(call(44, [xdp.address, -193])).toBe(-22n);
  });

  it.each([
    [-32, 0n],
    [-252, 0n],
    [-256, -22n],
    [-3, -13n],
    [4, -22n],
    [-220, -22n],
  ])('adjust_meta %i', (delta, result) => {
    const room = delta === -220 || delta === -252 || delta === -256;
    if (room && delta !== -220) xdp.setFrame(xdp.dataHardStart, 2048, 292, 60);
    expect(call(54, [xdp.address, delta])).toBe(result);
  });

  it('adjust_meta without driver support', () => {
    host.memory.write64(xdp.address + 16n, xdp.data + 1n);
    expect(call(54, [xdp.address, -4])).toBe(-524n);
  });

  it.each([
    [-46, 0n, 270],
    [-47, -22n, 316],
    [1412, 0n, 1728],
    [1413, -22n, 316],
  ])('adjust_tail %i', (delta, result, end) => {
    host.memory.write8(xdp.dataEnd, 0xee);
    expect(call(65, [xdp.address, delta])).toBe(result);
    expect(borders()).toEqual([256, 256, end]);
    if (end > 316) expect(host.memory.read8(xdp.dataHardStart + 316n)).toBe(0);
  });

  it('loads and stores bytes', () => {
    const buffer = place(new Uint8Array(4));
    expect(call(188, [xdp.address])).toBe(60n);
    expect(call(189, [xdp.address, 56, buffer, 4])).toBe(0n);
    expect(host.memory.readBytes(buffer, 4)).toEqual(Uint8Array.of(56, 57, 58, 59));
    expect(call(189, [xdp.address, 57, buffer, 4])).toBe(-22n);
    expect(call(189, [xdp.address, 0x1_0000, buffer, 4])).toBe(-14n);
    expect(call(190, [xdp.address, 0, buffer, 4])).toBe(0n);
    expect(xdp.packet().subarray(0, 5)).toEqual(Uint8Array.of(56, 57, 58, 59, 4));
  });
});
