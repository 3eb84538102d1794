/**
 * Structures that the test functions of `asm/` take: their size by value, their members for BTF.
 *
 * Reference: net/bpf/test_run.c (bpf_fentry_test_t), tools/testing/selftests/bpf/bpf_testmod (the others); own
 * functions of the same shape are in `asm/modules/bpf_testmod.s`.
 */
import type { BtfBuilder, FieldDeclaration } from '../bpf/btf/builder.js';
import type { StructSizes } from './prototype.js';

interface TestStruct {
  readonly size: number;
  readonly fields: Readonly<Record<string, FieldDeclaration>>;
}

const TEST_STRUCTS: Readonly<Record<string, TestStruct>> = {
  bpf_fentry_test_t: { size: 8, fields: { a: ['struct bpf_fentry_test_t *', 0] } },
  bpf_testmod_struct_arg_1: { size: 4, fields: { a: ['int', 0] } },
  bpf_testmod_struct_arg_2: { size: 16, fields: { a: ['long', 0], b: ['long', 8] } },
  bpf_testmod_struct_arg_3: { size: 4, fields: { a: ['int', 0], b: ['int[0]', 4] } },
  bpf_testmod_struct_arg_4: { size: 16, fields: { a: ['u64', 0], b: ['int', 8] } },
  bpf_testmod_struct_arg_5: {
    size: 16,
    fields: { a: ['char', 0], b: ['short', 2], c: ['int', 4], d: ['long', 8] },
  },
};

export const TEST_STRUCT_SIZES: StructSizes = Object.fromEntries(
  Object.entries(TEST_STRUCTS).map(([tag, { size }]) => [tag, size]),
);

export function declareTestTypes(builder: BtfBuilder): void {
  for (const [tag, { size, fields }] of Object.entries(TEST_STRUCTS)) {
    builder.struct(tag, size, fields);
  }
}
