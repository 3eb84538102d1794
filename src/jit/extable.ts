/**
 * The exception table of a program: where a faulting access resumes and which register it clears.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: add_exception_handler, ex_handler_bpf;
 * struct exception_table_entry (12 bytes: s32 insn, u32 fixup, s16 type, s16 data). Each PROBE_* access has
 * one entry, for the last word of its code. `fixup` is, by version,
 *
 *   6.1, 6.12   rrrrr ooo oooooooo oooooooo oooooooo   register, offset of the next word back from &fixup
 *   7.3         register and what was accessed: `arenaFixup`
 *
 * Register 5 is no BPF register's home: it means "clear nothing".
 */
import type { Slot } from '../bpf/instruction.js';
import type { FunctionContext } from './context.js';

export const EXTABLE_ENTRY_SIZE = 12;
const EX_TYPE_BPF = 1;
export const DONT_CLEAR = 5;
/** Upper half of the BRK #0x100 that fills fresh images, as the entry's untouched `data` shows it. */
const FILL = 0xd420 - 0x10000;

/** The arena access that an entry is for: the unadjusted address register and the slot. */
export interface ArenaAccess {
  readonly register: number;
  readonly slot: Slot;
  readonly write: boolean;
}

/** Adds the entry of the access whose last word was just emitted. */
export function addExtableEntry(
  ctx: FunctionContext,
  register: number,
  arena: ArenaAccess | undefined,
): void {
  const { pc } = ctx.code;
  if (pc === undefined || ctx.extableAddress === undefined) return;
  const entry = ctx.extableAddress + BigInt(EXTABLE_ENTRY_SIZE * ctx.extable.length);
  const insn = Number(pc - 4n - entry);
  ctx.extable.push({
    insn,
    fixup: ctx.profile.fixup(ctx, register, Number(entry + 4n - pc), arena),
    type: EX_TYPE_BPF,
    data: FILL,
  });
}

/** fixup of 6.1 and 6.12. */
export function offsetFixup(ctx: FunctionContext, register: number, offset: number): number {
  if (offset < 0 || offset >= 2 ** 27) throw ctx.refuse('exception table too far away');
  return (((register << 27) >>> 0) | offset) >>> 0;
}
