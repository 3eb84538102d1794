/** Helpers that the wasm tier does in place: what the bodies do, at the borders too. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assemble } from '../../src/bpf/assemble.js';
import { helperBodies } from '../../src/bpf/helpers/table.js';
import type { BpfHost, HelperBody } from '../../src/bpf/host.js';
import { createInterpreter } from '../../src/bpf/interpreter.js';
import { createMap } from '../../src/bpf/maps/create.js';
import type { MapTypeName } from '../../src/bpf/maps/map.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { rawProgram } from '../../src/bpf/raw-program.js';
import { describeResult } from '../../src/bpf/result.js';
import { createWasmProgram } from '../../src/bpf/wasm.js';
import { XdpBuff } from '../../src/bpf/xdp-buff.js';
import { specOf, u32 } from './maps/support.js';

const DATA = 600;

class Lab {
  readonly host: PlainHost;
  readonly data: bigint;
  readonly xdp: XdpBuff;
  /** Calls of bodies that have an intrinsic. */
  calls = 0;

  constructor() {
    const helpers = new Map<number, HelperBody>();
    for (const [id, body] of helperBodies()) {
      const counted: HelperBody = (registers, host) => {
        if (body.intrinsic) this.calls++;
        body(registers, host);
      };
      helpers.set(id, Object.assign(counted, body));
    }
    this.host = new PlainHost({
      helpers,
      callBase: 0n,
      helperStride: 1,
      memorySize: 2 << 20,
      cpuCount: 3,
    });
    this.host.setCurrentCpu(1);
    this.data = this.host.allocate('data', DATA).address;
    this.xdp = XdpBuff.create(this.host, { ifindex: 1, queueIndex: 0 });
    this.xdp.setFrame(this.host.allocate('frame', 1024).address, 1024, 256, 64);
  }

  bytes(): string[] {
    const { bytes, regions } = this.host.memory;
    return regions
      .filter(({ name }) => !/^bpf_(stack|wasm)/.test(name))
      .map(({ name, offset, size }) => `${name} ${bytes.slice(offset, offset + size).join()}`);
  }
}

type Create = (
  program: ReturnType<typeof rawProgram>,
  host: BpfHost,
) => Pick<ReturnType<typeof createInterpreter>, 'run'>;

/** Runs a text in both engines, R1 = data; gives the result and how often wasm code called a body. */
function same(
  make: (lab: Lab) => string,
  runs = 1,
): { readonly end: string; readonly calls: number } {
  const engines: readonly Create[] = [createInterpreter, createWasmProgram];
  const outcomes = engines.map((create) => {
    const lab = new Lab();
    const engine = create(rawProgram('p', assemble(make(lab))), lab.host);
    const before = lab.calls;
    const ends = Array.from({ length: runs }, () => describeResult(engine.run(lab.data)));
    return { ends, bytes: lab.bytes(), calls: lab.calls - before };
  });
  const [expected, wasm] = outcomes;
  expect({ ...wasm, calls: 0 }).toEqual({ ...expected, calls: 0 });
  return { end: wasm?.ends.at(-1) ?? '', calls: wasm?.calls ?? -1 };
}

const ll = (value: bigint): string => `0x${BigInt.asUintN(64, value).toString(16)} ll`;

describe('csum_diff in place', () => {
  const run = (from: number, to: number, seed: bigint, fill: (at: number) => number): number => {
    const { calls } = same((lab) => {
      for (let at = 0; at < DATA; at++) lab.host.memory.write8(lab.data + BigInt(at), fill(at));
      const second = to === 0 ? 'r3 = 0' : 'r3 = r1\nr3 += 8';
      return `r2 = ${from}\n${second}\nr4 = ${to}\nr5 = ${ll(seed)}\ncall 28\nexit`;
    });
    return calls;
  };

  it.each([
    ['nothing', 0, 0, 0xffffffffn, 0],
    ['all ones', 512, 0, 0xffffffffn, 0],
    ['all ones against themselves', 256, 256, 0n, 0],
    ['a seed that overflows', 4, 4, 0xfffffffen, 0],
    ['a seed with an upper half', 4, 8, 0x1_0000_0001n, 0],
    ['too much', 512, 4, 0n, 1],
    ['far too much', -1, 4, 0n, 1],
    ['an odd size', 6, 4, 0n, 1],
  ])('%s', (_, from, to, seed, calls) => {
    expect(run(from, to, seed, () => 0xff)).toBe(calls);
  });

  it('of random bytes', () => {
    fc.assert(
      fc.property(
        fc.nat(64),
        fc.nat(64),
        fc.bigInt(0n, 0xffffffffn),
        fc.array(fc.nat(255), { minLength: 7, maxLength: 7 }),
        (from, to, seed, values) => {
          expect(run(4 * from, 4 * to, seed, (at) => values[at % 7] ?? 0)).toBe(0);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('faults as the body does', () => {
    const { end } = same(() => 'r2 = 512\nr1 += 100\nr3 = 0\nr4 = 0\nr5 = 0\ncall 28\nexit');
    expect(end).toMatch(/^p insn 5: read of 512 bytes/);
  });
});

describe('xdp helpers in place', () => {
  const adjusted = (offset: number, dataEnd: bigint, meta: bigint): number => {
    const { calls } = same((lab) => {
      const { memory } = lab.host;
      memory.write64(lab.xdp.address + 8n, lab.xdp.data + dataEnd);
      memory.write64(lab.xdp.address + 16n, lab.xdp.data + meta);
      return `r6 = ${ll(lab.xdp.address)}\nr1 = r6\nr2 = ${offset}\ncall 44\nr7 = r0\nr1 = r6\ncall 188\nr0 += r7\nexit`;
    });
    return calls;
  };

  it.each([
    -257, -256, -217, -216, -215, -8, 0, 8, 49, 50, 51, 52, 1000, -1000, 0x7fffffff, -0x80000000,
  ])('adjust_head by %i', (offset) => {
    expect(adjusted(offset, 64n, 0n)).toBe(0);
    // no metadata, as some drivers say it
    expect(adjusted(offset, 64n, 1n)).toBe(0);
    expect(adjusted(offset, 64n, -8n)).toBe(1);
  });

  it('adjust_head leaves 14 bytes', () => {
    for (const offset of [49, 50, 51]) expect(adjusted(offset, 64n, 0n)).toBe(0);
    const { end } = same((lab) => `r1 = ${ll(lab.xdp.address)}\nr2 = 51\ncall 44\nexit`);
    expect(end).toBe('returned 0xffffffffffffffea');
  });

  it('fault as the bodies do', () => {
    for (const id of [44, 188]) {
      const { end } = same(() => `r1 += ${DATA - 55}\nr2 = 1\ncall ${id}\nexit`);
      expect(end).toMatch(/^p insn 2: write of 56 bytes/);
    }
  });
});

describe('host state in place', () => {
  it('clock, jiffies, random numbers, CPU', () => {
    const mixed = [5, 118, 7, 8, 42, 125, 160, 208, 7, 118]
      .map((id) => `call ${id}\nr6 *= 31\nr6 += r0`)
      .join('\n');
    const { calls } = same((lab) => {
      lab.host.setClock(0xffff_ffff_ffff_0000n, 0x7fff_ffff_ffffn);
      lab.host.setSeed(99);
      return `r6 = 0\n${mixed}\nr0 = r6\nexit`;
    }, 3);
    expect(calls).toBe(0);
  });
});

const HASHES: readonly MapTypeName[] = ['HASH', 'PERCPU_HASH', 'LRU_HASH', 'LRU_PERCPU_HASH'];
const KEY_SIZES = [1, 3, 4, 6, 8, 12, 31, 64];

describe('map look-ups in place', () => {
  const lookup = (type: MapTypeName, keySize: number, key: number, at = 8): number => {
    const { calls } = same((lab) => {
      const map = createMap(specOf({ type, keySize, valueSize: 12, maxEntries: 20 }), lab.host);
      for (let value = 0; value < 12; value++) {
        map.set(new Uint8Array(keySize).fill(value), new Uint8Array(12).fill(value + 1));
      }
      map.remove(new Uint8Array(keySize).fill(3));
      lab.host.memory.writeBytes(lab.data + BigInt(at), new Uint8Array(keySize).fill(key));
      return `r2 = r1\nr2 += ${at}\nr1 = ${ll(map.address)}\ncall 1\nexit`;
    });
    return calls;
  };

  it.each(HASHES)('%s, keys of all sizes', (type) => {
    for (const keySize of KEY_SIZES) {
      for (const key of [3, 11, 12]) expect(lookup(type, keySize, key)).toBe(0);
    }
    expect(lookup(type, 65, 1)).toBe(1);
  });

  it.each([...HASHES, 'ARRAY', 'PERCPU_ARRAY'] as const)(
    '%s, key that is not all there',
    (type) => {
      for (const keySize of type.endsWith('ARRAY') ? [4] : [1, 4, 16]) {
        for (const at of [DATA - keySize, DATA - keySize + 1, DATA + 4]) {
          const { end } = same((lab) => {
            const map = createMap(specOf({ type, keySize, maxEntries: 4 }), lab.host);
            return `r2 = r1\nr2 += ${at}\nr1 = ${ll(map.address)}\ncall 1\nexit`;
          });
          if (at > DATA - keySize) expect(end).toMatch(`p insn 4: read of ${keySize} byte`);
        }
      }
    },
  );

  it('of a map that is freed', () => {
    for (const type of ['ARRAY', 'HASH'] as const) {
      const lab = new Lab();
      const map = createMap(specOf({ type, maxEntries: 4 }), lab.host);
      map.set(u32(0), new Uint8Array(map.spec.valueSize));
      const text = `r2 = r1\nr1 = ${ll(map.address)}\ncall 1\nexit`;
      const wasm = createWasmProgram(rawProgram('p', assemble(text)), lab.host);
      expect(wasm.run(lab.data)).toMatchObject({ kind: 'return' });
      map.free();
      const expected = createInterpreter(rawProgram('p', assemble(text)), lab.host).run(lab.data);
      expect(expected.kind).toBe('fault');
      expect(wasm.run(lab.data)).toEqual(expected);
    }
  });
});

describe('array updates in place', () => {
  it.each([1, 2, 3, 7, 8, 13, 24, 64, 65, 200])('values of %i bytes', (valueSize) => {
    for (const type of ['ARRAY', 'PERCPU_ARRAY'] as const) {
      for (const [key, flags, at, calls] of [
        [0, 0, 8, 0],
        [2, 2, 9, 0],
        [3, 0, 8, 1],
        [1, 1, 8, 1],
        [1, 4, 8, 1],
        [1, -1, 8, 1],
        [1, 0, DATA - valueSize, 0],
        [1, 0, DATA - valueSize + 1, 1],
        // the value of another element
        [1, 0, -1, 0],
      ] as const) {
        const outcome = same((lab) => {
          const map = createMap(specOf({ type, valueSize, maxEntries: 3 }), lab.host);
          for (let i = 8; i < DATA; i++) lab.host.memory.write8(lab.data + BigInt(i), i & 0xff);
          lab.host.memory.write32(lab.data, key);
          const other = type === 'ARRAY' ? map.valueAddress + 1n : lab.data + 8n;
          const from = at < 0 ? `r3 = ${ll(other)}` : `r3 = r1\nr3 += ${at}`;
          return `r2 = r1\n${from}\nr4 = ${flags}\nr1 = ${ll(map.address)}\ncall 2\nexit`;
        });
        expect(outcome.calls, `${type} ${key} ${flags} ${at}`).toBe(calls);
      }
    }
  });
});
