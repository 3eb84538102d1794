/** The source of a module with a fault in it. */
import type { Fault } from './faults.js';

/** Throws RangeError when the text to replace is not there exactly once. */
export function applyFault(fault: Fault, source: string): string {
  const pieces = source.split(fault.from);
  if (pieces.length !== 2) {
    throw new RangeError(
      `${fault.name}: '${fault.from}' is ${pieces.length - 1} times in ${fault.file}`,
    );
  }
  return pieces.join(fault.to);
}
