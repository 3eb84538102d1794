/**
 * Places on the stack that hold what nobody looks at: registers that a compiled function has left behind, saved by code
 * that saves all of them. What is loaded from there is as unknown as what was stored.
 *
 *   STP Xt, Xt2, [Xn, #imm7 * 8]     STR Xt, [Xn, #imm12 * 8]      and the loads
 */
import type { Decoded } from '../../../a64/codec.js';

/** Registers of an access with their addresses; undefined for other instructions. */
function accessOf(
  { row, fields }: Decoded,
  read: (register: number) => bigint,
):
  { readonly stores: boolean; readonly slots: readonly (readonly [number, bigint])[] } | undefined {
  const match = /^(ST|LD)(P_offset|R_unsigned)$/.exec(row.name);
  if (!match || fields['sf'] !== 1) return undefined;
  const { Rn = 0, Rt = 0, Rt2 = 0, imm7 = 0, imm12 = 0 } = fields;
  const isPair = match[2] === 'P_offset';
  const address = read(Rn) + BigInt(8 * (isPair ? imm7 : imm12));
  const slots: (readonly [number, bigint])[] = [[Rt, address]];
  if (isPair) slots.push([Rt2, address + 8n]);
  return { stores: match[1] === 'ST', slots };
}

export class UnknownSlots {
  readonly #slots = new Set<bigint>();

  /**
   * An instruction is about to be executed. Keeps what it stores; the value are the registers that get
   * something unknown. `read` gives a register (31: SP) as it is before.
   */
  follow(
    code: Decoded | undefined,
    read: (register: number) => bigint,
    isUnknown: (register: number) => boolean,
  ): readonly number[] {
    const access = code && accessOf(code, read);
    if (!access) return [];
    if (!access.stores) {
      return access.slots.flatMap(([register, slot]) => (this.#slots.has(slot) ? [register] : []));
    }
    for (const [register, slot] of access.slots) {
      if (isUnknown(register)) this.#slots.add(slot);
      else this.#slots.delete(slot);
    }
    return [];
  }
}
