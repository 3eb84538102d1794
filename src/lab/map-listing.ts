/**
 * Prints map contents: one line per entry, integers as numbers, everything else as bytes.
 *
 * Per-CPU values are printed per CPU with their sum. Entries that are zero are left out of arrays, which
 * always have all their entries.
 */
import type { BpfMap } from '../bpf/maps/map.js';
import { bytesToHex, viewOf } from '../common/bytes.js';

function formatBytes(bytes: Uint8Array): string {
  const view = viewOf(bytes);
  switch (bytes.length) {
    case 1:
      return String(view.getUint8(0));
    case 2:
      return String(view.getUint16(0, true));
    case 4:
      return String(view.getUint32(0, true));
    case 8:
      return String(view.getBigUint64(0, true));
    default:
      return bytesToHex(bytes).replace(/(..)(?=.)/g, '$1 ');
  }
}

function formatValues(values: readonly Uint8Array[]): string {
  const [first] = values;
  if (first === undefined) return '';
  if (values.length === 1) return formatBytes(first);
  const perCpu = values.map((value, cpu) => `cpu${cpu} ${formatBytes(value)}`).join(', ');
  if (values.some((value) => value.length !== 8)) return perCpu;
  const sum = values.reduce((total, value) => total + viewOf(value).getBigUint64(0, true), 0n);
  return `${sum} (${perCpu})`;
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/** `key: value` lines of a map's entries. */
export function listMap(map: BpfMap): string[] {
  const isArray = map.spec.type.endsWith('ARRAY');
  const lines: string[] = [];
  for (const { key, values } of map.entries()) {
    if (isArray && values.every(isZero)) continue;
    lines.push(`${formatBytes(key)}: ${formatValues(values)}`);
  }
  return lines;
}
