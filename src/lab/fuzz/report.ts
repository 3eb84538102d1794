/**
 * Shows a difference: the program, the images' instructions where there are any, both ends side by side.
 */
import { disassemble } from '../../bpf/disassemble.js';
import type { FuzzDifference } from './fuzz.js';

/** Lines of two columns, the second beginning at `width`. */
function sideBySide(left: readonly string[], right: readonly string[], width: number): string[] {
  return Array.from({ length: Math.max(left.length, right.length) }, (_, i) => {
    const a = left[i] ?? '';
    const b = right[i] ?? '';
    const mark = a === b ? ' ' : '|';
    return `${a.padEnd(width)} ${mark} ${b}`.trimEnd();
  });
}

/** The memory of a case in lines of 16 bytes. */
function memoryLines(hex: string): string[] {
  return (hex.match(/.{1,32}/g) ?? []).map(
    (line, i) => `+${(16 * i).toString().padStart(2)} ${line}`,
  );
}

export function describeDifference(difference: FuzzDifference): string[] {
  const { fuzzCase, engines, outcomes, index } = difference;
  const columns = outcomes.map(({ end, memory, maps }) => [end, ...memoryLines(memory), ...maps]);
  const [left = [], right = []] = columns;
  const width = Math.max(...left.map((line) => line.length), engines[0].name.length);
  return [
    `program ${index}: ${engines[0].name} and ${engines[1].name} differ`,
    ...disassemble(fuzzCase.insns).map(
      ({ index: at, text }) => `${String(at).padStart(4)}: ${text}`,
    ),
    ...sideBySide([engines[0].name, ...left], [engines[1].name, ...right], width),
  ];
}
