/**
 * A user's own strategy as one of the strategies: its texts are assembled into the kernel, functions are
 * compiled with its patch sites, and attaching carries its patch plan out.
 *
 * What a plan patches is unknown to ftrace, so ordinary ops cannot be on the same function; one with `ops` can
 * share it like any other. File format: own-file.ts.
 */
import { reachable } from '../../a64/immediates.js';
import { hex64, viewOf } from '../../common/bytes.js';
import { InputError, KernelError } from '../../common/errors.js';
import type { Assembler } from '../../kernel/assembler.js';
import type { FunctionTarget, TrampolineSite } from '../../kernel/bpf/site.js';
import type { PlacedImage } from '../../kernel/bpf/trampoline.js';
import type { AsmSources, Kernel } from '../../kernel/kernel.js';
import { asmOffsets } from '../../kernel/offsets.js';
import { parsePrototype, type Prototype } from '../../kernel/prototype.js';
import type { OwnPlan, OwnStep, OwnStrategy } from './own-file.js';
import { OpsSite } from './sites.js';
import type { Situation } from './situation.js';
import type { Strategy, TracedFunction } from './strategy.js';
import { parameterList } from './traced.js';

/** Stands for a file in messages. */
const FUNCTIONS_FILE = 'own functions';
const NOP_LINE = '\tnop\n';
const MOST_ARGS = 8;
/** How FUNCTIONs would begin: a step has none. */
const ENTRY = { before: 0, alignLog2: 2, bti: false } as const;

/** What a store of a plan is, with addresses and bytes. */
export type OwnStore = {
  readonly kind: 'instruction' | 'data';
  readonly address: bigint;
  readonly bytes: Uint8Array;
  /** As it stands in the file: `F+4: bl image`. */
  readonly what: string;
};

export type OwnAction = OwnStore | Exclude<OwnStep, { readonly kind: 'word' | 'quad' }>;

/** @param texts the texts that it names, by path */
export function ownStrategy(own: OwnStrategy, texts: AsmSources, assembler: Assembler): Strategy {
  const base = {
    name: own.name,
    title: own.title,
    place: "a user's own",
    source: 'given by file',
    least: {},
  } as const;
  const { way } = own;
  switch (way.kind) {
    case 'ops':
      return {
        ...base,
        kernel: {
          functionSite: (...parts) => new OpsSite(...parts, { callback: way.callback }),
        },
        texts: [],
        reaching: 'ftrace_caller',
        ownTexts: texts,
        callbacks: [way.callback],
      };
    case 'plan':
      return {
        ...base,
        kernel: {
          functionSite: (kernel, _key, target) => new OwnSite(kernel, target, way, assembler),
        },
        texts: [],
        reaching: way.far ? 'near or far plan' : 'near plan',
        ownTexts: { ...texts, ...ownFunctions(way) },
        traced: (kernel, situation) => ownFunction(kernel, way, situation, assembler),
      };
  }
}

/** The text of the functions that a plan is tried on, for `KernelOptions.modules`. */
export function ownFunctions({ before, after }: OwnPlan): AsmSources {
  // the symbol is 8-byte aligned: an odd number of NOPs before it begins behind one more
  const pad = before % 2;
  const functions = Array.from(
    { length: MOST_ARGS + 1 },
    (_, args) =>
      `CODE own_before_${args}\n${NOP_LINE.repeat(before + pad)}` +
      `LABEL own_traced_${args}\n${NOP_LINE.repeat(after)}\tret\n\n`,
  );
  return { [FUNCTIONS_FILE]: functions.join('') };
}

function ownFunction(
  kernel: Kernel,
  plan: OwnPlan,
  { args }: Situation,
  assembler: Assembler,
): TracedFunction {
  const name = `own_traced_${args}`;
  const { address, size } = kernel.symbols.get(name);
  if (!kernel.text.prototypes.has(address)) {
    kernel.text.prototypes.set(address, parsePrototype(`u64 ${name}(${parameterList(args)})`));
    perform(kernel, planActions(kernel, plan.boot, address, 0n, assembler));
  }
  return {
    name,
    attach: name,
    address,
    siteEnd: address + BigInt(4 * plan.after),
    end: address + BigInt(size),
    siteBytes: 4 * (plan.before + plan.after),
  };
}

/** A function of an own plan. */
class OwnSite implements TrampolineSite {
  readonly name: string;
  readonly address: bigint;
  readonly model: Prototype;
  readonly program = undefined;
  readonly #kernel: Kernel;
  readonly #plan: OwnPlan;
  readonly #assembler: Assembler;

  constructor(kernel: Kernel, target: FunctionTarget, plan: OwnPlan, assembler: Assembler) {
    this.#kernel = kernel;
    this.#plan = plan;
    this.#assembler = assembler;
    this.name = target.name;
    this.address = target.address;
    this.model = target.model;
  }

  register(image: PlacedImage): void {
    perform(
      this.#kernel,
      attachActions(this.#kernel, this.#plan, this.address, image.code.base, this.#assembler),
    );
  }

  /** The plan again, with the other image. */
  modify(_from: PlacedImage, to: PlacedImage): void {
    this.register(to);
  }

  unregister(image: PlacedImage): void {
    const { detach } = this.#plan;
    const actions = planActions(
      this.#kernel,
      detach,
      this.address,
      image.code.base,
      this.#assembler,
    );
    perform(this.#kernel, actions);
  }

  close(): void {}
}

/** What attaching does. Throws KernelError -ENOTSUPP where there is no plan for an image that is far. */
export function attachActions(
  kernel: Kernel,
  plan: OwnPlan,
  address: bigint,
  image: bigint,
  assembler: Assembler,
): OwnAction[] {
  const near = plan.near.every(
    (step) => step.kind !== 'word' || reachable(valueOf(kernel, step.at, address, image), image),
  );
  const steps = near ? plan.near : plan.far;
  if (!steps) {
    throw new KernelError(
      'ENOTSUPP',
      `${hex64(image)} is out of BL range, and there is no far plan`,
    );
  }
  return planActions(kernel, steps, address, image, assembler);
}

/** Steps with addresses and bytes. */
export function planActions(
  kernel: Kernel,
  steps: readonly OwnStep[],
  address: bigint,
  image: bigint,
  assembler: Assembler,
): OwnAction[] {
  return steps.map((step): OwnAction => {
    switch (step.kind) {
      case 'word': {
        const at = valueOf(kernel, step.at, address, image);
        const bytes = assembleWord(kernel, step.word, at, address, image, assembler);
        return { kind: 'instruction', address: at, bytes, what: `${step.at}: ${step.word}` };
      }
      case 'quad': {
        const at = valueOf(kernel, step.at, address, image);
        const bytes = new Uint8Array(8);
        viewOf(bytes).setBigUint64(0, valueOf(kernel, step.quad, address, image), true);
        return { kind: 'data', address: at, bytes, what: `${step.at}: ${step.quad}` };
      }
      default:
        return step;
    }
  });
}

export function perform(kernel: Kernel, actions: readonly OwnAction[]): void {
  for (const action of actions) {
    if (action.kind === 'sync' || action.kind === 'wait') continue;
    kernel.memory.pokeBytes(action.address, action.bytes);
    if (action.kind === 'instruction') kernel.syncText(action.address, action.address + 4n);
  }
}

/** `F-16`, `image`, `my_symbol+8`. */
function valueOf(kernel: Kernel, text: string, address: bigint, image: bigint): bigint {
  const match = /^(\w+)\s*(?:([+-])\s*(0x[0-9a-f]+|\d+))?$/i.exec(text.trim());
  if (!match) throw new InputError(`'${text}' is no name with an offset`);
  const [, name = '', sign, number = '0'] = match;
  const offset = sign === '-' ? -BigInt(number) : BigInt(number);
  if (name === 'F') return address + offset;
  if (name === 'image') return image + offset;
  return kernel.symbol(name) + offset;
}

/** One instruction, at the place where it will stand. */
function assembleWord(
  kernel: Kernel,
  word: string,
  at: bigint,
  address: bigint,
  image: bigint,
  assembler: Assembler,
): Uint8Array {
  const constants = new Map(asmOffsets(kernel.ftrace.profile));
  for (const symbol of kernel.symbols) constants.set(symbol.name, symbol.address);
  constants.set('F', address);
  constants.set('image', image);
  // texts begin at a multiple of 8
  const start = at & ~7n;
  const skip = Number(at - start);
  const source = `CODE own_step\n${NOP_LINE.repeat(skip / 4)}\t${word}\n`;
  const { bytes } = assembler.assemble(`'${word}'`, source, start, constants, ENTRY);
  if (bytes.length < skip + 4) throw new InputError(`'${word}' is no instruction`);
  return bytes.slice(skip, skip + 4);
}
