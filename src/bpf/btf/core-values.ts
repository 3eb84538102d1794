/**
 * The number that a CO-RE relocation puts into its instruction: an offset, a size, a shift, a type id,
 * an enum value, or whether something is there at all.
 *
 * Reference: bpf_core_calc_field_relo, bpf_core_calc_type_relo and bpf_core_calc_enumval_relo in
 * tools/lib/bpf/relo_core.c. A bit field is read with a load of its own type's size, twice as wide where
 * the field crosses that; then `<< LSHIFT_U64 >> RSHIFT_U64` brings it down:
 *
 *   63          ^ LSHIFT       field          load          0
 */
import { InputError } from '../../common/errors.js';
import { isEnum } from './core-compat.js';
import { CORE_KIND, describeCoreSpec, memberOf, type CoreSpec } from './core-spec.js';

/** A value, and what is known of the field for mending the access. */
export interface CoreValue {
  readonly value: bigint;
  /** Of an offset of a field that is no bit field: its size and type. */
  readonly field?: { readonly size: number; readonly type: number };
  /** Whether the local value must already be in the instruction. */
  readonly validate: boolean;
}

/** The value for `spec`; undefined when it takes something that is not there. */
export function coreValue(kind: number, spec: CoreSpec | undefined): CoreValue | undefined {
  switch (kind) {
    case CORE_KIND.FIELD_EXISTS:
    case CORE_KIND.ENUMVAL_EXISTS:
      return exactly(spec ? 1n : 0n);
    case CORE_KIND.FIELD_BYTE_OFFSET:
    case CORE_KIND.FIELD_BYTE_SIZE:
    case CORE_KIND.FIELD_SIGNED:
    case CORE_KIND.FIELD_LSHIFT_U64:
    case CORE_KIND.FIELD_RSHIFT_U64:
      return spec && fieldValue(kind, spec);
    case CORE_KIND.TYPE_ID_LOCAL:
    case CORE_KIND.TYPE_ID_TARGET:
      // ids move when objects are linked
      return { value: BigInt(spec?.root ?? 0), validate: false };
    case CORE_KIND.TYPE_EXISTS:
    case CORE_KIND.TYPE_MATCHES:
      return exactly(spec ? 1n : 0n);
    case CORE_KIND.TYPE_SIZE:
      return exactly(spec ? BigInt(spec.btf.sizeOf(spec.root)) : 0n);
    case CORE_KIND.ENUMVAL_VALUE:
      return spec && exactly(enumValue(spec));
    default:
      throw new InputError(`CO-RE relocation of unknown kind ${kind}`);
  }
}

function exactly(value: bigint): CoreValue {
  return { value, validate: true };
}

function enumValue({ btf, steps }: CoreSpec): bigint {
  const [step] = steps;
  const type = btf.at(step?.type ?? 0);
  const value = isEnum(type) ? type.values[step?.index ?? 0]?.value : undefined;
  if (value === undefined) throw new InputError('CO-RE relocation of an enum value without enum');
  // 32-bit values are kept as __s32
  return type.kind === 'enum' ? BigInt.asIntN(32, value) : value;
}

function fieldValue(kind: number, spec: CoreSpec): CoreValue {
  const { btf, bitOffset } = spec;
  const last = spec.steps.at(-1);
  if (!last) throw new InputError('CO-RE relocation of a field without field');
  if (last.name === undefined) {
    const size = btf.sizeOf(last.type);
    if (kind === CORE_KIND.FIELD_BYTE_OFFSET) {
      return { ...exactly(BigInt(Math.floor(bitOffset / 8))), field: { size, type: last.type } };
    }
    if (kind === CORE_KIND.FIELD_BYTE_SIZE) return exactly(BigInt(size));
    throw new InputError(`CO-RE relocation kind ${kind} of ${describeCoreSpec(spec)}: no member`);
  }
  const member = memberOf(btf, last);
  const type = btf.resolveId(member.type);
  const isBitField = member.bitSize > 0;
  let bytes = btf.sizeOf(type);
  let offset = Math.floor(bitOffset / 8);
  if (isBitField) {
    for (;;) {
      if (bytes < 1 || bytes > 8) {
        throw new InputError(`CO-RE: bit field ${describeCoreSpec(spec)} takes over 8 bytes`);
      }
      offset = Math.floor(bitOffset / 8 / bytes) * bytes;
      if (bitOffset + member.bitSize <= 8 * (offset + bytes)) break;
      bytes *= 2;
    }
  }
  const bits = isBitField ? member.bitSize : 8 * bytes;
  switch (kind) {
    case CORE_KIND.FIELD_BYTE_OFFSET:
      return {
        value: BigInt(offset),
        validate: !isBitField,
        ...(isBitField ? {} : { field: { size: bytes, type } }),
      };
    case CORE_KIND.FIELD_BYTE_SIZE:
      return { value: BigInt(bytes), validate: !isBitField };
    case CORE_KIND.FIELD_SIGNED: {
      const field = btf.at(type);
      return exactly(isEnum(field) || (field.kind === 'int' && field.signed) ? 1n : 0n);
    }
    case CORE_KIND.FIELD_LSHIFT_U64:
      return {
        value: BigInt.asUintN(64, BigInt(64 - (bitOffset + bits - 8 * offset))),
        validate: !isBitField,
      };
    default:
      return exactly(BigInt.asUintN(64, BigInt(64 - bits)));
  }
}
