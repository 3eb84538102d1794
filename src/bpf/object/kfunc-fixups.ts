/**
 * What the loader puts in front of calls on objects that programs allocate: sizes, records, offsets.
 *
 * The program passes nothing there; the verifier knows. A record is passed as the address of its
 * btf_struct_meta. Reference: fixup_kfunc_call, __fixup_collection_insert_kfunc, do_misc_fixups in
 * kernel/bpf/verifier.c.
 *
 *   bpf_obj_new_impl          r1 = size; r2 = meta ll; call
 *   bpf_list_push_front_impl  r3 = meta ll; r4 = offset of the node; call
 */
import { high32, low32 } from '../../common/bytes.js';
import type { BtfRecord } from '../btf/record.js';
import type { BpfHost } from '../host.js';
import { makeSlot, type Slot } from '../instruction.js';
import type { CallFixup } from '../verifier/input.js';

const MOV64_IMM = 0xb7;
const LD_IMM64 = 0x18;
const LDX_DW = 0x79;

/** The instructions in front of a call. */
export function beforeCall(fixup: CallFixup, host: BpfHost): readonly Slot[] {
  switch (fixup.kind) {
    case 'new':
      return [makeSlot(MOV64_IMM, { dst: 1, imm: fixup.size }), ...meta(fixup.record, 2, host)];
    case 'meta':
      return meta(fixup.record, 2, host);
    case 'insert':
      return [
        ...meta(fixup.record, fixup.register, host),
        makeSlot(MOV64_IMM, { dst: fixup.register + 1, imm: fixup.offset }),
      ];
    case 'percpu':
      return [makeSlot(LDX_DW, { dst: 1, src: 1 })];
  }
}

/** The records that fixups name. */
export function recordsOf(fixups: Iterable<CallFixup>): BtfRecord[] {
  return [...fixups].flatMap((fixup) =>
    fixup.kind !== 'percpu' && fixup.record ? [fixup.record] : [],
  );
}

/** ld_imm64 of the address that stands for a record, 0 for none. */
function meta(record: BtfRecord | undefined, dst: number, host: BpfHost): readonly Slot[] {
  const address = record ? host.objects.metaOf(host, record) : 0n;
  return [makeSlot(LD_IMM64, { dst, imm: low32(address) }), makeSlot(0, { imm: high32(address) })];
}
