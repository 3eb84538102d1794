/**
 * A capture that is written packet by packet: pcap, or pcapng for names that end so.
 *
 * Written beside its place and put there by `commit`, so that a run that fails leaves what was there; `-` is
 * standard output, and what is no ordinary file (a pipe, /dev/null) is written at once. pcap in its
 * nanosecond form: nobody knows what times are to come.
 *
 * Usage:
 *   const file = new CaptureFile('out.pcapng');
 *   file.add({ bytes, time, comment: 'XDP_PASS, stack' });
 *   file.commit();
 */
import { closeSync, openSync, renameSync, rmSync, statSync, writeSync } from 'node:fs';
import {
  LINKTYPE_ETHERNET,
  commentOption,
  ethernetCapture,
  type CaptureOption,
  type CapturedPacket,
} from '../net/capture.js';
import { pcapHeader, pcapRecord } from '../net/pcap.js';
import { pcapngRecord, writePcapng } from '../net/pcapng.js';
import { attempt } from './files.js';

const SNAP_LENGTH = 0x40000;
/** Bytes kept in memory. */
const BUFFER_BYTES = 1 << 18;
/** Texts of comments that are kept encoded. */
const MAX_COMMENTS = 256;
const NO_OPTIONS: readonly CaptureOption[] = [];
const STDOUT = 1;

export interface WrittenFrame {
  readonly bytes: Uint8Array;
  readonly time: CapturedPacket['time'];
  /** Length on the wire. Default: that of the bytes. */
  readonly originalLength?: number;
  /** Kept in pcapng only. */
  readonly comment?: string;
}

export class CaptureFile {
  readonly path: string;
  readonly #isPcapng: boolean;
  /** Where the bytes go until `commit`. */
  readonly #written: string;
  readonly #descriptor: number;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #size = 0;
  /** Few differ. */
  readonly #comments = new Map<string, readonly CaptureOption[]>();
  #count = 0;

  /** Throws InputError when it cannot be written. */
  constructor(path: string) {
    this.path = path;
    this.#isPcapng = path.endsWith('.pcapng');
    this.#written = isOrdinary(path) ? `${path}.partial` : path;
    this.#descriptor = path === '-' ? STDOUT : attempt(path, () => openSync(this.#written, 'w'));
    this.#put(
      this.#isPcapng
        ? writePcapng(ethernetCapture([], 'pcapng'))
        : pcapHeader(LINKTYPE_ETHERNET, SNAP_LENGTH, true),
    );
  }

  add({ bytes, time, originalLength = bytes.length, comment }: WrittenFrame): void {
    this.#count++;
    const options = comment !== undefined && this.#isPcapng ? this.#comment(comment) : NO_OPTIONS;
    const packet = { interfaceIndex: 0, time, bytes, originalLength, options };
    this.#put(
      this.#isPcapng
        ? pcapngRecord(packet, { snapLength: SNAP_LENGTH }, this.#count)
        : pcapRecord(packet, this.#count, true),
    );
  }

  commit(): void {
    this.#flush();
    if (this.#descriptor === STDOUT) return;
    closeSync(this.#descriptor);
    if (this.#written === this.path) return;
    attempt(this.path, () => renameSync(this.#written, this.path));
  }

  /** Leaves nothing behind. */
  abandon(): void {
    if (this.#descriptor === STDOUT) return;
    closeSync(this.#descriptor);
    if (this.#written !== this.path) rmSync(this.#written, { force: true });
  }

  #comment(text: string): readonly CaptureOption[] {
    let options = this.#comments.get(text);
    if (!options) {
      if (this.#comments.size >= MAX_COMMENTS) this.#comments.clear();
      options = [commentOption(text)];
      this.#comments.set(text, options);
    }
    return options;
  }

  #put(bytes: Uint8Array): void {
    if (this.#size + bytes.length > BUFFER_BYTES) this.#flush();
    if (bytes.length > BUFFER_BYTES) return this.#write(bytes);
    this.#buffer.set(bytes, this.#size);
    this.#size += bytes.length;
  }

  #flush(): void {
    this.#write(this.#buffer.subarray(0, this.#size));
    this.#size = 0;
  }

  #write(bytes: Uint8Array): void {
    attempt(this.path, () => {
      for (let at = 0; at < bytes.length;) at += writeSync(this.#descriptor, bytes, at);
    });
  }
}

/** A file, or nothing yet. */
function isOrdinary(path: string): boolean {
  if (path === '-') return false;
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? true;
}
