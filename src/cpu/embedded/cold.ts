/**
 * The operations that the hot switch leaves out, by class.
 */
import type { Code, Core } from './core.js';
import { executeData } from './data.js';
import { executeMemory } from './memory-operations.js';
import { executeSystem } from './system.js';

/** Executes the record at `at`. Returns STOPPED (and sets `core.stop`) when it did not execute. */
export function executeCold(core: Core, code: Code, at: number): number {
  const op = (code.records[at] as number) & 255;
  if (op < 64) return executeMemory(core, code, at);
  if (op < 128) return executeData(core, code.records, at);
  return op < 192 ? executeMemory(core, code, at) : executeSystem(core, code.records, at);
}
