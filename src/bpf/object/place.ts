/**
 * Says where in a program an instruction is, for messages:
 * `program 'drop' insn 3 (drop.c:12: return ctx->data;)`.
 */
import type { FunctionSpec, ProgramSpec, SourceLine } from './spec.js';

/** The source line that `slot` belongs to: the last record at or before it. */
function lineAt(lines: readonly SourceLine[], slot: number): SourceLine | undefined {
  return lines.findLast((line) => line.slot <= slot);
}

export function describePlace(program: ProgramSpec, spec: FunctionSpec, slot: number): string {
  const inside = spec.name === program.name ? '' : ` function '${spec.name}'`;
  return `program '${program.name}'${inside} ${describeSlot(spec, slot)}`;
}

/** The same where it does not matter which program calls the function. */
export function describeFunctionPlace(spec: FunctionSpec, slot: number): string {
  return `function '${spec.name}' ${describeSlot(spec, slot)}`;
}

function describeSlot(spec: FunctionSpec, slot: number): string {
  const line = lineAt(spec.lines, slot);
  const file = line?.file.replace(/^.*\//, '') ?? '';
  return `insn ${slot}${line ? ` (${file}:${line.line}: ${line.text.trim()})` : ''}`;
}
