/**
 * `trampolab check …/jit-corpus.json`: what a booted kernel made of small programs, against this lab.
 *
 * Up to three results per program: its image from the recorded xlated instructions, our xlated
 * instructions from those that were loaded, and a run of the latter. One per program that the kernel
 * refused: our verdict has to have its errno. Skipped, with their reasons: runs that need a socket buffer
 * or depend on time.
 */
import { KernelError } from '../../../common/errors.js';
import { errnoName } from '../../../common/errno.js';
import { readSlots } from '../../../bpf/instruction.js';
import type { LoadedObject } from '../../../bpf/object/load.js';
import { compile } from '../../../jit/program.js';
import { VECTOR_OFFSETS } from '../../../jit/vectors/harness.js';
import type { StructOffsets } from '../../../jit/profile.js';
import { failed, passed, skipped, type CaseResult } from '../kind.js';
import { VectorRecord } from '../record.js';
import { readCorpus, type Corpus, type CorpusProgram, type RefusedProgram } from './corpus-file.js';
import { compareImages, findCallBase, stackOf, type ImageSetting } from './corpus-images.js';
import { compareXlated } from './corpus-xlated.js';
import { CorpusRunner, readsSocketBuffer } from './corpus-run.js';
import { newerThan } from './instruction-set.js';
import { bootedKernel } from './kernel.js';
import type { BootedOptions } from './options.js';
import { readTraits } from './traits.js';

const CALL = 0x85;
const MAY_GOTO = 0xe5;

/** Throws InputError for a malformed file or a kernel without a profile. */
export async function* checkJitCorpus(
  name: string,
  json: unknown,
  options: BootedOptions,
): AsyncGenerator<CaseResult> {
  const corpus = readCorpus(name, json);
  const setting = settingOf(corpus);
  const { ptrs } = setting.offsets;
  const kernel = await options.boot(setting.kernel.lab, {
    far: false,
    codegen: { offsets: { ptrs } },
  });
  const runner = new CorpusRunner(kernel, options.engine, corpus.programs);
  for (const program of corpus.programs) {
    yield checkImages(program, setting);
    yield* checkLoaded(program, runner);
  }
  for (const program of corpus.refused) yield checkRefused(program, runner, setting);
}

function settingOf({ release, programs, symbols }: Corpus): ImageSetting {
  const traits = readTraits(programs.flatMap(({ images }) => images));
  const kernel = bootedKernel(release, traits);
  const offsets: StructOffsets = { ...VECTOR_OFFSETS[kernel.lab], ...traits.offsets };
  return {
    kernel,
    traits,
    offsets,
    callBase: findCallBase(programs) ?? 0n,
    timedMayGoto: symbols.get('arch_bpf_timed_may_goto'),
  };
}

/** The program's record under another name: `ret0: image`. */
function aspect({ record, name }: CorpusProgram | RefusedProgram, what: string): VectorRecord {
  return new VectorRecord(record.origin, { name: `${name}: ${what}` });
}

function verdict(record: VectorRecord, compare: () => string | undefined): CaseResult {
  try {
    const difference = compare();
    return difference === undefined ? passed(record) : failed(record, difference);
  } catch (error) {
    if (error instanceof KernelError) return failed(record, error.message);
    throw error;
  }
}

function checkImages(program: CorpusProgram, setting: ImageSetting): CaseResult {
  return verdict(aspect(program, 'image'), () => compareImages(program, setting));
}

function* checkLoaded(program: CorpusProgram, runner: CorpusRunner): Generator<CaseResult> {
  const [xlated, run] = [aspect(program, 'xlated'), aspect(program, 'run')];
  if (readsSocketBuffer(program)) {
    const reason = 'reads a socket buffer, which there is none of here';
    yield skipped(xlated, reason);
    yield skipped(run, reason);
    return;
  }
  let object: LoadedObject;
  try {
    object = runner.load(program);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    yield failed(xlated, error.message);
    return;
  }
  try {
    if (isTimed(program)) {
      const reason = 'may_goto is limited by time there, by a count here';
      yield skipped(xlated, reason);
      yield skipped(run, reason);
      return;
    }
    yield verdict(xlated, () => compareLoaded(program, object));
    yield verdict(run, () => runner.run(program, object));
  } finally {
    object.free();
  }
}

function compareLoaded(program: CorpusProgram, object: LoadedObject): string | undefined {
  const { functions } = object.program(program.name).xlated;
  const difference = compareXlated(
    program.functions,
    functions.map(({ insns }) => readSlots(insns)),
  );
  if (difference !== undefined) return difference;
  for (const [i, { stackDepth }] of functions.entries()) {
    const [theirs, ours] = [stackOf(program.images[i] ?? []), Math.ceil(stackDepth / 16) * 16];
    if (theirs !== ours) return `stack of function ${i} is ${theirs} bytes, ours ${ours}`;
  }
  return undefined;
}

const hasMayGoto = ({ slots }: CorpusProgram): boolean =>
  slots.some(({ code }) => code === MAY_GOTO);

/** Is a may_goto there more than a counter: does the xlated program call something for it? */
function isTimed(program: CorpusProgram): boolean {
  return hasMayGoto(program) && program.functions.flat().some(({ code }) => code === CALL);
}

/** -EINVAL of the verifier; a JIT that gives up is -ENOTSUPP (there is no interpreter to fall back to). */
function checkRefused(
  program: RefusedProgram,
  runner: CorpusRunner,
  { kernel, traits, offsets, callBase }: ImageSetting,
): CaseResult {
  const record = aspect(program, 'refused');
  const expected = errnoName(program.errno) ?? `${program.errno}`;
  const judge = (got: string): CaseResult =>
    got === expected ? passed(record) : failed(record, `expected -${expected}, got -${got}`);
  if (newerThan(kernel.jit, program.slots) !== undefined) return judge('EINVAL');
  let object: LoadedObject;
  try {
    object = runner.load(program);
  } catch (error) {
    if (error instanceof KernelError) return judge(errnoName(error.code) ?? error.message);
    throw error;
  }
  try {
    const { cpu, config } = traits;
    const { xlated } = object.program(program.name);
    const options = { profile: kernel.jit, cpu, config, offsets, callBase, dummyTramp: 0n };
    compile(xlated, { ...options, place: () => callBase });
    return failed(record, `expected -${expected}, but it is accepted`);
  } catch (error) {
    if (error instanceof KernelError) return judge('ENOTSUPP');
    throw error;
  } finally {
    object.free();
  }
}
