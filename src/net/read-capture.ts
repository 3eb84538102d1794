/**
 * Reads a capture file of either format, recognised by its first bytes.
 */
import { plainBytes } from '../common/bytes.js';
import { InputError } from '../common/errors.js';
import type { Capture } from './capture.js';
import { isPcap, readPcap } from './pcap.js';
import { isPcapng, readPcapng } from './pcapng.js';

export function readCapture(file: Uint8Array): Capture {
  const bytes = plainBytes(file);
  if (isPcapng(bytes)) return readPcapng(bytes);
  if (isPcap(bytes)) return readPcap(bytes);
  if (bytes.length === 0) throw new InputError('not a capture: the file is empty');
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
    throw new InputError('not a capture: the file is gzip-compressed, unpack it first');
  }
  const magic = Array.from(bytes.subarray(0, 4), (byte) => byte.toString(16).padStart(2, '0'));
  throw new InputError(
    `not a capture: starts with ${magic.join(' ')}, neither pcap (a1b2c3d4) nor pcapng (0a0d0d0a)`,
  );
}
