/**
 * A CPU that stopped on a fault, told in the way of an arm64 oops.
 *
 * `captureOops` takes what is needed out of the CPU (a plain value, for JSON), `printOops` writes
 * it: what happened, pc and lr as symbol+offset/size, sp, x29..x0, the call trace, the words around pc
 * and the instruction's text. The call trace follows frame records (x29: [previous x29, return
 * address], AAPCS64 §6.4.6) while they rise and can be read. References: die_kernel_fault in
 * arch/arm64/mm/fault.c, __show_regs in arch/arm64/kernel/process.c, dump_kernel_instr in traps.c.
 * Left out: ESR and page-table dumps (there are none), modules, taint flags.
 *
 * Usage:
 *   const stop = cpu.run();
 *   if (isOops(stop)) console.log(printOops(captureOops(cpu, stop, { symbols })));
 */
import { hex32, u64 } from '../common/bytes.js';
import { print } from '../a64/print.js';
import type { Cpu, Stop } from './cpu.js';
import { describeFault } from './fault.js';
import type { Memory } from './memory.js';
import { returnAddressText, symbolText, type SymbolLookup } from './symbols.js';

/** Stops that a kernel would not survive. */
export type OopsStop = Extract<Stop, { kind: 'fault' | 'undefined' | 'trap' }>;

export function isOops(stop: Stop): stop is OopsStop {
  return stop.kind === 'fault' || stop.kind === 'undefined' || stop.kind === 'trap';
}

export interface OopsOptions {
  readonly symbols?: SymbolLookup;
  /** Number of the CPU. Default: 0. */
  readonly cpu?: number;
  /** Name of the task that ran. */
  readonly task?: string;
}

/** Everything that is printed, as plain data. */
export interface Oops {
  /** First line. */
  readonly title: string;
  /** The access, for a fault. */
  readonly detail?: string;
  readonly cpu: number;
  readonly task?: string;
  readonly nzcv: number;
  readonly pc: bigint;
  readonly pcSymbol: string;
  readonly lr: bigint;
  readonly lrSymbol: string;
  readonly sp: bigint;
  /** X0..X29. */
  readonly x: readonly bigint[];
  /** pc first, then return addresses. */
  readonly callTrace: readonly string[];
  /** The four words before pc and the one at pc; `undefined` where none can be read. */
  readonly code: readonly (number | undefined)[];
  /** Text of the instruction at pc. */
  readonly instruction?: string;
}

const PAGE_ZERO_END = 4096n;
const MAX_FRAMES = 64;

function titleOf(stop: OopsStop, pc: bigint): string {
  const address = (value: bigint): string => u64(value).toString(16).padStart(16, '0');
  switch (stop.kind) {
    case 'fault': {
      const at = stop.fault.address;
      if (stop.fault.reason === 'landing pad') return 'Internal error: Oops - BTI';
      if (stop.fault.reason === 'alignment') {
        return `Unable to handle kernel unaligned access at virtual address ${address(at)}`;
      }
      if (at < PAGE_ZERO_END) {
        return `Unable to handle kernel NULL pointer dereference at virtual address ${address(at)}`;
      }
      if (stop.fault.reason === 'permission') {
        const what = {
          read: 'read from unreadable memory',
          write: 'write to read-only memory',
          fetch: 'execute from non-executable memory',
        }[stop.fault.access];
        return `Unable to handle kernel ${what} at virtual address ${address(at)}`;
      }
      return `Unable to handle kernel paging request at virtual address ${address(at)}`;
    }
    case 'undefined':
      return `Internal error: Oops - Undefined instruction: ${hex32(stop.word)} at ${address(pc)}`;
    case 'trap': {
      const immediate = `0x${stop.immediate.toString(16)}`;
      if (stop.instruction === 'brk')
        return `Unexpected kernel BRK exception at EL1 (${immediate})`;
      return `Unexpected ${stop.instruction.toUpperCase()} exception at EL1 (${immediate})`;
    }
  }
}

/** Takes the state of a stopped CPU. Memory is only read. */
export function captureOops(cpu: Cpu, stop: OopsStop, options: OopsOptions = {}): Oops {
  const { symbols } = options;
  const { pc } = cpu;
  const lr = cpu.getX(30);
  const code = [-16n, -12n, -8n, -4n, 0n].map((distance) => wordAt(cpu.memory, u64(pc + distance)));
  const word = code[4];
  return {
    title: titleOf(stop, pc),
    ...(stop.kind === 'fault' ? { detail: describeFault(stop.fault) } : {}),
    cpu: options.cpu ?? 0,
    ...(options.task === undefined ? {} : { task: options.task }),
    nzcv: cpu.nzcv,
    pc,
    pcSymbol: symbolText(pc, symbols),
    lr,
    lrSymbol: returnAddressText(lr, symbols),
    sp: cpu.sp,
    x: Array.from({ length: 30 }, (_, register) => cpu.getX(register)),
    callTrace: [
      symbolText(pc, symbols),
      ...unwind(cpu.memory, cpu.getX(29)).map((address) => returnAddressText(address, symbols)),
    ],
    code,
    ...(word === undefined
      ? {}
      : { instruction: print(word, pc, symbols && ((at) => symbolText(at, symbols))) }),
  };
}

function wordAt(memory: Memory, address: bigint): number | undefined {
  return memory.faultAt(address, 4, 'read') ? undefined : memory.read32(address);
}

/** Return addresses of the frame records from `frame` on. */
export function unwind(memory: Memory, frame: bigint): bigint[] {
  const addresses: bigint[] = [];
  let at = u64(frame);
  while (at !== 0n && at % 8n === 0n && addresses.length < MAX_FRAMES) {
    if (memory.faultAt(at, 16, 'read')) break;
    addresses.push(memory.read64(at + 8n));
    const previous = memory.read64(at);
    if (previous <= at) break;
    at = previous;
  }
  return addresses;
}

/** The oops as lines of text. */
export function printOops(oops: Oops): string {
  const hex = (value: bigint): string => value.toString(16).padStart(16, '0');
  const flags = ['N', 'Z', 'C', 'V'].map((letter, index) =>
    (oops.nzcv >> (3 - index)) & 1 ? letter : letter.toLowerCase(),
  );
  const lines = [oops.title];
  if (oops.detail !== undefined) lines.push(`Mem abort info: ${oops.detail}`);
  lines.push(`CPU: ${oops.cpu}${oops.task === undefined ? '' : ` Comm: ${oops.task}`}`);
  // EL1h
  const pstate = ((oops.nzcv << 28) | 5) >>> 0;
  lines.push(`pstate: ${hex32(pstate)} (${flags.join('')})`);
  lines.push(`pc : ${oops.pcSymbol}`, `lr : ${oops.lrSymbol}`, `sp : ${hex(oops.sp)}`);
  for (let first = 29; first > 0; first -= 3) {
    const row = [first, first - 1, first - 2].map(
      (register) => `x${register}`.padEnd(3) + `: ${hex(oops.x[register] ?? 0n)}`,
    );
    lines.push(row.join(' '));
  }
  lines.push('Call trace:', ...oops.callTrace.map((entry) => ` ${entry}`));
  const words = oops.code.map((word) => (word === undefined ? '????????' : hex32(word)));
  lines.push(`Code: ${words.slice(0, 4).join(' ')} (${words[4] ?? ''})`);
  if (oops.instruction !== undefined) lines.push(`      ${oops.instruction}`);
  return lines.join('\n');
}
