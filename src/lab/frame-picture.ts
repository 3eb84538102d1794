/**
 * Draws the stack frame of a BPF trampoline with the values it holds at one moment: records, saved
 * registers, ctx array, run context (see `jit/trampoline-frame.ts` for the layout).
 */
import { hex64 } from '../common/bytes.js';
import { argumentSlots, placeArguments } from '../jit/trampoline-model.js';
import type { PlacedImage, Trampoline } from '../kernel/bpf/trampoline.js';
import type { Kernel } from '../kernel/kernel.js';
import type { Prototype } from '../kernel/prototype.js';

interface Slot {
  readonly offset: number;
  readonly name: string;
}

/** Bytes of a frame record. */
const FRAME_RECORD = 16;

/** Names of the ctx slots: `b`, or `b[0]`, `b[1]` for a structure. */
function slotNames({ parameters }: Prototype): string[] {
  return parameters.flatMap((parameter) => {
    const count = argumentSlots(parameter);
    if (count === 1) return [parameter.name];
    return Array.from({ length: count }, (_, i) => `${parameter.name}[${i}]`);
  });
}

function slotsOf(trampoline: Trampoline, image: PlacedImage): Slot[] {
  const { frame } = image.code;
  const names = slotNames(trampoline.model);
  const slots: Slot[] = [];
  const add = (offset: number | undefined, name: string): void => {
    if (offset !== undefined) slots.push({ offset, name });
  };
  if (frame.parentRecord !== undefined) {
    add(frame.parentRecord + 8, 'x9: return address in the caller');
    add(frame.parentRecord, "caller's x29");
  }
  add(frame.selfRecord + 8, `x30: return address in ${trampoline.target.name}`);
  add(frame.selfRecord, 'x29 -> record above');
  add(frame.x20, 'x20');
  add(frame.x19, 'x19');
  add(frame.retval, `ctx[${frame.argumentSlots}]: return value`);
  for (let i = frame.argumentSlots - 1; i >= 0; i--) {
    add(frame.args + 8 * i, `ctx[${i}]: ${names[i] ?? 'argument'}`);
  }
  const { registers, stackSlots } = placeArguments({ arguments: trampoline.model.parameters });
  const incoming = (frame.parentRecord ?? frame.selfRecord) + FRAME_RECORD;
  for (let i = 0; i < stackSlots; i++) {
    const name = names[registers + i] ?? 'argument';
    add(incoming + 8 * i, `${name}, as the caller passed it on the stack`);
    if (frame.outgoingSize > 0) add(8 * i, `${name}, on the stack for the original`);
  }
  for (let i = 0; i < frame.sessionCookieCount; i++) {
    add(frame.sessionCookies + 8 * i, `session cookie ${i}`);
  }
  add(frame.nregs, 'ctx[-1]: number of arguments');
  add(frame.ip, 'ctx[-2]: address of the function');
  add(frame.runCtx + 8, 'run_ctx.saved_run_ctx');
  add(frame.runCtx, 'run_ctx.bpf_cookie');
  return slots.sort((a, b) => b.offset - a.offset);
}

/** @param sp the trampoline's stack pointer while it runs its programs */
export function framePicture(kernel: Kernel, trampoline: Trampoline, sp: bigint): string[] {
  const { image } = trampoline;
  if (!image) return [];
  const known = (value: bigint): string => {
    const hit = kernel.symbols.lookup(value);
    return hit ? `  ${hit.name}+0x${hit.offset.toString(16)}` : '';
  };
  const slots = slotsOf(trampoline, image);
  const width = Math.max(...slots.map(({ name }) => name.length));
  const lines = slots.map(({ offset, name }) => {
    const address = sp + BigInt(offset);
    const value = kernel.memory.read64(address);
    const where = `sp+${offset}`.padStart(7);
    return `${where}  ${address.toString(16)} | ${name.padEnd(width)} | ${hex64(value)}${known(value)}`;
  });
  return lines;
}
