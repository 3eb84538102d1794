/**
 * A schedule as text: which CPU goes on, step after step, and which view it takes where it has several.
 *
 *   0x3,1,1.1,d1   three steps of the patcher, one of CPU 1, one of CPU 1 that sees what was before, one of the
 *                  first work that the patcher has deferred
 */
import { UsageError } from '../../common/errors.js';

export interface ScheduledStep {
  /** 0 patches, -n is what it has deferred, n executes. */
  readonly cpu: number;
  /** 0: the newest version of what it sees; 1 and up: older ones. */
  readonly option: number;
}

export type Schedule = readonly ScheduledStep[];

export function formatSchedule(schedule: Schedule): string {
  const groups: { text: string; count: number }[] = [];
  for (const { cpu, option } of schedule) {
    const name = cpu < 0 ? `d${-cpu}` : `${cpu}`;
    const text = option === 0 ? name : `${name}.${option}`;
    const last = groups.at(-1);
    if (last?.text === text) last.count++;
    else groups.push({ text, count: 1 });
  }
  return groups.map(({ text, count }) => (count > 1 ? `${text}x${count}` : text)).join(',');
}

/** Throws UsageError. */
export function parseSchedule(text: string): Schedule {
  return text.split(',').flatMap((group) => {
    const match = /^(d?\d{1,2})(?:\.(\d{1,4}))?(?:x(\d{1,4}))?$/.exec(group.trim());
    if (!match) throw new UsageError(`'${group}' is no step of a schedule (1, 1.2, 0x3)`);
    const [, cpu, option, count] = match;
    const number = Number(cpu?.replace('d', '-'));
    const step = { cpu: number, option: Number(option ?? 0) };
    return Array.from({ length: Number(count ?? 1) }, () => step);
  });
}
