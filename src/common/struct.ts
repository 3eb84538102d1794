/**
 * C structures in kernel memory: named fields to offsets, with C's natural alignment.
 *
 * Where a layout of Linux matters outside the subsystem (skb_shared_info, xdp_frame, xdp_buff) the
 * fields are listed so that the offsets come out as in Linux; the driver's private structures have a
 * layout of our own, which the tables of fields below them document.
 *
 * Usage:
 *   const POINT = struct({ x: 'u32', y: 'u32' });
 *   ram.set32(point + POINT.offset.y, 7);
 */
import { alignUp } from './bytes.js';

/** An integer, or that many bytes (8-byte aligned). */
export type FieldType = 'u8' | 'u16' | 'u32' | 'u64' | number;

export interface StructLayout<Name extends string> {
  readonly size: number;
  readonly offset: { readonly [K in Name]: number };
  /** As they were given. */
  readonly types: { readonly [K in Name]: FieldType };
}

const INTEGER_BYTES = { u8: 1, u16: 2, u32: 4, u64: 8 } as const;

export function struct<Name extends string>(fields: {
  readonly [K in Name]: FieldType;
}): StructLayout<Name> {
  const offset: Partial<Record<Name, number>> = {};
  let at = 0;
  for (const name of Object.keys(fields) as Name[]) {
    const type: FieldType = fields[name];
    const bytes = typeof type === 'number' ? type : INTEGER_BYTES[type];
    at = alignUp(at, typeof type === 'number' ? 8 : bytes);
    offset[name] = at;
    at += bytes;
  }
  // a copy: V8 keeps an object to which many fields were added one by one as a hash table
  const copy = { ...(offset as Record<Name, number>) };
  return { size: alignUp(at, 8), offset: copy, types: fields };
}
