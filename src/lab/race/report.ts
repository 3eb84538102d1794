/**
 * A schedule for people: one line per step, who makes it and what it sees.
 *
 *   3  cpu0  literal of bpf_fentry_test1 := &ftrace_nop_ops
 *   4  cpu1  fetches bpf_fentry_test1+0x4: bl ftrace_caller (as it was before)
 */
import { print } from '../../a64/print.js';
import { viewOf } from '../../common/bytes.js';
import type { Exploration } from './explore.js';
import { INVARIANTS, type Problem } from './invariants.js';
import { valueOf, type SharedObject } from './objects.js';
import type { Race } from './scenario.js';
import type { Schedule } from './schedule.js';
import type { Outcome, Transitions } from './transitions.js';

export interface ReportedStep {
  readonly cpu: string;
  readonly what: string;
}

export interface Report {
  readonly steps: readonly ReportedStep[];
  readonly problem: Problem | undefined;
  /** Lines on what is where at the end. */
  readonly state: readonly string[];
}

/** Replays a schedule and describes it. */
export function reportSchedule(race: Race, exploration: Exploration, schedule: Schedule): Report {
  const { outcomes, problem, last } = exploration.replay(schedule);
  const { transitions } = exploration;
  const steps = outcomes.map((outcome, i): ReportedStep => {
    const cpu = schedule[i]?.cpu ?? 0;
    return {
      cpu: cpu > 0 ? `cpu${cpu}` : cpu === 0 ? 'cpu0' : `work${-cpu}`,
      what: outcome.micro?.what ?? describe(race, transitions, outcome),
    };
  });
  return { steps, problem, state: stateLines(race, transitions, last) };
}

export function printReport({ steps, problem, state }: Report): string[] {
  const width = String(steps.length).length;
  const lines = steps.map(
    ({ cpu, what }, i) => `  ${String(i + 1).padStart(width)}  ${cpu.padEnd(5)}  ${what}`,
  );
  if (problem) {
    const who = steps.at(-1)?.cpu ?? 'cpu0';
    lines.push(`${problem.invariant}: ${who} ${problem.message}`);
    lines.push(`    (${INVARIANTS[problem.invariant]})`);
  }
  return [...lines, ...state];
}

function describe({ names }: Race, transitions: Transitions, outcome: Outcome): string {
  const { node, seen = [], edge, interrupted } = outcome;
  if (interrupted)
    return `is interrupted at ${names.format(interrupted.action.pc)}: a quiescent state`;
  if (!node) return '';
  const where = names.format(node.action.pc);
  const values = node.action.objects.flatMap((id, i) => {
    const object = transitions.program.objects[id] as SharedObject;
    return valueText(object, seen[i] as number, names);
  });
  // memory that may be freed: nobody stores to it, so no version says what it is
  const { address } = node.action;
  const field = address === undefined ? '' : names.variable(address);
  const end = edge && !edge.problem ? ` .. ${endText(transitions, edge.to, names)}` : '';
  switch (node.action.kind) {
    case 'start':
      return `calls ${where}${end}`;
    case 'sleep':
      return `sleeps at ${where}`;
    case 'wake':
      return `wakes up at ${where}${end}`;
    case 'fetch':
      return `fetches ${where}: ${values.join(', ')}${end}`;
    case 'load':
    case 'store':
      return `${where} ${node.action.kind}s ${values.join(', ') || field}${end}`;
    case 'body':
      return `runs ${where}${end}`;
  }
}

function endText({ graph }: Transitions, to: number, names: Race['names']): string {
  const action = graph.nodes[to]?.action;
  if (!action || action.kind === 'start') return 'returns';
  return names.format(action.pc);
}

/** What version of an object is seen, and whether it is a past one. */
function valueText(object: SharedObject, version: number, names: Race['names']): string[] {
  if (object.kind === 'block' || object.kind === 'counter') return [];
  const bytes = object.versions[version] as Uint8Array;
  const isOld = version < object.versions.length - 1;
  const age = isOld ? ` (version ${version + 1} of ${object.versions.length})` : '';
  switch (object.kind) {
    case 'word':
      return [`${print(viewOf(bytes).getUint32(0, true), object.address, names.format)}${age}`];
    case 'range':
      return object.versions.length > 1
        ? [`its version ${version + 1} of ${object.versions.length}`]
        : [];
    case 'data':
      return [`${names.variable(object.address)} = ${names.pointer(valueOf(bytes))}${age}`];
  }
}

function stateLines({ names }: Race, transitions: Transitions, state: Outcome['state']): string[] {
  if (!state) return [];
  const lines: string[] = ['the state before the last step:'];
  for (const object of transitions.program.objects) {
    if (!transitions.touched.has(object.id) || object.kind === 'range') continue;
    const version = transitions.currentOf(state, object.id);
    if (object.kind === 'counter') continue;
    const text =
      object.kind === 'block'
        ? `${object.what.split(',')[0]} is ${version === 0 ? 'alive' : 'freed'}`
        : object.kind === 'word'
          ? `${names.format(object.address)}: ${valueText(object, version, names).join('')}`
          : valueText(object, version, names).join('');
    lines.push(`    ${text.replace(/ \(version.*\)/, '')}`);
  }
  for (let cpu = 1; cpu <= transitions.executors; cpu++) {
    const { action } = transitions.nodeOf(state, cpu);
    const place =
      action.kind === 'start' ? 'is between two calls' : `is at ${names.format(action.pc)}`;
    lines.push(`    cpu${cpu} ${place}`);
  }
  return lines;
}
