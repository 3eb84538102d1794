/**
 * What tracefs shows of the records: available_filter_functions, enabled_functions, touched_functions.
 *
 *   bpf_fentry_test1 (2)     D   M
 *   bpf_fentry_test1 (1)       O   <tab>ops: global_ops+0x0/0xd8 (function_trace_call+0x0/0x100)
 *
 * After the count stand R (full registers), I (IPMODIFY), D (direct), since 6.3 O (the literal names the ops), since
 * 6.5 M (it has had I or D); then the trampoline, the only ops, and on a line of its own a direct call's target.
 *
 * Reference: kernel/trace/ftrace.c: t_show, print_rec. Left out: names of modules, subops.
 */
import type { SymbolTable } from '../symbols.js';
import type { Ftrace } from './ftrace.js';
import { parseFilterPattern } from './glob.js';
import type { FtraceOps } from './ops.js';
import { FTRACE_FL } from './record.js';

export const FTRACE_LISTS = ['available', 'enabled', 'touched'] as const;
export type FtraceList = (typeof FTRACE_LISTS)[number];

/** Lines of one of the files; with a glob those of functions that match. */
export function listFunctions(
  ftrace: Ftrace,
  symbols: SymbolTable,
  list: FtraceList,
  glob = '*',
): string[] {
  const { matches, negated } = parseFilterPattern(glob);
  const lines: string[] = [];
  const { records } = ftrace;
  for (let index = 0; index < records.size; index++) {
    const flags = records.flags[index] as number;
    if (list === 'enabled' && !(flags & FTRACE_FL.ENABLED)) continue;
    if (list === 'touched' && !(ftrace.profile.touched && flags & FTRACE_FL.TOUCHED)) continue;
    const name = records.nameOf(index);
    if (matches(name) === negated) continue;
    if (list === 'available') lines.push(name);
    else lines.push(...showRecord(ftrace, symbols, index));
  }
  return lines;
}

function showRecord(ftrace: Ftrace, symbols: SymbolTable, index: number): string[] {
  const { profile, records } = ftrace;
  const flags = records.flags[index] as number;
  const ip = records.ip(index);
  const letter = (flag: number, text: string): string =>
    flags & flag ? text : ' '.repeat(text.length);
  const pointer = (address: bigint): string => formatPointer(symbols, address);
  const place = (ops: FtraceOps): string => pointer(ops.address);

  const count = flags & ((1 << profile.refBits) - 1);
  let line = `${records.nameOf(index)} (${count})`;
  line += letter(FTRACE_FL.REGS, ' R') + letter(FTRACE_FL.IPMODIFY, ' I');
  line += letter(FTRACE_FL.DIRECT, ' D');
  if (profile.callOps) line += letter(FTRACE_FL.CALL_OPS, ' O');
  if (profile.modified) line += letter(FTRACE_FL.MODIFIED, ' M ');
  if (flags & FTRACE_FL.TRAMP_EN) {
    const withTrampoline = ftrace.list().filter((ops) => ops.trampoline !== 0n && ops.covers(ip));
    for (const { trampoline, func } of withTrampoline) {
      line += `\ttramp: ${pointer(trampoline)} (${pointer(func)})`;
    }
    if (withTrampoline.length === 0) line += '\ttramp: ERROR!';
  }
  if (profile.callOps && flags & FTRACE_FL.CALL_OPS_EN) {
    const ops = ftrace.uniqueOps(ip);
    line += ops ? `\tops: ${place(ops)} (${pointer(ops.func)})` : '\tops: ERROR!';
  }
  const direct = flags & FTRACE_FL.DIRECT ? ftrace.directFunctions.get(ip) : undefined;
  return direct === undefined ? [line] : [line, `\tdirect-->${pointer(direct)}`];
}

/** %pS: `ftrace_caller+0x0/0x9c`, or the bare address where no symbol is. */
function formatPointer(symbols: SymbolTable, address: bigint): string {
  const hit = symbols.lookup(address);
  if (!hit) return `0x${address.toString(16)}`;
  return `${hit.name}+0x${hit.offset.toString(16)}/0x${hit.size.toString(16)}`;
}
