/**
 * Prints executed instructions and patch sites in the columns of a debugger session: pc, word,
 * symbol+offset, instruction, changed registers.
 */
import { print } from '../a64/print.js';
import { hex32 } from '../common/bytes.js';
import { NZCV, SP, type TraceEntry } from '../cpu/cpu.js';
import { literalCall } from '../kernel/ftrace/site-form.js';
import type { Kernel } from '../kernel/kernel.js';

const SYMBOL_WIDTH = 32;
const TEXT_WIDTH = 38;

function registerName(register: number): string {
  if (register === SP) return 'sp';
  if (register === NZCV) return 'nzcv';
  return `x${register}`;
}

/** One line per instruction; `note` may add a remark behind one. */
export function listTrace(
  kernel: Kernel,
  entries: readonly TraceEntry[],
  note: (entry: TraceEntry) => string | undefined = () => undefined,
): string[] {
  return entries.map((entry) => {
    const changes = entry.changes.map(
      ({ register, value }) => `${registerName(register)}=0x${value.toString(16)}`,
    );
    const remark = note(entry);
    const tail = [...changes, ...(remark === undefined ? [] : [`; ${remark}`])].join(' ');
    return `${instructionColumns(kernel, entry.pc, entry.word)}${tail}`.trimEnd();
  });
}

/** `ffff800080010440 aa1e03e9 bpf_fentry_test2+0x0   mov x9, x30   ` padded for what follows. */
function instructionColumns(kernel: Kernel, pc: bigint, word: number): string {
  const symbol = kernel.symbols.format(pc).padEnd(SYMBOL_WIDTH);
  const text = print(word, pc, (address) => kernel.symbols.format(address)).padEnd(TEXT_WIDTH);
  return `${pc.toString(16)} ${hex32(word)} ${symbol} ${text} `;
}

/** The first words of a function of a BPF program: what bpf_arch_text_poke changes is the second. */
export function listProgramSite(kernel: Kernel, address: bigint): string[] {
  return [0n, 4n, 8n].map((at) =>
    instructionColumns(kernel, address + at, kernel.memory.read32(address + at)).trimEnd(),
  );
}

/** The words around a patch site: what stands before it, BTI, MOV, NOP or BL, and what its literal points at. */
export function listSite(kernel: Kernel, name: string): string[] {
  const { address } = kernel.symbols.get(name);
  const site = kernel.ftrace.location(address) ?? address + 4n;
  const lines = listBefore(kernel, address);
  for (let at = address; at < site + 8n; at += 4n) {
    lines.push(instructionColumns(kernel, at, kernel.memory.read32(at)).trimEnd());
  }
  return lines;
}

function listBefore(kernel: Kernel, address: bigint): string[] {
  const { callOps, site } = kernel.ftrace.profile;
  if (callOps) {
    const literal = kernel.memory.read64(address - 8n);
    const ops = kernel.symbols.lookup(literal)?.name ?? kernel.ftrace.opsAt(literal)?.name ?? '?';
    return [quad(address - 8n, literal, `&${ops}`)];
  }
  if (site !== '7,5') return [];
  const places = literalCall((address & 7n) === 0n);
  const literal = kernel.memory.read64(address + BigInt(places.literal));
  const target = kernel.symbols.format(literal);
  return [
    quad(address + BigInt(places.literal), literal, target),
    ...[0n, 4n].map((word) => {
      const at = address + BigInt(places.call) + word;
      return instructionColumns(kernel, at, kernel.memory.read32(at)).trimEnd();
    }),
  ];
}

function quad(at: bigint, value: bigint, what: string): string {
  return `${at.toString(16)} .quad 0x${value.toString(16)}    ; ${what}`;
}
