import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { viewOf } from '../../src/common/bytes.js';
import { InputError } from '../../src/common/errors.js';
import { commentOption, commentsOf, ethernetCapture, type Capture } from '../../src/net/capture.js';
import { writePcap } from '../../src/net/pcap.js';
import { writePcapng } from '../../src/net/pcapng.js';
import { openCapture, readCapture } from '../../src/net/read-capture.js';

const three = ethernetCapture([
  { bytes: new Uint8Array(60).fill(1), time: 1_700_000_000_000_001_000n },
  { bytes: new Uint8Array(42).fill(2), time: 1_700_000_000_000_002_000n },
  { bytes: new Uint8Array(60).fill(3), time: 1_700_000_000_000_003_000n },
]);

function message(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof InputError) return error.message;
    throw error;
  }
  return 'no error';
}

/** The same file with every multi-byte field of headers turned round (pcap only). */
function bigEndian(file: Uint8Array): Uint8Array {
  const swapped = file.slice();
  const from = viewOf(file);
  const to = viewOf(swapped);
  for (const at of [0, 8, 12, 16, 20]) to.setUint32(at, from.getUint32(at, true));
  for (const at of [4, 6]) to.setUint16(at, from.getUint16(at, true));
  for (let at = 24; at < file.length; at += 16 + from.getUint32(at + 8, true)) {
    for (let i = 0; i < 16; i += 4) to.setUint32(at + i, from.getUint32(at + i, true));
  }
  return swapped;
}

describe('pcap', () => {
  it('reads either byte order, micro- and nanoseconds', () => {
    const file = writePcap(three);
    expect(viewOf(file).getUint32(0, true)).toBe(0xa1b2c3d4);
    expect(readCapture(file)).toEqual(three);
    expect(readCapture(bigEndian(file))).toEqual(three);
    const fine = ethernetCapture([{ bytes: new Uint8Array(14), time: 1_000_000_007n }]);
    expect(viewOf(writePcap(fine)).getUint32(0, true)).toBe(0xa1b23c4d);
    expect(readCapture(writePcap(fine))).toEqual(fine);
    expect(readCapture(bigEndian(writePcap(fine)))).toEqual(fine);
  });

  it('reads the patched record header of 24 bytes', () => {
    const file = new Uint8Array(24 + 24 + 3);
    const view = viewOf(file);
    view.setUint32(0, 0xa1b2cd34, true);
    view.setUint16(4, 2, true);
    view.setUint32(20, 1, true);
    view.setUint32(24, 5, true);
    view.setUint32(32, 3, true);
    view.setUint32(36, 9, true);
    file.set([7, 8, 9], 48);
    const [packet] = readCapture(file).packets;
    expect(packet).toMatchObject({ time: 5_000_000_000n, originalLength: 9 });
    expect(packet?.bytes).toEqual(Uint8Array.of(7, 8, 9));
  });

  it('names packet and byte where a file is cut', () => {
    const file = writePcap(three);
    const data = 24 + (16 + 60) + (16 + 42) + 16;
    expect(message(() => readCapture(file.subarray(0, data + 12)))).toBe(
      `capture cut in packet 3 at byte ${data}: 60 bytes announced, 12 left`,
    );
    expect(message(() => readCapture(file.subarray(0, data - 9)))).toBe(
      `capture cut in packet 3 at byte ${data - 16}: 16 bytes announced, 7 left`,
    );
    expect(message(() => readCapture(file.subarray(0, 20)))).toBe(
      'capture cut in its header: 24 bytes announced, 20 left',
    );
  });

  it.each([
    ['nothing', new Uint8Array(0), 'not a capture: the file is empty'],
    ['gzip', Uint8Array.of(0x1f, 0x8b, 8, 0), /gzip-compressed, unpack it first/],
    ['ELF', Uint8Array.of(0x7f, 0x45, 0x4c, 0x46), /starts with 7f 45 4c 46, neither pcap/],
  ])('refuses %s', (_, bytes, expected) => {
    expect(message(() => readCapture(bytes))).toMatch(expected);
  });
});

/** A block with both lengths, of the given byte order. */
function block(type: number, body: readonly number[], little: boolean): number[] {
  const bytes = new Uint8Array(12 + body.length);
  const view = viewOf(bytes);
  view.setUint32(0, type, little);
  view.setUint32(4, bytes.length, little);
  bytes.set(body, 8);
  view.setUint32(bytes.length - 4, bytes.length, little);
  return [...bytes];
}

describe('pcapng', () => {
  it('reads a big-endian section with coarse and offset clocks and a simple packet', () => {
    const section = block(
      0x0a0d0d0a,
      [0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0, ...Array.from({ length: 8 }, () => 0xff)],
      false,
    );
    // resolution 2^-1 s, offset 10 s, snap length 4
    const options = [0, 9, 0, 1, 0x81, 0, 0, 0, 0, 14, 0, 8, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0];
    const interfaceBlock = block(1, [0, 1, 0, 0, 0, 0, 0, 4, ...options], false);
    const enhanced = block(
      6,
      [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 60, 0xaa, 0xbb, 0, 0],
      false,
    );
    const simple = block(3, [0, 0, 0, 99, 1, 2, 3, 4], false);
    const unknown = block(0x0bad, [1, 2, 3, 4], false);
    const capture = readCapture(
      Uint8Array.from([...section, ...interfaceBlock, ...unknown, ...enhanced, ...simple]),
    );
    expect(capture.packets).toEqual([
      {
        interfaceIndex: 0,
        time: 11_500_000_000n,
        bytes: Uint8Array.of(0xaa, 0xbb),
        originalLength: 60,
        options: [],
      },
      {
        interfaceIndex: 0,
        time: undefined,
        bytes: Uint8Array.of(1, 2, 3, 4),
        originalLength: 99,
        options: [],
      },
    ]);
  });

  it('keeps interfaces, comments and the wire length of cut packets', () => {
    const capture: Capture = {
      format: 'pcapng',
      options: [commentOption('made by hand')],
      interfaces: [
        { linkType: 1, snapLength: 0, options: [{ code: 2, value: Uint8Array.of(0x65) }] },
        { linkType: 113, snapLength: 64, options: [] },
      ],
      packets: [
        {
          interfaceIndex: 1,
          time: 3n,
          bytes: new Uint8Array(64),
          originalLength: 1500,
          options: [commentOption('cut'), commentOption('twice')],
        },
        {
          interfaceIndex: 0,
          time: undefined,
          bytes: Uint8Array.of(1, 2, 3),
          originalLength: 3,
          options: [],
        },
      ],
    };
    const back = readCapture(writePcapng(capture));
    expect(back).toEqual(capture);
    expect(commentsOf(back.packets[0]?.options ?? [])).toEqual(['cut', 'twice']);
    expect(message(() => writePcap(capture))).toBe(
      'pcap holds one link type, the capture has 1 and 113: write pcapng',
    );
  });

  it('numbers interfaces anew in each section', () => {
    const one = writePcapng(three);
    const twice = new Uint8Array(one.length * 2);
    twice.set(one);
    twice.set(one, one.length);
    const capture = readCapture(twice);
    expect(capture.interfaces).toHaveLength(2);
    expect(capture.packets.map(({ interfaceIndex }) => interfaceIndex)).toEqual([0, 0, 0, 1, 1, 1]);
  });

  it('names packet and byte where a file is cut', () => {
    const file = writePcapng(three);
    const block3 = file.length - (12 + 20 + 60);
    expect(message(() => readCapture(file.subarray(0, block3 + 40)))).toBe(
      `capture cut in packet 3 at byte ${block3}: 92 bytes announced, 40 left`,
    );
  });
});

describe('in chunks', () => {
  /** Cuts `file` into pieces of the given sizes over and over. */
  function* chunksOf(file: Uint8Array, sizes: readonly number[]): Generator<Uint8Array> {
    for (let at = 0, i = 0; at < file.length; i++) {
      const size = sizes[i % sizes.length] ?? 1;
      // a Buffer, as Node reads one, with other bytes around it
      const buffer = Buffer.alloc(size + 16, 0xee);
      buffer.set(file.subarray(at, at + size), 8);
      yield buffer.subarray(8, 8 + Math.min(size, file.length - at));
      at += size;
    }
  }

  it.each([writePcap(three), bigEndian(writePcap(three)), writePcapng(three)])(
    'the same packets as from the whole file',
    (file) => {
      const whole = readCapture(file);
      for (const sizes of [[1], [7], [24, 16, 60], [1000], [3, 0, 50]]) {
        const reader = openCapture(chunksOf(file, sizes));
        expect([...reader.packets()]).toEqual(whole.packets);
        expect([reader.interfaces, reader.options]).toEqual([whole.interfaces, whole.options]);
      }
    },
  );

  it('packets before the place where the file is cut', () => {
    const file = writePcap(three);
    const seen: number[] = [];
    const reader = openCapture(chunksOf(file.subarray(0, file.length - 1), [50]));
    const error = message(() => {
      for (const { bytes } of reader.packets()) seen.push(bytes.length);
    });
    expect(seen).toEqual([60, 42]);
    expect(error).toMatch(/^capture cut in packet 3 at byte \d+: 60 bytes announced, 59 left$/);
  });
});

const captures: fc.Arbitrary<Capture> = fc
  .record({
    snapLength: fc.nat(2000),
    packets: fc.array(
      fc.record({
        time: fc.bigInt({ min: 0n, max: (1n << 62n) - 1n }),
        bytes: fc.uint8Array({ maxLength: 40 }),
        lost: fc.nat(10),
        comment: fc.option(fc.string({ maxLength: 9 }), { nil: undefined }),
      }),
      { maxLength: 6 },
    ),
  })
  .map(({ snapLength, packets }) => ({
    format: 'pcapng',
    options: [],
    interfaces: [{ linkType: 1, snapLength, options: [] }],
    packets: packets.map(({ time, bytes, lost, comment }) => ({
      interfaceIndex: 0,
      time,
      bytes,
      originalLength: bytes.length + lost,
      options: comment === undefined ? [] : [commentOption(comment)],
    })),
  }));

describe('capture properties', () => {
  it('reads back what it wrote', () => {
    fc.assert(
      fc.property(captures, (capture) => {
        expect(readCapture(writePcapng(capture))).toEqual(capture);
        const plain: Capture = {
          ...capture,
          format: 'pcap',
          packets: capture.packets.map((packet) => ({
            ...packet,
            time: (packet.time ?? 0n) % 4_000_000_000_000_000_000n,
            options: [],
          })),
        };
        expect(readCapture(writePcap(plain))).toEqual(plain);
      }),
    );
  });

  it('answers any damage with a capture or one InputError', () => {
    fc.assert(
      fc.property(
        captures,
        fc.boolean(),
        fc.nat(),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }),
        (capture, ng, keep, changes) => {
          const file = ng
            ? writePcapng(capture)
            : writePcap({ ...capture, packets: capture.packets.map((p) => ({ ...p, time: 0n })) });
          for (const [where, value] of changes) file[where % file.length] = value;
          const cut = file.subarray(0, keep % (file.length + 1));
          for (const damaged of [file, cut]) {
            const text = message(() => readCapture(damaged));
            expect(text).not.toContain('\n');
          }
        },
      ),
      { numRuns: 1500 },
    );
  });
});
