import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { describeCase } from '../../../../src/lab/check/check-file.js';
import { sharedFile } from '../../../helpers/shared.js';
import { BootedFiles, readJson, SAMPLES } from './samples.js';

interface State {
  label: string;
  words: string[];
  literal_sym: string;
  literal_ops: Record<string, string>;
  enabled_functions: string[];
  trampolines: { image: string; disasm: string[] }[];
}

interface File {
  states: State[];
  progs: Record<string, { jited: string }>;
  notes: string[];
}

const files = new BootedFiles();
afterAll(() => files.close());

const FOLDERS = ['6.1-max', '6.12-max', '7.2-max'] as const;

/** All scenario files of a folder if they are there, or else the samples. */
function filesOf(folder: string): string[] {
  const place = sharedFile('vectors', 'kernel', folder) ?? join(SAMPLES, folder);
  const names = readdirSync(place).filter((name) => /^scen\..*\.json$/.test(name));
  return names.map((name) => join(place, name));
}

const sample = (folder: string, name: string): string => join(SAMPLES, folder, `scen.${name}.json`);

describe('scenarios of a booted kernel', () => {
  it.each(FOLDERS)('%s', async (folder) => {
    const results = [];
    for (const path of filesOf(folder)) results.push(...(await files.check(path)));
    expect(results.filter(({ status }) => status === 'failed').map(describeCase)).toEqual([]);
    const skipped = results.filter(({ status }) => status === 'skipped').map(describeCase);
    for (const line of skipped) expect(line).toMatch(/no BPF_TRACE_FSESSION/);
    expect(results.length - skipped.length).toBeGreaterThan(folder === '6.1-max' ? 4 : 30);
  });

  const FMOD = sample('6.12-max', '11_fentry_fmod2_fexit');
  const FTRACE = sample('6.12-max', '12_ftrace_then_fentry');
  const TARGET = sample('7.2-max', '24_bpf_prog_target');
  const REFUSED = sample('6.1-max', '04_fentry_min');

  /** A change, and what is said of it. */
  const CHANGES: readonly (readonly [string, string, (file: File) => void, RegExp])[] = [
    [
      'a cleared argument',
      FMOD,
      ({ states: [state] }) => {
        const [trampoline] = state?.trampolines ?? [];
        if (trampoline) trampoline.image = trampoline.image.replace('e00f00f9', 'ff0f00f9');
      },
      /word 7 is f9000fff .*, ours f9000fe0 .*, in 'save argument 0'/,
    ],
    [
      'another enter function',
      FMOD,
      ({ states: [state] }) => {
        const [trampoline] = state?.trampolines ?? [];
        if (!trampoline) return;
        trampoline.disasm = trampoline.disasm.map((line) =>
          line.replace('__bpf_prog_enter_recur', '__bpf_prog_enter_sleepable'),
        );
      },
      /enter of 0 is __bpf_prog_enter_sleepable, ours __bpf_prog_enter_recur/,
    ],
    [
      'a word of a program',
      FMOD,
      ({ progs }) => {
        const { fx } = progs;
        if (fx) fx.jited = fx.jited.replace('fd030091', '1f2003d5');
      },
      /program fx: word 4 is d503201f/,
    ],
    [
      'a literal',
      FTRACE,
      ({ states: [state] }) => {
        if (state) state.literal_sym = 'ftrace_list_ops+0x0';
      },
      /ftrace_first: site: the literal points to is ftrace_list_ops, ours global_ops/,
    ],
    [
      'a direct call of another function',
      FTRACE,
      ({ states }) => {
        const state = states.find(({ label }) => label === 'ftrace_off');
        if (state) state.literal_ops['func'] = '0xffff800080226240 function_trace_call+0x0';
      },
      /ftrace_off: site: ops->func is function_trace_call, ours call_direct_funcs/,
    ],
    [
      'a site',
      FTRACE,
      ({ states }) => {
        const state = states.find(({ label }) => label === 'all_off');
        if (state) state.words[0] = 'd503201f';
      },
      /all_off: site: word 0 is d503201f \(nop\), ours aa1e03e9/,
    ],
    [
      'a number of ops',
      FTRACE,
      ({ states }) => {
        const state = states.find(({ label }) => label === 'all_off');
        if (state) state.enabled_functions = ['bpf_fentry_test1 (1)       O M '];
      },
      /all_off: site: the site branches to is nothing, ours ftrace_caller/,
    ],
    [
      'a poke',
      TARGET,
      ({ states }) => {
        const state = states.find(({ label }) => label === 'fentry_on_bpf_main');
        if (state) state.words[1] = '94000123';
      },
      /fentry_on_bpf_main: site: the call at 0xffff8000826b5a10 goes to nothing known/,
    ],
    [
      'a refusal',
      REFUSED,
      (file) => {
        file.notes = file.notes.map((note) => note.replace('-524', '-16'));
      },
      /fentry on bpf_fentry_test1: refused: expected -EBUSY, got -ENOTSUPP/,
    ],
  ];

  it.each(CHANGES)('%s that is changed is told', async (_, path, change, message) => {
    const file = readJson(path) as File;
    change(file);
    const lines = (await files.check(path, 'jit', file)).map(describeCase);
    const wrong = lines.filter((line) => line.startsWith('FAIL'));
    expect(wrong.length).toBeGreaterThan(0);
    expect(wrong.join('\n')).toMatch(message);
  });
});
