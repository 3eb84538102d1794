/**
 * Expected output in which `...` stands for any lines (alone in a line) or any text (inside one).
 *
 * A run of lines or characters between two wildcards is taken where it first fits: what fits later leaves less
 * for the rest, so nothing is tried twice, and the time is linear in expected times actual.
 *
 * Usage:
 *   linesMatch(['a ...', '...', 'z'], output);
 */
const WILD = '...';

/** Do the lines match, with `...` for any run of them? */
export function linesMatch(expected: readonly string[], actual: readonly string[]): boolean {
  const isWild = (line: string): boolean => line.trim() === WILD;
  return matches(splitAt(expected, isWild), actual, lineMatches);
}

/** Does a line match, with `...` for any text? */
export function lineMatches(expected: string, actual: string): boolean {
  const parts = expected.split(WILD).map((part) => [...part]);
  return matches(parts, [...actual], (a, b) => a === b);
}

function splitAt<T>(items: readonly T[], isWild: (item: T) => boolean): T[][] {
  const parts: T[][] = [[]];
  for (const item of items) {
    if (isWild(item)) parts.push([]);
    else parts.at(-1)?.push(item);
  }
  return parts;
}

/** Parts with anything between them: the first at the start, the last at the end. */
function matches<E, A>(
  parts: readonly (readonly E[])[],
  actual: readonly A[],
  fits: (expected: E, actual: A) => boolean,
): boolean {
  const fitsAt = (part: readonly E[], at: number): boolean =>
    at >= 0 &&
    at + part.length <= actual.length &&
    part.every((each, i) => fits(each, actual[at + i] as A));
  const [head = [], ...rest] = parts;
  if (!fitsAt(head, 0)) return false;
  if (rest.length === 0) return head.length === actual.length;
  const tail = rest.pop() ?? [];
  let at = head.length;
  for (const part of rest) {
    while (at <= actual.length && !fitsAt(part, at)) at++;
    if (at > actual.length) return false;
    at += part.length;
  }
  const end = actual.length - tail.length;
  return end >= at && fitsAt(tail, end);
}
