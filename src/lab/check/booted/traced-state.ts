/**
 * In which state of its scenario a traced call was made. The file does not say; it follows from what the call executed:
 * whether it went through ftrace_caller, a trampoline, a tracer's callback, and which programs.
 */
import { InputError } from '../../../common/errors.js';
import { branchTarget } from './image.js';
import type { Scenario, ScenarioState, ScenarioTrace } from './scenario-file.js';
import { commentSymbol } from './scenario-file.js';
import { readImage } from './scenario-image.js';
import { enabledOf } from './scenario-player.js';

const TRACER_CALLBACKS = ['function_trace_call', 'ftrace_graph_func', 'fprobe_ftrace_entry'];

/** Throws InputError when no state fits. */
export function stateOf(scenario: Scenario, trace: ScenarioTrace): ScenarioState {
  const { states } = scenario;
  const state = trace.entry.startsWith('prog:')
    ? programState(states, trace)
    : states.find((each) => fits(scenario, each, trace));
  if (!state) throw new InputError(`${scenario.name}: no state fits the call '${trace.label}'`);
  return state;
}

/** Labels of calls of a BPF program begin as those of states: fentry_on_main, fentry_on_bpf_main. */
function programState(
  states: readonly ScenarioState[],
  { label }: ScenarioTrace,
): ScenarioState | undefined {
  const [first = ''] = label.split('_');
  return states.find((state) => state.label.startsWith(`${first}_`)) ?? states[0];
}

function fits(scenario: Scenario, state: ScenarioState, { counts }: ScenarioTrace): boolean {
  const { fn, address, words, disassembly } = state;
  if (!counts.has(fn)) return false;
  const { ops, direct } = enabledOf(state);
  const uses = (pattern: RegExp): boolean => [...counts.keys()].some((name) => pattern.test(name));
  const target = branchTarget(words[1] ?? 0, address + 4n, true);
  const toCaller =
    target !== undefined && /^ftrace_(regs_)?caller$/.test(commentSymbol(disassembly[1]) ?? '');
  const tracers = TRACER_CALLBACKS.filter((name) => counts.has(name)).length;
  // an instance has the callback of the function tracer too
  const ordinary = ops - (direct ? 1 : 0);
  if (uses(/^bpf_trampoline_/) !== direct || uses(/^ftrace_(regs_)?caller$/) !== toCaller)
    return false;
  if (ordinary === 0 ? tracers > 0 : tracers === 0 || tracers > ordinary) return false;
  const twice = (counts.get('trace_function') ?? 0) > 0 && ordinary > tracers;
  if (ordinary > tracers !== twice) return false;
  const image = state.trampolines
    .map((trampoline) => readImage(trampoline, scenario.programs))
    .find(
      (each) => scenario.programs.find(({ name }) => name === each?.calls[0]?.name)?.target === fn,
    );
  if (!image) return true;
  const called = new Set(image.calls.map(({ name }) => `prog:${name}`));
  const ran = [...counts.keys()].filter((name) => name.startsWith('prog:'));
  const others = new Set(
    scenario.programs.flatMap(({ name, target: other }) => (other === fn ? [] : [`prog:${name}`])),
  );
  const own = ran.filter((name) => !others.has(name));
  return own.length === called.size && own.every((name) => called.has(name));
}
