/**
 * Fields of a message and parts made of them: one table that says how a field is read, written and shown.
 *
 * All numbers are big-endian, except `littleEndian32`, which stands as it lies in the memory of the machines
 * that Linux runs on.
 *
 * Usage:
 *   const GID_CHID = part('gid, chid', 10, { gid: u64(0), chid: u16(8, chidName) });
 *   writePart(GID_CHID, view, at, { gid: 1n, chid: 0xffff });
 *   const { gid } = readPart(GID_CHID, view, at);
 */

/** What the printer needs of a field. */
export interface AnyField {
  readonly offset: number;
  readonly size: number;
  /** The fields of a byte: `release:4 seid:1`; undefined where the name in the table says it. */
  readonly label: string | undefined;
  /** In words; empty where the bytes say it. */
  describe(view: DataView, at: number): string;
}

export interface Field<T> extends AnyField {
  /** `at` is the start of the part. */
  read(view: DataView, at: number): T;
  write(view: DataView, at: number, value: T): void;
}

export interface Part<F extends Readonly<Record<string, AnyField>>> {
  readonly name: string;
  readonly size: number;
  readonly fields: F;
}

export type AnyPart = Part<Readonly<Record<string, AnyField>>>;

type FieldsOf<F> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };

/** The values of a part's fields, by name. */
export type ValuesOf<P> = P extends Part<infer F> ? FieldsOf<F> : never;

export function part<F extends Readonly<Record<string, AnyField>>>(
  name: string,
  size: number,
  fields: F,
): Part<F> {
  return { name, size, fields };
}

export function readPart<F extends Readonly<Record<string, AnyField>>>(
  { fields }: Part<F>,
  view: DataView,
  at: number,
): FieldsOf<F> {
  const entries = Object.entries(fields).map(([name, each]) => [
    name,
    (each as Field<unknown>).read(view, at),
  ]);
  return Object.fromEntries(entries) as FieldsOf<F>;
}

/** Fields that are not given stay as they are. */
export function writePart<F extends Readonly<Record<string, AnyField>>>(
  { fields }: Part<F>,
  view: DataView,
  at: number,
  values: Partial<FieldsOf<F>>,
): void {
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined) (fields[name] as Field<unknown>).write(view, at, value);
  }
}

/** Sees the value and the message: what a field says may hang on the message's type. */
type Show<T> = (value: T, message: DataView) => string;

function field<T>(
  offset: number,
  size: number,
  access: Pick<Field<T>, 'read' | 'write'>,
  show: Show<T>,
  label?: string,
): Field<T> {
  return {
    offset,
    size,
    label,
    ...access,
    describe: (view, at) => show(access.read(view, at), view),
  };
}

const silent = (): string => '';
const decimal = (value: number): string => String(value);

export function u8(offset: number, show: Show<number> = decimal): Field<number> {
  const access = {
    read: (view: DataView, at: number) => view.getUint8(at + offset),
    write: (view: DataView, at: number, value: number) => view.setUint8(at + offset, value),
  };
  return field(offset, 1, access, show);
}

export function u16(offset: number, show: Show<number> = decimal): Field<number> {
  const access = {
    read: (view: DataView, at: number) => view.getUint16(at + offset),
    write: (view: DataView, at: number, value: number) => view.setUint16(at + offset, value),
  };
  return field(offset, 2, access, show);
}

export function u32(offset: number, show: Show<number> = silent): Field<number> {
  const access = {
    read: (view: DataView, at: number) => view.getUint32(at + offset),
    write: (view: DataView, at: number, value: number) => view.setUint32(at + offset, value),
  };
  return field(offset, 4, access, show);
}

export function u64(offset: number): Field<bigint> {
  const access = {
    read: (view: DataView, at: number) => view.getBigUint64(at + offset),
    write: (view: DataView, at: number, value: bigint) => view.setBigUint64(at + offset, value),
  };
  return field(offset, 8, access, silent);
}

/** Four bytes that are a number in the memory of their machine. */
export function littleEndian32(offset: number): Field<number> {
  const access = {
    read: (view: DataView, at: number) => view.getUint32(at + offset, true),
    write: (view: DataView, at: number, value: number) => view.setUint32(at + offset, value, true),
  };
  return field(offset, 4, access, (value) => `0x${value.toString(16).padStart(8, '0')}`);
}

export function bytes(
  offset: number,
  size: number,
  show: Show<Uint8Array> = silent,
): Field<Uint8Array> {
  const slice = (view: DataView, at: number): Uint8Array =>
    new Uint8Array(view.buffer, view.byteOffset + at + offset, size);
  const access = {
    read: (view: DataView, at: number) => slice(view, at).slice(),
    write: (view: DataView, at: number, value: Uint8Array) => slice(view, at).set(value),
  };
  return field(offset, size, access, show);
}

/** 32 bytes of text with blanks behind. */
export function text32(offset: number): Field<Uint8Array> {
  return bytes(offset, 32, (value) => {
    if (value.every((each) => each === 0)) return 'none';
    return `'${new TextDecoder('latin1').decode(value).trimEnd()}'`;
  });
}

/** Fields of one byte: the lowest bit and the width of each. */
export function bits<N extends string>(
  offset: number,
  places: Readonly<Record<N, readonly [low: number, width: number]>>,
  show: Show<Readonly<Record<N, number>>>,
): Field<Readonly<Record<N, number>>> {
  const entries = Object.entries(places) as [N, readonly [number, number]][];
  const access = {
    read: (view: DataView, at: number) => {
      const byte = view.getUint8(at + offset);
      return Object.fromEntries(
        entries.map(([name, [low, width]]) => [name, (byte >> low) & ((1 << width) - 1)]),
      ) as Readonly<Record<N, number>>;
    },
    write: (view: DataView, at: number, value: Readonly<Record<N, number>>) => {
      const byte = entries.reduce((sum, [name, [low]]) => sum | (value[name] << low), 0);
      view.setUint8(at + offset, byte);
    },
  };
  const label = entries.map(([name, [, width]]) => `${name}:${width}`).join(' ');
  return field(offset, 1, access, show, label);
}
