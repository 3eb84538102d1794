/**
 * The classic pcap file: a 24-byte header and records of 16 bytes plus data.
 *
 * Magic 0xa1b2c3d4 counts microseconds, 0xa1b23c4d nanoseconds, 0xa1b2cd34 has 8 more bytes in each
 * record header (patched libpcap of old); each in either byte order. Reference: pcap-savefile(5),
 * draft-ietf-opsawg-pcap. Writing is little-endian, nanoseconds only where a time needs them.
 *
 *   magic u32 | major u16 = 2 | minor u16 | zone i32 | sigfigs u32 | snaplen u32 | linktype u32
 *   record: seconds u32 | fraction u32 | captured u32 | original u32 | bytes
 */
import { viewOf } from '../common/bytes.js';
import { InputError } from '../common/errors.js';
import type { ByteSource } from './byte-source.js';
import type { Capture, CapturedPacket, CaptureReader } from './capture.js';

const HEADER_BYTES = 24;
const NO_OPTIONS: CapturedPacket['options'] = [];

interface Variant {
  readonly magic: number;
  readonly unitsToNanoseconds: bigint;
  readonly recordBytes: number;
}

const VARIANTS: readonly Variant[] = [
  { magic: 0xa1b2c3d4, unitsToNanoseconds: 1000n, recordBytes: 16 },
  { magic: 0xa1b23c4d, unitsToNanoseconds: 1n, recordBytes: 16 },
  { magic: 0xa1b2cd34, unitsToNanoseconds: 1000n, recordBytes: 24 },
];

function variantOf(bytes: Uint8Array): (Variant & { readonly little: boolean }) | undefined {
  if (bytes.length < 4) return undefined;
  const view = viewOf(bytes);
  for (const variant of VARIANTS) {
    for (const little of [true, false]) {
      if (view.getUint32(0, little) === variant.magic) return { ...variant, little };
    }
  }
  return undefined;
}

export function isPcap(bytes: Uint8Array): boolean {
  return variantOf(bytes) !== undefined;
}

/** Reads the header; packets follow as they are asked for. */
export function openPcap(source: ByteSource): CaptureReader {
  const header = source.peek(HEADER_BYTES);
  const variant = variantOf(header);
  if (!variant) throw new InputError('not a pcap file: unknown magic');
  if (header.length < HEADER_BYTES) {
    throw new InputError(
      `capture cut in its header: ${HEADER_BYTES} bytes announced, ${header.length} left`,
    );
  }
  const { little } = variant;
  const view = viewOf(header);
  const major = view.getUint16(4, little);
  if (major !== 2)
    throw new InputError(`pcap version ${major}.${view.getUint16(6, little)}, not 2`);
  // the upper bits of the link type word say whether frames carry an FCS
  const linkType = view.getUint32(20, little) & 0xffff;
  const snapLength = view.getUint32(16, little);
  source.skip(HEADER_BYTES);
  return {
    format: 'pcap',
    interfaces: [{ linkType, snapLength, options: [] }],
    options: [],
    packets: () => readRecords(source, variant),
  };
}

function* readRecords(
  source: ByteSource,
  { little, recordBytes, unitsToNanoseconds }: Variant & { readonly little: boolean },
): Generator<CapturedPacket> {
  for (let number = 1; ; number++) {
    const header = source.ready(recordBytes);
    if (header === 0) return;
    if (header < recordBytes) throw cutError(number, source.at, recordBytes, header);
    const seconds = BigInt(source.u32(0, little));
    const fraction = BigInt(source.u32(4, little));
    const captured = source.u32(8, little);
    const originalLength = source.u32(12, little);
    source.skip(recordBytes);
    const left = source.ready(captured);
    if (left < captured) throw cutError(number, source.at, captured, left);
    const bytes = source.copy(0, captured);
    source.skip(captured);
    yield {
      interfaceIndex: 0,
      time: seconds * 1_000_000_000n + fraction * unitsToNanoseconds,
      bytes,
      originalLength,
      options: NO_OPTIONS,
    };
  }
}

/** The one error of a file that ends inside a packet. */
export function cutError(packet: number, at: number, announced: number, left: number): InputError {
  return new InputError(
    `capture cut in packet ${packet} at byte ${at}: ${announced} bytes announced, ${left} left`,
  );
}

/** Writes a pcap file. Options and comments have no place in it; all interfaces must agree in link type. */
export function writePcap(capture: Capture): Uint8Array {
  const [first, ...others] = capture.interfaces;
  const linkType = first?.linkType ?? 1;
  const odd = others.find((other) => other.linkType !== linkType);
  if (odd) {
    throw new InputError(
      `pcap holds one link type, the capture has ${linkType} and ${odd.linkType}: write pcapng`,
    );
  }
  const nanoseconds = capture.packets.some(({ time }) => (time ?? 0n) % 1000n !== 0n);
  const snapLengths = capture.interfaces.map(({ snapLength }) => snapLength);
  const snapLength = snapLengths.includes(0) ? 0 : Math.max(0, ...snapLengths);
  const size = capture.packets.reduce((sum, packet) => sum + 16 + packet.bytes.length, 0);
  const bytes = new Uint8Array(HEADER_BYTES + size);
  bytes.set(pcapHeader(linkType, snapLength, nanoseconds));
  let at = HEADER_BYTES;
  for (const [i, packet] of capture.packets.entries()) {
    const record = pcapRecord(packet, i + 1, nanoseconds);
    bytes.set(record, at);
    at += record.length;
  }
  return bytes;
}

/** The start of a file whose records follow one by one. */
export function pcapHeader(linkType: number, snapLength: number, nanoseconds: boolean): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, nanoseconds ? 0xa1b23c4d : 0xa1b2c3d4, true);
  view.setUint16(4, 2, true);
  view.setUint16(6, 4, true);
  view.setUint32(16, snapLength, true);
  view.setUint32(20, linkType, true);
  return bytes;
}

/** One packet of such a file; `number` counts from 1, for messages. */
export function pcapRecord(
  packet: CapturedPacket,
  number: number,
  nanoseconds: boolean,
): Uint8Array {
  const time = packet.time ?? 0n;
  const seconds = time / 1_000_000_000n;
  if (time < 0n || seconds > 0xffffffffn) {
    throw new InputError(`packet ${number}: its time does not fit the 32-bit seconds of pcap`);
  }
  const fraction = Number(time % 1_000_000_000n);
  const bytes = new Uint8Array(16 + packet.bytes.length);
  const view = viewOf(bytes);
  view.setUint32(0, Number(seconds), true);
  view.setUint32(4, nanoseconds ? fraction : fraction / 1000, true);
  view.setUint32(8, packet.bytes.length, true);
  view.setUint32(12, packet.originalLength, true);
  bytes.set(packet.bytes, 16);
  return bytes;
}
