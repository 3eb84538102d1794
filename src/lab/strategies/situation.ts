/**
 * In which circumstances a strategy is measured.
 *
 * Left out: fexit and fmod_ret programs, whose trampolines call the original: `trace` shows them.
 */

export interface Situation {
  /** fentry programs on the function. */
  readonly programs: number;
  /** Arguments of the function, 0 to 8. */
  readonly args: number;
  /** Ordinary ftrace ops on the same function. */
  readonly others: number;
  /** Ordinary ftrace ops on another function. */
  readonly irrelevant: number;
  /** BPF images are out of BL range of the function. */
  readonly far: boolean;
}

/** Alone and near, one program, one argument. */
export const ALONE: Situation = { programs: 1, args: 1, others: 0, irrelevant: 0, far: false };

const COUNTED: readonly (readonly [keyof Situation, string, string])[] = [
  ['programs', 'program', 'programs'],
  ['args', 'argument', 'arguments'],
  ['others', 'other ops', 'other ops'],
  ['irrelevant', 'ops elsewhere', 'ops elsewhere'],
];

/** `far, 1 program, 2 arguments, 10 other ops`. */
export function describeSituation(situation: Situation): string {
  const words: string[] = [situation.far ? 'far' : 'near'];
  for (const [key, one, many] of COUNTED) {
    const count = Number(situation[key]);
    const counted = key === 'programs' || key === 'args';
    if (count > 0 || counted) words.push(`${count} ${count === 1 ? one : many}`);
  }
  return words.join(', ');
}

/** What differs from `ALONE`: `far`, `1 other ops`; `alone` for nothing. */
export function shortSituation(situation: Partial<Situation>): string {
  const words: string[] = [];
  if (situation.far) words.push('far');
  for (const [key, one, many] of COUNTED) {
    const count = situation[key];
    if (count === undefined || count === ALONE[key]) continue;
    words.push(`${Number(count)} ${count === 1 ? one : many}`);
  }
  return words.length === 0 ? 'alone' : words.join(', ');
}
