/** Captures written packet by packet: read back the same, and put in place only when they are whole. */
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { commentsOf } from '../../src/net/capture.js';
import { readCapture } from '../../src/net/read-capture.js';
import { CaptureFile } from '../../src/node/capture-file.js';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'capture-'));
});

afterEach(() => rmSync(folder, { recursive: true }));

test.each([
  ['out.pcap', []],
  ['out.pcapng', ['XDP_PASS, stack']],
])('%s reads back', (name, comments) => {
  const path = join(folder, name);
  const file = new CaptureFile(path);
  const frames = Array.from({ length: 300 }, (_, i) => new Uint8Array(60 + i).fill(i));
  for (const [i, bytes] of frames.entries()) {
    file.add({ bytes, time: BigInt(i) * 1_000_000_001n, comment: 'XDP_PASS, stack' });
  }
  expect(existsSync(path)).toBe(false);
  file.commit();
  const { packets } = readCapture(new Uint8Array(readFileSync(path)));
  expect(packets.map(({ bytes }) => bytes)).toEqual(frames);
  expect(packets[7]?.time).toBe(7_000_000_007n);
  expect(commentsOf(packets[0]?.options ?? [])).toEqual(comments);
  expect(readdirSync(folder)).toEqual([name]);
});

test('a file that is given up leaves what was there', () => {
  const path = join(folder, 'old.pcap');
  writeFileSync(path, 'old');
  const file = new CaptureFile(path);
  file.add({ bytes: new Uint8Array(60), time: 0n });
  file.abandon();
  expect(readFileSync(path, 'utf8')).toBe('old');
  expect(readdirSync(folder)).toEqual(['old.pcap']);
});

test('a place that cannot be written is named', () => {
  const path = join(folder, 'none', 'x.pcap');
  expect(() => new CaptureFile(path)).toThrow(`${path}: no such file`);
});
