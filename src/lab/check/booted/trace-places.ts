/**
 * Addresses of a booted kernel and those of the lab that mean the same: images by program and function, kernel text by
 * symbol, the stack by its distance from where the call began. Others are paired when they are first seen
 * in the same place and have to stay a pair.
 */
import type { Kernel } from '../../../kernel/kernel.js';
import type { Scenario, ScenarioState } from './scenario-file.js';
import { readImage } from './scenario-image.js';
import type { ScenarioPlayer } from './scenario-player.js';
import type { TraceRow } from './trace-file.js';

/** A named range: an image, or a function of the kernel. */
interface Place {
  readonly name: string;
  readonly start: bigint;
  readonly size: number;
}

/** Functions are looked up by the nearest symbol; none that is looked at is longer. */
const LONGEST_FUNCTION = 0x2000;
/** What belongs to the stack of a call, below and above where it began. */
const STACK_BELOW = 0x3000n;
const STACK_ABOVE = 0x800n;
/** Kernel addresses of 52 and 48 bits. */
const KERNEL_HALF = 0xfff0_0000_0000_0000n;

const IMAGE_SYMBOL = /^(bpf_trampoline_|prog:)/;

export class TracePlaces {
  readonly #kernel: Kernel;
  readonly #scenario: Scenario;
  readonly #player: ScenarioPlayer;
  readonly #images: readonly Place[];
  /** Of the booted kernel, sorted. */
  readonly #functions: readonly Place[];
  readonly #pairs = new Map<bigint, bigint>();
  #stack: { readonly theirs: bigint; readonly ours: bigint } = { theirs: 0n, ours: 0n };

  constructor(
    kernel: Kernel,
    scenario: Scenario,
    state: ScenarioState,
    player: ScenarioPlayer,
    rows: readonly TraceRow[],
    symbols: readonly (readonly [name: string, address: bigint])[],
  ) {
    this.#kernel = kernel;
    this.#scenario = scenario;
    this.#player = player;
    this.#images = imagesOf(scenario, state);
    const functions = new Map<bigint, string>(symbols.map(([name, address]) => [address, name]));
    for (const { pc, symbol } of rows) {
      const [, name, offset] = /^(.*)\+0x([0-9a-f]+)$/.exec(symbol) ?? [];
      if (name === undefined || offset === undefined || IMAGE_SYMBOL.test(name)) continue;
      functions.set(pc - BigInt(`0x${offset}`), name);
    }
    this.#functions = [...functions]
      .map(([start, name]) => ({ name, start, size: LONGEST_FUNCTION }))
      .sort((a, b) => (a.start < b.start ? -1 : 1));
  }

  /** A call begins: `theirs` and `ours` are SP and X30. */
  begin(theirs: { sp: bigint; lr: bigint }, ours: { sp: bigint; lr: bigint }): void {
    this.#stack = { theirs: theirs.sp, ours: ours.sp };
    this.#pairs.set(theirs.lr, ours.lr);
  }

  /** `name+0x8` of an address of the booted kernel. */
  theirName(address: bigint): string {
    const place = this.#find(address);
    return place ? nameAt(place, address) : `0x${address.toString(16)}`;
  }

  /** The same of an address here. */
  ourName(address: bigint): string {
    const program = this.#ourProgram(address);
    if (program) return nameAt(program, address);
    const hit = this.#kernel.symbols.lookup(address);
    if (!hit) return `0x${address.toString(16)}`;
    const start = address - BigInt(hit.offset);
    const name = hit.name.startsWith('bpf_trampoline_') ? this.#ourTrampoline(start) : hit.name;
    return nameAt({ name, start, size: hit.size }, address);
  }

  /** Whether a value of theirs means what ours does; pairs them when nothing is known of either. */
  agree(theirs: bigint, ours: bigint): boolean {
    const known = this.#pairs.get(theirs);
    if (known !== undefined) return known === ours;
    if (theirs < KERNEL_HALF || ours < KERNEL_HALF) return theirs === ours;
    const distance = theirs - this.#stack.theirs;
    if (distance >= -STACK_BELOW && distance < STACK_ABOVE) {
      return ours === this.#stack.ours + distance;
    }
    const place = this.#find(theirs);
    if (place && this.#hasPlace(place.name)) return this.theirName(theirs) === this.ourName(ours);
    if (theirs === ours) return true;
    this.#pairs.set(theirs, ours);
    return true;
  }

  /** What of theirs an argument is here; values that mean nothing here stay as they are. */
  argument(theirs: bigint, sp: bigint): bigint {
    const distance = theirs - this.#stack.theirs;
    if (distance >= 0n && distance < STACK_ABOVE) return sp + distance;
    const place = this.#find(theirs);
    const base = place && this.#ourBase(place.name);
    return place && base !== undefined ? base + (theirs - place.start) : theirs;
  }

  /** Where something of that name begins here: a function, or a program. */
  #ourBase(name: string): bigint | undefined {
    const [, program, index = '0'] = /^prog (\w+)(?:\.(\d+))?$/.exec(name) ?? [];
    if (program === undefined) return this.#kernel.symbols.find(name)?.address;
    const loaded = this.#player.program(program);
    const fn = loaded?.xlated.functions[Number(index)];
    return fn && loaded.functionImage(fn.name).base;
  }

  #hasPlace(name: string): boolean {
    return IMAGE_NAME.test(name) || this.#kernel.symbols.find(name) !== undefined;
  }

  #find(address: bigint): Place | undefined {
    const holds = ({ start, size }: Place): boolean =>
      address >= start && address < start + BigInt(size);
    const image = this.#images.find(holds);
    if (image) return image;
    const nearest = this.#functions.findLast(({ start }) => start <= address);
    return nearest && holds(nearest) ? nearest : undefined;
  }

  #ourProgram(address: bigint): Place | undefined {
    for (const { name } of this.#scenario.programs) {
      const program = this.#player.program(name);
      for (const [i, fn] of (program?.xlated.functions ?? []).entries()) {
        const image = program?.functionImage(fn.name);
        if (!image) continue;
        const distance = address - image.base;
        if (distance >= 0n && distance < BigInt(image.jitedLength)) {
          return { name: programName(name, i), start: image.base, size: image.jitedLength };
        }
      }
    }
    return undefined;
  }

  #ourTrampoline(base: bigint): string {
    const functions = new Set(this.#scenario.programs.map(({ target }) => target));
    for (const fn of functions) {
      if (fn === undefined || !this.#kernel.symbols.find(fn)) continue;
      if (this.#kernel.bpf.trampolineAt(fn)?.image?.code.base === base) return trampolineName(fn);
    }
    return trampolineName(undefined);
  }
}

const IMAGE_NAME = /^(trampoline of|prog) /;

/** Whether a name is that of a trampoline or a program. */
export function isImageName(name: string): boolean {
  return IMAGE_NAME.test(name);
}

function trampolineName(fn: string | undefined): string {
  return `trampoline of ${fn ?? 'a program'}`;
}

function programName(name: string, index: number): string {
  return index === 0 ? `prog ${name}` : `prog ${name}.${index}`;
}

function nameAt({ name, start }: Place, address: bigint): string {
  return `${name}+0x${(address - start).toString(16)}`;
}

/** Images of the programs of a scenario and of trampolines, those that are live in a state first. */
function imagesOf({ programs, states }: Scenario, state: ScenarioState): Place[] {
  const ofPrograms = programs.flatMap(({ name, images, addresses }) =>
    images.map((image, i): Place => {
      return { name: programName(name, i), start: addresses[i] ?? 0n, size: 4 * image.length };
    }),
  );
  const trampolinesOf = (trampolines: ScenarioState['trampolines']): Place[] =>
    trampolines.flatMap((trampoline) => {
      const first = readImage(trampoline, programs)?.calls[0]?.name;
      if (first === undefined) return [];
      const target = programs.find(({ name }) => name === first)?.target;
      const { base: start, words } = trampoline;
      return [{ name: trampolineName(target), start, size: 4 * words.length }];
    });
  // what lay at an address before a program of the file did comes last; not every state lists all
  const others = states.flatMap(({ trampolines }) => trampolinesOf(trampolines));
  return [...trampolinesOf(state.trampolines), ...ofPrograms, ...others];
}
