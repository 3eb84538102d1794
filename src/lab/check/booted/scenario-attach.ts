/**
 * The programs of a booted kernel's trampoline, attached in a lab kernel: to a function of the same name and
 * prototype, in the order in which the scenario loaded them.
 *
 * The xlated instructions are the recorded ones with addresses of this lab. What the lab's text does not
 * have is defined: hooks of the LSM scenario, and functions that notes of a scenario describe.
 */
import { high32, low32 } from '../../../common/bytes.js';
import { InputError } from '../../../common/errors.js';
import { encodeSlots, type Slot } from '../../../bpf/instruction.js';
import type { XlatedFunction, XlatedProgram } from '../../../bpf/program.js';
import type { AttachKind } from '../../../kernel/bpf/attach-check.js';
import type { Attachment, ProgramTarget } from '../../../kernel/bpf/bpf.js';
import type { KernelProgram } from '../../../kernel/bpf/program.js';
import type { KernelFunction } from '../../../kernel/function.js';
import type { Kernel } from '../../../kernel/kernel.js';
import { isMapReference } from './corpus-file.js';
import { stackOf } from './corpus-images.js';
import { bits, constantAt } from './image.js';
import type { Scenario, ScenarioProgram } from './scenario-file.js';
import type { ImageReading } from './scenario-image.js';

/** By enum bpf_attach_type. */
export const ATTACH_KINDS: Readonly<Record<number, AttachKind>> = {
  24: 'fentry',
  25: 'fexit',
  26: 'fmod_ret',
  27: 'lsm',
  58: 'fsession',
};
const BPF_LSM_MAC = 27;

/** Functions that scenarios attach to and that have no text in every lab kernel. */
const MORE_FUNCTIONS: readonly KernelFunction[] = [
  {
    name: 'bpf_fentry_test10',
    prototype: 'int bpf_fentry_test10(const void *a)',
    parameters: 1,
    body: () => 0n,
  },
];

/** Pages that stand in for the maps of programs. */
const MAP_SIZE = 4096;
const LD_IMM64 = 0x18;
const CALL = 0x85;
const GET_ATTACH_COOKIE = 174;

/** A function of the booted kernel, from a note like `8: name [('a', 2, 8, ''), ('b', 4, 12, '')]`. */
function noted(note: string): KernelFunction | undefined {
  const [, name, list] = /^\w+: (\w+) \[(.*)\]$/.exec(note) ?? [];
  if (name === undefined || list === undefined) return undefined;
  const structs: Record<string, number> = {};
  const parameters = [...list.matchAll(/\('(\w+)', (\d+), (\d+)/g)].map(([, field, kind, size]) => {
    // BTF_KIND_STRUCT
    if (kind !== '4') return `u${8 * Number(size)} ${field}`;
    structs[`s${size}`] = Number(size);
    return `struct s${size} ${field}`;
  });
  const prototype = `u64 ${name}(${parameters.join(', ')})`;
  return { name, prototype, structs, parameters: 8, body: () => 0n };
}

/** Defines the functions of a scenario that the kernel does not have. */
export function defineFunctions(kernel: Kernel, { notes }: Scenario): void {
  const functions = [...MORE_FUNCTIONS, ...notes.map(noted).filter((fn) => fn !== undefined)];
  kernel.define(...functions.filter(({ name }) => !kernel.symbols.find(name)));
}

/** Where what a map holds lies in this lab, by where it lay there. */
export type MapPlacement = (theirs: bigint) => bigint;

/** Addresses of maps in an image, in order: constants of the upper half, not those that are called (x10). */
function mapAddresses(image: readonly number[]): bigint[] {
  return image.flatMap((word, i) => {
    const value = bits(word, 0, 5) === 10 ? undefined : constantAt(image, i);
    return value !== undefined && value >> 52n === 0xfffn ? [value] : [];
  });
}

/** One function with this lab's addresses. */
function localFunction(
  kernel: Kernel,
  name: string,
  slots: readonly Slot[],
  mapAt: MapPlacement,
  image: readonly number[],
): XlatedFunction {
  const addresses = mapAddresses(image);
  let map = 0n;
  const { host } = kernel.bpf;
  // the one helper that is not made into instructions
  const cookie = Number((host.helperAddress(GET_ATTACH_COOKIE) ?? 0n) - host.callBase);
  const local = slots.map((slot, i): Slot => {
    if (isMapReference(slots, i)) {
      map = mapAt(addresses.shift() ?? 0n);
      return { ...slot, src: 0, imm: low32(map) };
    }
    if (slots[i - 1]?.code === LD_IMM64 && isMapReference(slots, i - 1)) {
      return { ...slot, imm: high32(map) };
    }
    return slot.code === CALL && slot.src === 0 ? { ...slot, imm: cookie } : slot;
  });
  return { name, insns: encodeSlots(local), stackDepth: stackOf(image) };
}

/** Loads a scenario's program. Functions after the main one are called `NAME_sub_1` and so on. */
export function loadProgram(
  kernel: Kernel,
  program: ScenarioProgram,
  mapAt: MapPlacement,
): KernelProgram {
  const { name, functions, images, attachType } = program;
  const type = attachType === 0 ? 'socket_filter' : 'tracing';
  const [main, ...others] = functions.map((slots, i) =>
    localFunction(kernel, i === 0 ? name : `${name}_sub_${i}`, slots, mapAt, images[i] ?? []),
  );
  if (!main) throw new InputError(`program ${name} has no function`);
  const xlated: XlatedProgram = { name, type, functions: [main, ...others] };
  return kernel.bpf.load(xlated, {
    sleepable: name.includes('sleep'),
    ...(attachType === BPF_LSM_MAC ? { lsm: 'mac' as const } : {}),
    ...(attachType === 0 ? { prototypes: TARGET_PROTOTYPES } : {}),
  });
}

/** Of the BPF program that scenario 24 attaches to. */
const TARGET_PROTOTYPES = ['int target(struct __sk_buff *skb)', 'long target_sub_1(long x)'];

/** Where the programs of an image go: a kernel function, or a function of a BPF program of the file. */
export type ScenarioTarget =
  | { readonly kind: 'kernel'; readonly name: string }
  | { readonly kind: 'program'; readonly program: ScenarioProgram; readonly index: number };

/** Undefined when the file does not say. `label` is that of the state the image is from. */
export function targetOf(
  { programs }: Scenario,
  { calls }: ImageReading,
  label: string,
): ScenarioTarget | undefined {
  const name = programs.find((each) => each.name === calls[0]?.name)?.target;
  if (name !== undefined) return { kind: 'kernel', name };
  const program = programs.find((each) => each.name === 'target');
  return program && { kind: 'program', program, index: label.includes('sub') ? 1 : 0 };
}

export interface ScenarioAttachment {
  /** The one that was made last. */
  readonly last: Attachment;
  undo(): void;
}

/** Attaches what `image` calls. Throws KernelError where the lab refuses; nothing then is left. */
export function attachScenarioPrograms(
  kernel: Kernel,
  scenario: Scenario,
  image: ImageReading,
  target: ScenarioTarget,
): ScenarioAttachment {
  const map = kernel.kmalloc(MAP_SIZE);
  const steps = [(): void => kernel.kfree(map)];
  const undo = (): void => {
    for (const step of steps.splice(0).reverse()) step();
  };
  try {
    let place: string | ProgramTarget;
    if (target.kind === 'kernel') {
      place = target.name;
    } else {
      const program = loadProgram(kernel, target.program, () => map);
      steps.push(() => program.free());
      place = { program, function: program.images[target.index]?.name ?? '' };
    }
    let last: Attachment | undefined;
    for (const program of scenario.programs) {
      const called = image.calls.find(({ name }) => name === program.name);
      if (!called) continue;
      const loaded = loadProgram(kernel, program, () => map);
      steps.push(() => loaded.free());
      const kind = ATTACH_KINDS[program.attachType] ?? 'fentry';
      const attached = kernel.bpf.attach(loaded, kind, place, called.cookie);
      steps.push(() => attached.detach());
      last = attached;
    }
    if (!last) throw new InputError(`${scenario.name}: nothing to attach`);
    return { last, undo };
  } catch (error) {
    undo();
    throw error;
  }
}
