/**
 * Reads a capture file of either format, recognised by its first bytes: whole, or packet by packet from
 * chunks.
 */
import { InputError } from '../common/errors.js';
import { ByteSource } from './byte-source.js';
import type { Capture, CaptureReader } from './capture.js';
import { isPcap, openPcap } from './pcap.js';
import { isPcapng, openPcapng } from './pcapng.js';

export function readCapture(file: Uint8Array): Capture {
  const reader = openCapture([file]);
  // interfaces and options are known when the packets have been read
  const packets = [...reader.packets()];
  const { format, interfaces, options } = reader;
  return { format, interfaces, packets, options };
}

/** Packets one by one: needs memory for a chunk and a packet only. */
export function openCapture(chunks: Iterable<Uint8Array>): CaptureReader {
  const source = new ByteSource(chunks);
  const start = source.peek(4);
  if (isPcapng(start)) return openPcapng(source);
  if (isPcap(start)) return openPcap(source);
  if (start.length === 0) throw new InputError('not a capture: the file is empty');
  if (start[0] === 0x1f && start[1] === 0x8b) {
    throw new InputError('not a capture: the file is gzip-compressed, unpack it first');
  }
  const magic = Array.from(start, (byte) => byte.toString(16).padStart(2, '0'));
  throw new InputError(
    `not a capture: starts with ${magic.join(' ')}, neither pcap (a1b2c3d4) nor pcapng (0a0d0d0a)`,
  );
}
