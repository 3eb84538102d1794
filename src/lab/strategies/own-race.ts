/**
 * The patch plans of a user's own strategy as plans for the explorer: attaching, exchanging the image for
 * another, detaching, while other CPUs call the function.
 *
 * The image is the shortest there can be (`ftrace_stub_direct_tramp`, copied to where images are): the plan is
 * what is looked at. What was attached before is freed after an RCU-tasks grace period, as BPF does it. KASLR
 * is what makes images far.
 */
import { InputError } from '../../common/errors.js';
import type { Assembler } from '../../kernel/assembler.js';
import type { AsmSources, Kernel } from '../../kernel/kernel.js';
import { NameTable } from '../race/names.js';
import { free, ipi, sync, wait, type PatchPlan, type PlanStep } from '../race/plan.js';
import { bootRace, type Race, type RaceBoot } from '../race/scenario.js';
import type { OwnStrategy } from './own-file.js';
import { attachActions, ownFunctions, perform, planActions, type OwnAction } from './own.js';

export const OWN_OPERATIONS = ['attach', 'exchange', 'detach'] as const;
export type OwnOperation = (typeof OWN_OPERATIONS)[number];

const FUNCTION = 'own_traced_1';
const ARGUMENT = 7n;
/** Any: the image then is tens of TiB from BPF images. */
const FAR_SEED = 1n << 40n;
const IMAGE = 'ftrace_stub_direct_tramp';

/** The caller closes the kernel. Throws KernelError where there is no plan for far images. */
export async function ownRace(
  { name, way }: OwnStrategy,
  texts: AsmSources,
  assembler: Assembler,
  boot: RaceBoot,
  { operation, far }: { readonly operation: OwnOperation; readonly far: boolean },
): Promise<Race> {
  if (way.kind === 'ops') {
    throw new InputError(`${name} is an ops: ftrace patches for it, see the scenarios of race`);
  }
  const kernel = await bootRace(boot, {
    modules: { ...texts, ...ownFunctions(way) },
    ...(far ? { kaslrSeed: FAR_SEED } : {}),
  });
  const names = new NameTable(kernel);
  const entry = kernel.symbol(FUNCTION);
  const [first, second] = [placeImage(kernel, names, 1), placeImage(kernel, names, 2)];
  const attach = (image: bigint): OwnAction[] =>
    attachActions(kernel, way, entry, image, assembler);
  perform(kernel, planActions(kernel, way.boot, entry, 0n, assembler));
  if (operation !== 'attach') perform(kernel, attach(first));
  const put = [wait('tasks'), free(first, IMAGE_SIZE, 'image 1, freed')];
  const steps: Readonly<Record<OwnOperation, () => PlanStep[]>> = {
    attach: () => attach(first).flatMap(stepsOf),
    exchange: () => [...attach(second).flatMap(stepsOf), ...put],
    detach: () => [
      ...planActions(kernel, way.detach, entry, first, assembler).flatMap(stepsOf),
      ...put,
    ],
  };
  const plan: PatchPlan = {
    name: `${name}, ${far ? 'far' : 'near'}: ${operation}`,
    steps: steps[operation](),
    call: {
      entry,
      args: [ARGUMENT],
      result: ARGUMENT,
      resultBits: 64,
      body: entry + BigInt(4 * way.after),
    },
    // one of the images is attached all the time
    ...(operation === 'exchange' ? { always: [first, second] } : {}),
  };
  const roots = plan.steps.flatMap((step) =>
    step.kind === 'store' && step.as === 'data' ? [step.address] : [],
  );
  return { kernel, plan, names, roots };
}

/** Four instructions. */
const IMAGE_SIZE = 16;

function placeImage(kernel: Kernel, names: NameTable, number: number): bigint {
  const at = kernel.bpf.images.alloc(IMAGE_SIZE);
  kernel.memory.pokeBytes(at, kernel.memory.readBytes(kernel.symbol(IMAGE), IMAGE_SIZE));
  kernel.syncText(at, at + BigInt(IMAGE_SIZE));
  names.addBlock(`image ${number}`, at, IMAGE_SIZE);
  return at;
}

function stepsOf(action: OwnAction): PlanStep[] {
  switch (action.kind) {
    case 'data':
    case 'instruction': {
      const { kind, address, bytes, what } = action;
      const store: PlanStep = { kind: 'store', as: kind, address, bytes, what };
      // aarch64_insn_patch_text_nosync
      return kind === 'data' ? [store] : [store, sync(address, address + 4n)];
    }
    case 'sync':
      return [ipi()];
    case 'wait':
      return [wait(action.flavour)];
  }
}
