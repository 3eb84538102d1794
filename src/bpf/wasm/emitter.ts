/**
 * A WebAssembly binary writer: bytes of function bodies, and the module around them.
 *
 * Reference: WebAssembly core specification, binary format (LEB128 numbers, sections 1 to 10). Only
 * what the eBPF tier needs is here: i32 and i64, one imported memory, imported functions, one table,
 * exports. Left out: floats, globals of its own, data segments, names.
 *
 * Usage:
 *   const code = new CodeWriter();
 *   code.get(0).get(1).op(OP.i64_add);
 *   const module = new ModuleWriter();
 *   const type = module.type([I64, I64], [I64]);
 */

export const I32 = 0x7f;
export const I64 = 0x7e;
/** A value of the embedder that wasm only hands on. */
export const EXTERNREF = 0x6f;
export type ValueType = typeof I32 | typeof I64 | typeof EXTERNREF;

/** Opcodes, by their names in the text format with `_` for the dot. */
export const OP = {
  unreachable: 0x00,
  block: 0x02,
  loop: 0x03,
  if: 0x04,
  else: 0x05,
  end: 0x0b,
  br: 0x0c,
  br_if: 0x0d,
  br_table: 0x0e,
  return: 0x0f,
  call: 0x10,
  call_indirect: 0x11,
  drop: 0x1a,
  select: 0x1b,
  local_get: 0x20,
  local_set: 0x21,
  local_tee: 0x22,
  global_get: 0x23,
  i32_load: 0x28,
  i64_load: 0x29,
  i32_load8_u: 0x2d,
  i32_load16_u: 0x2f,
  i64_load8_s: 0x30,
  i64_load8_u: 0x31,
  i64_load16_s: 0x32,
  i64_load16_u: 0x33,
  i64_load32_s: 0x34,
  i64_load32_u: 0x35,
  i32_store: 0x36,
  i64_store: 0x37,
  i32_store8: 0x3a,
  i32_store16: 0x3b,
  i64_store8: 0x3c,
  i64_store16: 0x3d,
  i64_store32: 0x3e,
  i32_const: 0x41,
  i64_const: 0x42,
  i32_eqz: 0x45,
  i32_eq: 0x46,
  i32_ne: 0x47,
  i32_lt_s: 0x48,
  i32_lt_u: 0x49,
  i32_gt_s: 0x4a,
  i32_gt_u: 0x4b,
  i32_le_s: 0x4c,
  i32_le_u: 0x4d,
  i32_ge_s: 0x4e,
  i32_ge_u: 0x4f,
  i64_eqz: 0x50,
  i64_eq: 0x51,
  i64_ne: 0x52,
  i64_lt_s: 0x53,
  i64_lt_u: 0x54,
  i64_gt_s: 0x55,
  i64_gt_u: 0x56,
  i64_le_s: 0x57,
  i64_le_u: 0x58,
  i64_ge_s: 0x59,
  i64_ge_u: 0x5a,
  i32_add: 0x6a,
  i32_sub: 0x6b,
  i32_mul: 0x6c,
  i32_div_s: 0x6d,
  i32_div_u: 0x6e,
  i32_rem_s: 0x6f,
  i32_rem_u: 0x70,
  i32_and: 0x71,
  i32_or: 0x72,
  i32_xor: 0x73,
  i32_shl: 0x74,
  i32_shr_s: 0x75,
  i32_shr_u: 0x76,
  i32_rotl: 0x77,
  i64_add: 0x7c,
  i64_sub: 0x7d,
  i64_mul: 0x7e,
  i64_div_s: 0x7f,
  i64_div_u: 0x80,
  i64_rem_s: 0x81,
  i64_rem_u: 0x82,
  i64_and: 0x83,
  i64_or: 0x84,
  i64_xor: 0x85,
  i64_shl: 0x86,
  i64_shr_s: 0x87,
  i64_shr_u: 0x88,
  i64_rotl: 0x89,
  i32_wrap_i64: 0xa7,
  i64_extend_i32_s: 0xac,
  i64_extend_i32_u: 0xad,
  i32_extend8_s: 0xc0,
  i32_extend16_s: 0xc1,
  i64_extend8_s: 0xc2,
  i64_extend16_s: 0xc3,
  i64_extend32_s: 0xc4,
} as const;

/** A growing run of bytes. */
class ByteWriter {
  bytes: Uint8Array;
  length = 0;

  constructor(capacity = 256) {
    this.bytes = new Uint8Array(capacity);
  }

  u8(value: number): this {
    if (this.length === this.bytes.length) this.#grow(this.length + 1);
    this.bytes[this.length++] = value;
    return this;
  }

  /** Unsigned LEB128. */
  u32(value: number): this {
    let rest = value >>> 0;
    while (rest > 0x7f) {
      this.u8((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    return this.u8(rest);
  }

  /** Signed LEB128 of an Int32. */
  s32(value: number): this {
    let rest = value | 0;
    while (rest < -0x40 || rest > 0x3f) {
      this.u8((rest & 0x7f) | 0x80);
      rest >>= 7;
    }
    return this.u8(rest & 0x7f);
  }

  /** Signed LEB128 of 64 bits. */
  s64(value: bigint): this {
    let rest = BigInt.asIntN(64, value);
    while (rest < -0x40n || rest > 0x3fn) {
      this.u8(Number(rest & 0x7fn) | 0x80);
      rest >>= 7n;
    }
    return this.u8(Number(rest & 0x7fn));
  }

  name(text: string): this {
    const encoded = new TextEncoder().encode(text);
    return this.u32(encoded.length).append(encoded);
  }

  append(other: Uint8Array): this {
    const end = this.length + other.length;
    if (end > this.bytes.length) this.#grow(end);
    this.bytes.set(other, this.length);
    this.length = end;
    return this;
  }

  clear(): void {
    this.length = 0;
  }

  /** What was written so far, not copied. */
  written(): Uint8Array {
    return this.bytes.subarray(0, this.length);
  }

  #grow(least: number): void {
    const bytes = new Uint8Array(Math.max(least, 2 * this.bytes.length));
    bytes.set(this.written());
    this.bytes = bytes;
  }
}

/** The body of a function: one method per shape of instruction. */
export class CodeWriter extends ByteWriter {
  /** Open blocks, loops and ifs: what branch depths count. */
  depth = 0;

  op(opcode: number): this {
    return this.u8(opcode);
  }

  get(local: number): this {
    return this.u8(OP.local_get).u32(local);
  }

  set(local: number): this {
    return this.u8(OP.local_set).u32(local);
  }

  tee(local: number): this {
    return this.u8(OP.local_tee).u32(local);
  }

  i32(value: number): this {
    return this.u8(OP.i32_const).s32(value);
  }

  /** An i64 constant that fits Int32. */
  i64(value: number): this {
    return this.u8(OP.i64_const).s32(value);
  }

  i64Big(value: bigint): this {
    return this.u8(OP.i64_const).s64(value);
  }

  /** A load or store at the address on the stack plus `offset`; claims no alignment. */
  memory(opcode: number, offset = 0): this {
    return this.u8(opcode).u8(0).u32(offset);
  }

  /** memory.copy */
  memoryCopy(): this {
    return this.u8(0xfc).u8(10).u8(0).u8(0);
  }

  call(index: number): this {
    return this.u8(OP.call).u32(index);
  }

  callIndirect(type: number): this {
    return this.u8(OP.call_indirect).u32(type).u8(0);
  }

  /** `block`, `loop` or `if` without result; gives the depth that `br` takes. */
  open(opcode: number): number {
    this.u8(opcode).u8(0x40);
    return ++this.depth;
  }

  end(): this {
    this.depth--;
    return this.u8(OP.end);
  }

  /** Branch to the construct that `open` gave `label` for. */
  branch(label: number, opcode: number = OP.br): this {
    return this.u8(opcode).u32(this.depth - label);
  }
}

interface FunctionBody {
  readonly type: number;
  readonly locals: readonly (readonly [number, ValueType])[];
  readonly code: Uint8Array;
}

/** Collects types, imports and functions, and writes the module. Imported functions come first. */
export class ModuleWriter {
  /** Writers that are free again: small programs take less time than new buffers. */
  readonly #writers: CodeWriter[] = [];
  readonly #types = new Map<string, number>();
  readonly #typeBytes = new ByteWriter();
  readonly #imports: { readonly name: string; readonly type: number }[] = [];
  readonly #globals: { readonly name: string; readonly type: ValueType }[] = [];
  readonly #bodies: (FunctionBody | undefined)[] = [];
  readonly #bodyTypes: number[] = [];
  readonly #exports: { readonly name: string; readonly index: number }[] = [];
  #elements: readonly number[] = [];

  type(parameters: readonly ValueType[], results: readonly ValueType[]): number {
    const key = `${parameters.join()}:${results.join()}`;
    const known = this.#types.get(key);
    if (known !== undefined) return known;
    const index = this.#types.size;
    this.#types.set(key, index);
    this.#typeBytes.u8(0x60).u32(parameters.length);
    for (const each of parameters) this.#typeBytes.u8(each);
    this.#typeBytes.u32(results.length);
    for (const each of results) this.#typeBytes.u8(each);
    return index;
  }

  /** All imports are made before the first `declare`. */
  import(name: string, type: number): number {
    if (this.#bodies.length > 0) throw new RangeError(`import ${name} behind a function`);
    return this.#imports.push({ name, type }) - 1;
  }

  /** Index of an imported constant. */
  importGlobal(name: string, type: ValueType): number {
    return this.#globals.push({ name, type }) - 1;
  }

  /** Index of a function whose body `define` gives. */
  declare(type: number): number {
    this.#bodyTypes.push(type);
    return this.#imports.length + this.#bodies.push(undefined) - 1;
  }

  /** A writer for one body; `define` takes it back. */
  writer(): CodeWriter {
    return this.#writers.pop() ?? new CodeWriter(4096);
  }

  define(index: number, locals: readonly (readonly [number, ValueType])[], code: CodeWriter): void {
    const at = index - this.#imports.length;
    const type = this.#bodyTypes[at];
    if (type === undefined) throw new RangeError(`no function ${index}`);
    this.#bodies[at] = { type, locals, code: code.written().slice() };
    code.clear();
    this.#writers.push(code);
  }

  export(name: string, index: number): void {
    this.#exports.push({ name, index });
  }

  /** Functions of the table, from 0. */
  table(functions: readonly number[]): void {
    this.#elements = functions;
  }

  /** The module; it imports memory `env.memory` of exactly `pages` 64 KiB pages. */
  bytes(pages: number): Uint8Array<ArrayBuffer> {
    const out = new ByteWriter(4096);
    out.append(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0));
    section(out, 1, (to) => to.u32(this.#types.size).append(this.#typeBytes.written()));
    section(out, 2, (to) => {
      to.u32(this.#imports.length + this.#globals.length + 1);
      to.name('env').name('memory').u8(2).u8(1).u32(pages).u32(pages);
      for (const { name, type } of this.#imports) to.name('env').name(name).u8(0).u32(type);
      for (const { name, type } of this.#globals) to.name('env').name(name).u8(3).u8(type).u8(0);
    });
    section(out, 3, (to) => {
      to.u32(this.#bodyTypes.length);
      for (const type of this.#bodyTypes) to.u32(type);
    });
    const size = this.#elements.length;
    section(out, 4, (to) => to.u32(1).u8(0x70).u8(1).u32(size).u32(size));
    section(out, 7, (to) => {
      to.u32(this.#exports.length);
      for (const { name, index } of this.#exports) to.name(name).u8(0).u32(index);
    });
    if (size > 0) {
      section(out, 9, (to) => {
        to.u32(1).u32(0).u8(OP.i32_const).u8(0).u8(OP.end).u32(size);
        for (const index of this.#elements) to.u32(index);
      });
    }
    const head = new ByteWriter(16);
    section(out, 10, (to) => {
      to.u32(this.#bodies.length);
      for (const body of this.#bodies) {
        if (!body) throw new RangeError('a function without a body');
        head.clear();
        head.u32(body.locals.length);
        for (const [count, type] of body.locals) head.u32(count).u8(type);
        to.u32(head.length + body.code.length + 1);
        to.append(head.written()).append(body.code).u8(OP.end);
      }
    });
    return new Uint8Array(out.written());
  }
}

function section(out: ByteWriter, id: number, write: (to: ByteWriter) => void): void {
  const content = new ByteWriter(1024);
  write(content);
  out.u8(id).u32(content.length).append(content.written());
}
