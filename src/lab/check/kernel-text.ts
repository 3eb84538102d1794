/**
 * `vectors/kernel/V/static.json`: code of a booted kernel, symbol by symbol, against the words of our
 * `asm/` in a booted lab kernel.
 *
 * One record, one case per symbol: `{ ftrace_caller: { addr, pre16, code }, ... }`. What follows our last
 * word there is the padding before the next function. Symbols that are not assembled here are skipped:
 * their body is TypeScript, or no part of the lab.
 */
import { print } from '../../a64/print.js';
import { hex32, hexToBytes, viewOf } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import type { Kernel } from '../../kernel/kernel.js';
import type { CaseResult } from './kind.js';

interface StaticCode {
  readonly addr: string;
  readonly code: string;
}

function isStaticCode(value: unknown): value is StaticCode {
  if (typeof value !== 'object' || value === null) return false;
  const { addr, code } = value as { addr?: unknown; code?: unknown };
  return typeof addr === 'string' && typeof code === 'string';
}

/** Whether the parsed JSON is a static.json. */
export function isKernelText(json: unknown): json is Readonly<Record<string, StaticCode>> {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return false;
  const values = Object.values(json);
  return values.length > 0 && values.every(isStaticCode);
}

/** One result per symbol of the file. */
export function checkKernelText(kernel: Kernel, json: unknown): CaseResult[] {
  if (!isKernelText(json)) throw new InputError('no code of a kernel (static.json)');
  return Object.entries(json).map(([name, { code }]) => compareSymbol(kernel, name, code));
}

function compareSymbol(kernel: Kernel, name: string, code: string): CaseResult {
  const symbol = kernel.symbols.find(name);
  if (!symbol) return { name, status: 'skipped', reason: 'not in this kernel' };
  if (kernel.text.functions.has(symbol.address)) {
    return { name, status: 'skipped', reason: 'its body is TypeScript here' };
  }
  if (!kernel.text.assembled.has(name)) {
    return { name, status: 'skipped', reason: 'a stand-in here' };
  }
  const theirs = viewOf(hexToBytes(code));
  for (let at = 0; at < symbol.size; at += 4) {
    const ours = kernel.memory.read32(symbol.address + BigInt(at));
    const expected = at + 4 <= theirs.byteLength ? theirs.getUint32(at, true) : undefined;
    if (ours === expected) continue;
    const pc = symbol.address + BigInt(at);
    const wanted = expected === undefined ? 'nothing' : `${hex32(expected)} ${print(expected, pc)}`;
    const difference = `+0x${at.toString(16)}: expected ${wanted}, ours ${hex32(ours)} ${print(ours, pc)}`;
    return { name, status: 'failed', difference };
  }
  return { name, status: 'passed' };
}
