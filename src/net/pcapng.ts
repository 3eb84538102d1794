/**
 * The pcapng file: section header, interface description, enhanced, simple and (obsolete) packet blocks.
 *
 * Reference: draft-ietf-opsawg-pcapng. Sections may differ in byte order and start their interface
 * numbers anew; here all interfaces are in one list. Left out: name resolution, statistics, secrets and
 * custom blocks are skipped, and not written back. Writing is little-endian with nanosecond times.
 *
 *   block: type u32 | total length u32 | body, padded to 4 | total length u32
 */
import { alignUp, viewOf } from '../common/bytes.js';
import { InputError } from '../common/errors.js';
import {
  OPTION,
  type Capture,
  type CapturedPacket,
  type CaptureReader,
  type CaptureInterface,
  type CaptureOption,
} from './capture.js';
import type { ByteSource } from './byte-source.js';
import { concatBytes } from './packet.js';
import { cutError } from './pcap.js';

const BLOCK = {
  INTERFACE: 1,
  PACKET: 2,
  SIMPLE_PACKET: 3,
  ENHANCED_PACKET: 6,
  SECTION: 0x0a0d0d0a,
};
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const PACKET_BLOCKS: readonly number[] = [BLOCK.PACKET, BLOCK.SIMPLE_PACKET, BLOCK.ENHANCED_PACKET];

export function isPcapng(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && viewOf(bytes).getUint32(0) === BLOCK.SECTION;
}

/** An interface and how its time stamps count. */
interface InterfaceClock extends CaptureInterface {
  readonly unitsPerSecond: bigint;
  readonly offsetSeconds: bigint;
}

/** Nothing is read before the first packet is asked for. */
export function openPcapng(source: ByteSource): CaptureReader {
  return new PcapngReader(source);
}

class PcapngReader implements CaptureReader {
  readonly format = 'pcapng';
  readonly #source: ByteSource;
  readonly #interfaces: InterfaceClock[] = [];
  #options: readonly CaptureOption[] | undefined;

  constructor(source: ByteSource) {
    this.#source = source;
  }

  get interfaces(): readonly CaptureInterface[] {
    return this.#interfaces.map(({ linkType, snapLength, options }) => ({
      linkType,
      snapLength,
      options,
    }));
  }

  get options(): readonly CaptureOption[] {
    return this.#options ?? [];
  }

  *packets(): Generator<CapturedPacket> {
    const source = this.#source;
    let packets = 0;
    let firstInterface = 0;
    let little = true;
    for (;;) {
      const head = source.peek(12);
      const { at } = source;
      if (head.length === 0) return;
      if (head.length < 12) throw cutError(packets + 1, at, 12, head.length);
      const start = viewOf(head);
      let type = start.getUint32(0, little);
      if (start.getUint32(0) === BLOCK.SECTION) {
        type = BLOCK.SECTION;
        little = sectionIsLittle(start, at);
      }
      const total = start.getUint32(4, little);
      const isPacket = PACKET_BLOCKS.includes(type);
      const what = isPacket ? `packet ${packets + 1}` : `block type 0x${type.toString(16)}`;
      if (total < 12 || total % 4 !== 0) {
        throw new InputError(`capture damaged at byte ${at}: ${what} has length ${total}`);
      }
      const whole = source.peek(total);
      if (whole.length < total) throw cutError(packets + 1, at, total, whole.length);
      const again = viewOf(whole).getUint32(total - 4, little);
      if (again !== total) {
        throw new InputError(
          `capture damaged at byte ${at}: the two lengths of ${what} differ (${total} and ${again})`,
        );
      }
      const block: Block = { bytes: whole.subarray(8, total - 4), little, at, what };
      if (type === BLOCK.SECTION) {
        firstInterface = this.#interfaces.length;
        const options = readSection(block);
        this.#options ??= options;
      } else if (type === BLOCK.INTERFACE) {
        this.#interfaces.push(readInterface(block));
      }
      const packet = isPacket
        ? readPacketBlock(block, type, this.#interfaces, firstInterface)
        : undefined;
      source.skip(total);
      if (packet) {
        packets++;
        yield packet;
      }
    }
  }
}

interface Block {
  /** The body without type and lengths. */
  readonly bytes: Uint8Array;
  readonly little: boolean;
  readonly at: number;
  readonly what: string;
}

function sectionIsLittle(view: DataView, at: number): boolean {
  const magic = view.getUint32(8, true);
  if (magic === BYTE_ORDER_MAGIC) return true;
  if (view.getUint32(8) === BYTE_ORDER_MAGIC) return false;
  throw new InputError(`capture damaged at byte ${at}: section header without byte-order magic`);
}

function need(block: Block, bytes: number): DataView {
  if (block.bytes.length >= bytes) return viewOf(block.bytes);
  throw new InputError(
    `capture damaged at byte ${block.at}: ${block.what} has ${block.bytes.length} bytes, needs ${bytes}`,
  );
}

function readSection(block: Block): readonly CaptureOption[] {
  const view = need(block, 16);
  const major = view.getUint16(4, block.little);
  if (major !== 1) throw new InputError(`pcapng version ${major} at byte ${block.at}, not 1`);
  return readOptions(block, 16);
}

function readInterface(block: Block): InterfaceClock {
  const view = need(block, 8);
  const options = readOptions(block, 8);
  const resolution = options.find(({ code }) => code === OPTION.IF_TSRESOL)?.value[0] ?? 6;
  const offset = options.find(({ code }) => code === OPTION.IF_TSOFFSET)?.value;
  const exponent = BigInt(resolution & 0x7f);
  return {
    linkType: view.getUint16(0, block.little),
    snapLength: view.getUint32(4, block.little),
    options: options.filter(({ code }) => !isClockOption(code)),
    unitsPerSecond: (resolution & 0x80) !== 0 ? 2n ** exponent : 10n ** exponent,
    offsetSeconds: offset?.length === 8 ? viewOf(offset).getBigInt64(0, block.little) : 0n,
  };
}

function isClockOption(code: number): boolean {
  return code === OPTION.IF_TSRESOL || code === OPTION.IF_TSOFFSET;
}

function readPacketBlock(
  block: Block,
  type: number,
  interfaces: readonly InterfaceClock[],
  firstInterface: number,
): CapturedPacket {
  const simple = type === BLOCK.SIMPLE_PACKET;
  const headerBytes = simple ? 4 : 20;
  const view = need(block, headerBytes);
  const { little } = block;
  let number = 0;
  if (type === BLOCK.ENHANCED_PACKET) number = view.getUint32(0, little);
  if (type === BLOCK.PACKET) number = view.getUint16(0, little);
  const interfaceIndex = firstInterface + number;
  const source = interfaces[interfaceIndex];
  if (!source) {
    throw new InputError(
      `capture damaged at byte ${block.at}: ${block.what} names interface ${number} of ${interfaces.length - firstInterface}`,
    );
  }
  const originalLength = view.getUint32(simple ? 0 : 16, little);
  const limit = source.snapLength === 0 ? originalLength : source.snapLength;
  const captured = simple ? Math.min(originalLength, limit) : view.getUint32(12, little);
  if (captured > block.bytes.length - headerBytes) {
    throw cutError(
      Number(block.what.replace('packet ', '')),
      block.at + 8 + headerBytes,
      captured,
      block.bytes.length - headerBytes,
    );
  }
  return {
    interfaceIndex,
    time: simple ? undefined : readTime(view, little, source),
    bytes: block.bytes.slice(headerBytes, headerBytes + captured),
    originalLength,
    options: simple ? [] : readOptions(block, headerBytes + alignUp(captured, 4)),
  };
}

function readTime(view: DataView, little: boolean, source: InterfaceClock): bigint {
  const units = (BigInt(view.getUint32(4, little)) << 32n) | BigInt(view.getUint32(8, little));
  return (units * 1_000_000_000n) / source.unitsPerSecond + source.offsetSeconds * 1_000_000_000n;
}

/** Options from `start` of the body to its end: code u16, length u16, value padded to 4. */
function readOptions(block: Block, start: number): readonly CaptureOption[] {
  const options: CaptureOption[] = [];
  const view = viewOf(block.bytes);
  let at = start;
  while (at + 4 <= block.bytes.length) {
    const code = view.getUint16(at, block.little);
    const length = view.getUint16(at + 2, block.little);
    if (code === 0) break;
    if (at + 4 + length > block.bytes.length) {
      throw new InputError(
        `capture damaged at byte ${block.at}: option ${code} of ${block.what} has ${length} bytes, ${block.bytes.length - at - 4} left`,
      );
    }
    options.push({ code, value: block.bytes.slice(at + 4, at + 4 + length) });
    at += 4 + alignUp(length, 4);
  }
  return options;
}

/** Writes a pcapng file with one section. A packet without a time gets a simple packet block where that can hold it. */
export function writePcapng(capture: Capture): Uint8Array {
  const parts: Uint8Array[] = [];
  const section = new Uint8Array(16);
  const view = viewOf(section);
  view.setUint32(0, BYTE_ORDER_MAGIC, true);
  view.setUint16(4, 1, true);
  view.setBigInt64(8, -1n, true);
  parts.push(writeBlock(BLOCK.SECTION, section, capture.options));
  for (const source of capture.interfaces) {
    const body = new Uint8Array(8);
    viewOf(body).setUint16(0, source.linkType, true);
    viewOf(body).setUint32(4, source.snapLength, true);
    const clock = { code: OPTION.IF_TSRESOL, value: Uint8Array.of(9) };
    const kept = source.options.filter(({ code }) => !isClockOption(code));
    parts.push(writeBlock(BLOCK.INTERFACE, body, [...kept, clock]));
  }
  for (const [i, packet] of capture.packets.entries()) {
    const source = capture.interfaces[packet.interfaceIndex];
    if (!source) {
      throw new InputError(`packet ${i + 1} names interface ${packet.interfaceIndex}, not there`);
    }
    parts.push(pcapngRecord(packet, source, i + 1));
  }
  return concatBytes(...parts);
}

/** One packet of such a file; `number` counts from 1, for messages. */
export function pcapngRecord(
  packet: CapturedPacket,
  source: Pick<CaptureInterface, 'snapLength'>,
  number: number,
): Uint8Array {
  const limit = source.snapLength === 0 ? packet.originalLength : source.snapLength;
  const simple =
    packet.time === undefined &&
    packet.interfaceIndex === 0 &&
    packet.options.length === 0 &&
    packet.bytes.length === Math.min(packet.originalLength, limit);
  const data = alignUp(packet.bytes.length, 4);
  if (simple) {
    const { bytes, view } = openBlock(BLOCK.SIMPLE_PACKET, 4 + data);
    view.setUint32(8, packet.originalLength, true);
    bytes.set(packet.bytes, 12);
    return bytes;
  }
  const time = packet.time ?? 0n;
  if (time < 0n || time >= 1n << 64n) {
    throw new InputError(`packet ${number}: its time does not fit 64 bits of nanoseconds`);
  }
  const { bytes, view } = openBlock(BLOCK.ENHANCED_PACKET, 20 + data + optionsSize(packet.options));
  view.setUint32(8, packet.interfaceIndex, true);
  view.setBigUint64(12, (time << 32n) | (time >> 32n), true);
  view.setUint32(20, packet.bytes.length, true);
  view.setUint32(24, packet.originalLength, true);
  bytes.set(packet.bytes, 28);
  putOptions(bytes, view, 28 + data, packet.options);
  return bytes;
}

/** Each padded to 4 bytes, the list closed by 4 zero bytes if it is not empty. */
function optionsSize(options: readonly CaptureOption[]): number {
  if (options.length === 0) return 0;
  let size = 4;
  for (const { value } of options) size += 4 + alignUp(value.length, 4);
  return size;
}

function putOptions(
  bytes: Uint8Array,
  view: DataView,
  start: number,
  options: readonly CaptureOption[],
): void {
  let at = start;
  for (const { code, value } of options) {
    if (value.length > 0xffff) {
      throw new InputError(`option ${code} of ${value.length} bytes: at most 65535 fit`);
    }
    view.setUint16(at, code, true);
    view.setUint16(at + 2, value.length, true);
    bytes.set(value, at + 4);
    at += 4 + alignUp(value.length, 4);
  }
}

/** A block whose body, from byte 8 on, is still zero. */
function openBlock(type: number, body: number): { bytes: Uint8Array; view: DataView } {
  const total = body + 12;
  const bytes = new Uint8Array(total);
  const view = viewOf(bytes);
  view.setUint32(0, type, true);
  view.setUint32(4, total, true);
  view.setUint32(total - 4, total, true);
  return { bytes, view };
}

function writeBlock(type: number, body: Uint8Array, options: readonly CaptureOption[]): Uint8Array {
  const { bytes, view } = openBlock(type, body.length + optionsSize(options));
  bytes.set(body, 8);
  putOptions(bytes, view, 8 + body.length, options);
  return bytes;
}
