/**
 * `vectors/jit`: images and trampolines of real kernels, word for word (see `jit/vectors.ts`), and what
 * programs with `exec` return when they run.
 *
 * The image runs on the CPU engines of `CheckOptions.imageMachines`; without them, the program runs on the
 * runner, which knows BPF instructions only.
 */
import { KernelError } from '../../common/errors.js';
import { checkJitRecord, isJitRecord } from '../../jit/vectors.js';
import { Fields } from '../../jit/vectors/fields.js';
import {
  compileProgramRecord,
  execExpectation,
  programInput,
  type ExecExpectation,
} from '../../jit/vectors/program.js';
import { failed, passed, type CaseResult, type CheckOptions, type VectorKind } from './kind.js';
import type { VectorRecord } from './record.js';
import { NO_HELPERS } from './run-helpers.js';
import { describeOutcome } from './runner.js';

function check(record: VectorRecord, options: CheckOptions): CaseResult {
  try {
    const difference =
      checkJitRecord(record.fields) ??
      execDifference(new Fields(record.name, record.fields), options);
    return difference === undefined ? passed(record) : failed(record, difference);
  } catch (error) {
    if (error instanceof KernelError) return failed(record, error.message);
    throw error;
  }
}

function execDifference(record: Fields, options: CheckOptions): string | undefined {
  const exec = record.has('exec') ? execExpectation(record) : undefined;
  if (!exec) return undefined;
  const { imageMachines } = options;
  if (!imageMachines) return runProgram(record, exec, options);
  const [image] = compileProgramRecord(record).functions;
  return image && imageMachines.difference(image, exec);
}

function runProgram(
  record: Fields,
  { context, contextAddress: address, r0 }: ExecExpectation,
  { runner }: CheckOptions,
): string | undefined {
  const [main] = programInput(record).functions;
  if (!main) return undefined;
  const { name, insns } = main;
  const outcome = runner.run({ name, insns, memory: context, address, helpers: NO_HELPERS });
  if (outcome.kind === 'return' && outcome.r0 === r0) return undefined;
  return `run on ${runner.name}: r0 0x${r0.toString(16)}, ours ${describeOutcome(outcome)}`;
}

export const jitKind: VectorKind = {
  name: 'jit',
  matches: (record) => isJitRecord(record.fields),
  check: async (record, options) => check(record, options),
};
