/**
 * Runs a function of an interpreted program for a helper, inside the run that called the helper or, for
 * a timer, on its own.
 *
 * The function gets the next frame of the stack; R6..R9 and R10 of the caller are kept. What it
 * executes counts against the budget of the run.
 */
import type { RegisterPairs } from '../host.js';
import { execute } from './execute.js';
import { CODE_START, type LinkedProgram } from './link.js';
import { CallbackStop, OUTCOME, type Machine } from './machine.js';

/** Budget of a callback that no run calls. */
const TIMER_BUDGET = 1e9;
/** First and last word of R1..R5. */
const ARGUMENTS = [2, 12] as const;

export function runCallback(
  machine: Machine,
  linked: LinkedProgram,
  entry: number,
  registers: RegisterPairs,
): void {
  if (machine.running) runNested(machine, entry, registers);
  else runAlone(machine, linked, entry, registers);
}

function runNested(machine: Machine, entry: number, registers: RegisterPairs): void {
  const { words } = machine.linked;
  const { baseDepth, executed, record } = machine;
  if (!machine.push(record)) throw new CallbackStop(OUTCOME.CALL_DEPTH);
  if (registers !== words) words.set(registers.subarray(...ARGUMENTS), ARGUMENTS[0]);
  machine.baseDepth = machine.depth;
  const outcome = execute(machine, entry, machine.callbackBudget);
  machine.callbackBudget -= machine.executed;
  machine.callbackExecuted += machine.executed;
  machine.executed = executed;
  if (outcome !== OUTCOME.RETURN) throw new CallbackStop(outcome);
  machine.baseDepth = baseDepth;
  machine.pop();
  machine.record = record;
  registers[0] = words[0];
  registers[1] = words[1];
}

function runAlone(
  machine: Machine,
  linked: LinkedProgram,
  entry: number,
  registers: RegisterPairs,
): void {
  const { words } = linked;
  words.fill(0, 0, CODE_START);
  words.set(registers.subarray(...ARGUMENTS), ARGUMENTS[0]);
  const before = machine.linked;
  machine.start(linked, TIMER_BUDGET);
  try {
    const outcome = execute(machine, entry, TIMER_BUDGET);
    if (outcome !== OUTCOME.RETURN) throw new CallbackStop(outcome);
    registers[0] = words[0];
    registers[1] = words[1];
  } finally {
    machine.running = false;
    machine.linked = before;
  }
}
