/**
 * `vectors/kernel/V/static.json`: code of a booted kernel, symbol by symbol, against the words of our
 * `asm/` in a booted lab kernel.
 *
 * One record, one case per symbol: `{ ftrace_caller: { addr, pre16, code }, ... }`. What follows our last
 * word there is the padding before the next function. A branch has to go to the symbol of the same name; ADRP and
 * the LDR behind it are compared without their address. Symbols that are not assembled here are skipped:
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

/** One result per symbol of the file. `symbols`: addresses of others, which branches may go to. */
export function checkKernelText(
  kernel: Kernel,
  json: unknown,
  symbols: Readonly<Record<string, string>> = {},
): CaseResult[] {
  if (!isKernelText(json)) throw new InputError('no code of a kernel (static.json)');
  const names = new Map(Object.entries(symbols).map(([name, addr]) => [BigInt(addr), name]));
  for (const [name, { addr }] of Object.entries(json)) names.set(BigInt(addr), name);
  return Object.entries(json).map(([name, code]) => compareSymbol(kernel, name, code, names));
}

/** Names of their symbols by address. */
type TheirSymbols = ReadonlyMap<bigint, string>;

function compareSymbol(
  kernel: Kernel,
  name: string,
  { addr, code }: StaticCode,
  theirSymbols: TheirSymbols,
): CaseResult {
  const symbol = kernel.symbols.find(name);
  if (!symbol) return { name, status: 'skipped', reason: 'not in this kernel' };
  if (kernel.text.functions.has(symbol.address)) {
    return { name, status: 'skipped', reason: 'its body is TypeScript here' };
  }
  if (!kernel.text.assembled.has(name)) {
    return { name, status: 'skipped', reason: 'a stand-in here' };
  }
  const theirs = viewOf(hexToBytes(code));
  let page: number | undefined;
  for (let at = 0; at < symbol.size; at += 4) {
    const pc = symbol.address + BigInt(at);
    const ours = kernel.memory.read32(pc);
    const expected = at + 4 <= theirs.byteLength ? theirs.getUint32(at, true) : undefined;
    const offsetIn = page;
    page = isAdrp(ours) ? ours & 0x1f : undefined;
    if (ours === expected) continue;
    if (expected !== undefined) {
      const ourTarget = branchTarget(ours, pc);
      const target = branchTarget(expected, BigInt(addr) + BigInt(at));
      const theirName = target === undefined ? undefined : theirSymbols.get(target);
      if (ourTarget !== undefined && theirName !== undefined) {
        if (kernel.symbols.find(theirName)?.address === ourTarget) continue;
      }
      if (isAdrp(ours) && differsIn(ours, expected, ADRP_ADDRESS)) continue;
      const usesPage = offsetIn !== undefined && ((ours >>> 5) & 0x1f) === offsetIn;
      if (usesPage && differsIn(ours, expected, IMM12)) continue;
    }
    const wanted = expected === undefined ? 'nothing' : `${hex32(expected)} ${print(expected, pc)}`;
    const difference = `+0x${at.toString(16)}: expected ${wanted}, ours ${hex32(ours)} ${print(ours, pc)}`;
    return { name, status: 'failed', difference };
  }
  return { name, status: 'passed' };
}

/** 1 immlo 10000 immhi Rd */
const ADRP_ADDRESS = 0x60ff_ffe0;
const IMM12 = 0x3ffc00;

function isAdrp(word: number): boolean {
  return (word & 0x9f00_0000) >>> 0 === 0x9000_0000;
}

/** No bit outside `mask` differs. */
function differsIn(a: number, b: number, mask: number): boolean {
  return ((a ^ b) & ~mask) === 0;
}

/** Of B or BL: x00101 imm26. */
function branchTarget(word: number, pc: bigint): bigint | undefined {
  if ((word & 0x7c00_0000) !== 0x1400_0000) return undefined;
  return BigInt.asUintN(64, pc + BigInt.asIntN(28, BigInt(word & 0x3ff_ffff) << 2n));
}
