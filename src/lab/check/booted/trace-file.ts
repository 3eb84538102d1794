/**
 * `vectors/kernel/V/trace.*.txt`: every instruction that a booted kernel executed in one call, in columns.
 *
 *   # 6.12 max,pauth-impdef=on 04_fentry_min.call: 159 instructions from bpf_fentry_test1+0x0 back to ...
 *   # columns: pc word symbol disassembly registers-changed
 *   ffff800080bccaf0 aa1e03e9 bpf_fentry_test1+0x0      mov x9, x30      x9=0xffff800080bceb98
 *
 * The symbol is the nearest before pc, so that of an image may be wrong; registers are those whose value
 * differs after the instruction.
 */
import { InputError } from '../../../common/errors.js';

export interface TraceRow {
  /** Line of the file, from 1 on. */
  readonly line: number;
  readonly pc: bigint;
  readonly word: number;
  readonly symbol: string;
  readonly text: string;
  /** By name: x0..x30, sp. */
  readonly changes: ReadonlyMap<string, bigint>;
}

export interface TraceFile {
  /** `6.12`. */
  readonly release: string;
  /** `04_fentry_min`. */
  readonly scenario: string;
  /** `call`. */
  readonly label: string;
  readonly rows: readonly TraceRow[];
}

const COLUMNS = '# columns: pc word symbol disassembly registers-changed';

/** Whether a text is such a file. */
export function isTraceFile(text: string): boolean {
  return text.split('\n', 3).includes(COLUMNS);
}

/** Throws InputError for a malformed file. */
export function readTraceFile(name: string, text: string): TraceFile {
  const lines = text.split('\n');
  const [, release, scenario, label] =
    /^# (\d+\.\d+)\b.* (\w+)\.(\w+): \d+ instr/.exec(lines[0] ?? '') ?? [];
  if (release === undefined || scenario === undefined || label === undefined) {
    throw new InputError(`${name}:1: the first line names no kernel and scenario`);
  }
  const rows = lines.flatMap((line, i) =>
    line === '' || line.startsWith('#') ? [] : [readRow(name, i + 1, line)],
  );
  if (rows.length === 0) throw new InputError(`${name}: no instructions`);
  return { release, scenario, label, rows };
}

const ROW = /^([0-9a-f]{16}) ([0-9a-f]{8}) (\S+)\s+(.*?)((?:\s+\w+=0x[0-9a-f]+)*)\s*$/;

function readRow(name: string, line: number, text: string): TraceRow {
  const [, pc, word, symbol, instruction, changed] = ROW.exec(text) ?? [];
  if (pc === undefined || word === undefined || symbol === undefined) {
    throw new InputError(`${name}:${line}: no row of a trace`);
  }
  const changes = new Map<string, bigint>();
  for (const [, register, value] of (changed ?? '').matchAll(/(\w+)=(0x[0-9a-f]+)/g)) {
    changes.set(register ?? '', BigInt(value ?? 0));
  }
  const shown = (instruction ?? '').trim();
  return { line, pc: BigInt(`0x${pc}`), word: parseInt(word, 16), symbol, text: shown, changes };
}
