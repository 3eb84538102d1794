/**
 * Brings an `ObjectSpec` to life on a host: maps in kernel memory, programs in xlated form.
 *
 * Creates and fills the maps; then for each program links its subprograms, applies relocations,
 * verifies it, rewrites context accesses, replaces what the verifier inlines, and turns helper ids
 * into distances from `host.callBase`. Reference: bpf_object__load of libbpf, bpf_check in
 * kernel/bpf/verifier.c (resolve_pseudo_ldimm64, convert_ctx_accesses, do_misc_fixups). When anything
 * is refused, all maps are freed again.
 *
 * Usage:
 *   const object = load(parseObject(bytes), host);
 *   const [program] = object.programs;
 *   const interpreter = createInterpreter(program.xlated, host);
 *   object.free();
 */
import { InputError, KernelError } from '../../common/errors.js';
import type { BpfHost } from '../host.js';
import { encodeSlots, type Slot } from '../instruction.js';
import { createMap } from '../maps/create.js';
import type { BpfMap } from '../maps/map.js';
import { OPCODES } from '../opcodes.js';
import type { ProgramType, XlatedFunction, XlatedProgram } from '../program.js';
import { validate } from '../validate.js';
import { verifierInput } from '../verifier/from-object.js';
import type { VerifiedProgram } from '../verifier/input.js';
import { verify } from '../verifier/verify.js';
import { contextBytes, rewriteContext } from './ctx-rewrite.js';
import { analyze, type FunctionFlow } from './data-flow.js';
import { helperName } from './helper-names.js';
import { inlineHelper } from './inline-helpers.js';
import { linkProgram, type Addresses, type LinkedFunction } from './link.js';
import { mapSpec } from './map-types.js';
import { patchSlots } from './patch.js';
import { describePlace } from './place.js';
import type { MapDefinition, ObjectSpec, ProgramSpec, SectionKind, SourceLine } from './spec.js';

export interface LoadOptions {
  /** Load only these programs. Default: all. Maps are made in any case. */
  readonly programs?: readonly ProgramSpec[];
  /** Changes a map before it is made, as bpf_map__set_max_entries does; e.g. to resize it. */
  readonly adjustMap?: (map: MapDefinition) => MapDefinition;
  /**
   * Verify programs; a refused one gives a VerifierError. Default: true. Without it a program runs raw:
   * only what the rewriting needs is found out.
   */
  readonly check?: boolean;
}

/** What is known about a function of a loaded program. */
export interface LoadedFunction {
  readonly name: string;
  /** BTF id of the func in `ObjectSpec.btf`, 0 when unknown. */
  readonly btfId: number;
  /** Source lines by xlated slot, sorted. */
  readonly lines: readonly SourceLine[];
}

export interface LoadedProgram {
  readonly spec: ProgramSpec;
  readonly xlated: XlatedProgram;
  /** Parallel to `xlated.functions`. */
  readonly functions: readonly LoadedFunction[];
  /** Bytes of its argument array that a tracing program reads; 0 for others. */
  readonly contextBytes: number;
}

export interface LoadedObject {
  readonly spec: ObjectSpec;
  /** By name, in the order of the object. */
  readonly maps: ReadonlyMap<string, BpfMap>;
  readonly programs: readonly LoadedProgram[];
  /** The program called `name`. Throws InputError when it is not loaded. */
  program(name: string): LoadedProgram;
  /** Frees all maps. Programs must not run any more. */
  free(): void;
}

const PROGRAM_TYPES: Readonly<Record<SectionKind, ProgramType | undefined>> = {
  xdp: 'xdp',
  fentry: 'tracing',
  fexit: 'tracing',
  fmod_ret: 'tracing',
  tc: 'socket_filter',
  socket: 'socket_filter',
  unsupported: undefined,
};

export function load(spec: ObjectSpec, host: BpfHost, options: LoadOptions = {}): LoadedObject {
  const maps = new Map<string, BpfMap>();
  const definitions: MapDefinition[] = [];
  const free = (): void => {
    for (const map of maps.values()) map.free();
    maps.clear();
  };
  try {
    for (const definition of spec.maps) {
      const adjusted = options.adjustMap?.(definition) ?? definition;
      definitions.push(adjusted);
      maps.set(definition.name, makeMap(adjusted, host));
    }
    const programs = (options.programs ?? spec.programs).map((program) =>
      loadProgram(spec, program, maps, host, options.check === false ? undefined : definitions),
    );
    return {
      spec,
      maps,
      programs,
      program: (name) => {
        const found = programs.find((program) => program.spec.name === name);
        if (!found) throw new InputError(`program '${name}' is not loaded`);
        return found;
      },
      free,
    };
  } catch (error) {
    free();
    throw error;
  }
}

function makeMap(definition: MapDefinition, host: BpfHost): BpfMap {
  let map: BpfMap;
  try {
    map = createMap(mapSpec(definition), host);
  } catch (error) {
    // the host's memory says RangeError when it is full
    if (!(error instanceof RangeError)) throw error;
    throw new KernelError('ENOMEM', `map '${definition.name}': ${error.message}`);
  }
  try {
    const result = definition.data ? map.set(new Uint8Array(4), definition.data) : 0;
    if (result !== 0)
      throw new InputError(`map '${definition.name}': contents refused (${result})`);
  } catch (error) {
    map.free();
    throw error;
  }
  return map;
}

function loadProgram(
  object: ObjectSpec,
  program: ProgramSpec,
  maps: ReadonlyMap<string, BpfMap>,
  host: BpfHost,
  /** For the verifier; undefined leaves it out. */
  definitions: readonly MapDefinition[] | undefined,
): LoadedProgram {
  const type = PROGRAM_TYPES[program.kind];
  if (!type) {
    throw new InputError(
      `program '${program.name}': section '${program.section}' is not supported`,
    );
  }
  const linked = linkProgram(object, program, addressesOf(maps));
  const verified =
    definitions &&
    verify(verifierInput(object, program, linked, definitions), {
      hasHelper: (id) =>
        inlineHelper(program.kind, id) !== undefined || host.helperAddress(id) !== undefined,
    });
  const [problem] = validate(linked.map(({ spec, slots }) => xlated(spec.name, slots, 0)));
  if (problem !== undefined) {
    throw new KernelError('EINVAL', `program '${program.name}': ${problem}`);
  }
  const flows = verified ? flowsOf(verified) : analyze(linked);
  const finished = linked.map((each, i) =>
    finishFunction(program, each, flows[i] as FunctionFlow, host),
  );
  const [main, ...others] = finished;
  if (!main) throw new InputError(`program '${program.name}' has no function`);
  return {
    spec: program,
    xlated: {
      name: program.name,
      type,
      functions: [main.xlated, ...others.map((each) => each.xlated)],
    },
    functions: finished.map(({ info }) => info),
    contextBytes: type === 'tracing' ? contextBytes(linked, flows) : 0,
  };
}

/** What the rewriting needs of what the verifier found. */
function flowsOf({ functions }: VerifiedProgram): FunctionFlow[] {
  return functions.map(({ accesses, stackDepth }) => ({
    contextAccesses: new Map(
      [...accesses].flatMap(([slot, kind]) => (kind === 'ctx' ? [[slot, 'ctx'] as const] : [])),
    ),
    stackDepth,
  }));
}

function addressesOf(maps: ReadonlyMap<string, BpfMap>): Addresses {
  const find = (name: string): BpfMap => {
    const map = maps.get(name);
    if (!map) throw new InputError(`there is no map '${name}'`);
    return map;
  };
  return {
    map: (name) => find(name).address,
    data: (name) => find(name).valueAddress,
  };
}

function xlated(name: string, slots: readonly Slot[], stackDepth: number): XlatedFunction {
  return { name, insns: encodeSlots(slots), stackDepth };
}

function finishFunction(
  program: ProgramSpec,
  linked: LinkedFunction,
  flow: FunctionFlow,
  host: BpfHost,
): { readonly xlated: XlatedFunction; readonly info: LoadedFunction } {
  const { spec, slots } = linked;
  const replacements = rewriteContext(program, linked, flow);
  for (const [at, slot] of slots.entries()) {
    if (!isHelperCall(slots, at)) continue;
    replacements.set(
      at,
      inlineHelper(program.kind, slot.imm) ?? [helperCall(program, linked, at, slot, host)],
    );
  }
  const patched = patchSlots(slots, replacements);
  return {
    xlated: xlated(spec.name, patched.slots, flow.stackDepth),
    info: {
      name: spec.name,
      btfId: spec.btfId,
      lines: spec.lines.map((line) => ({ ...line, slot: patched.moved[line.slot] ?? line.slot })),
    },
  };
}

function isHelperCall(slots: readonly Slot[], at: number): boolean {
  const slot = slots[at] as Slot;
  const opcode = OPCODES[slot.code];
  return opcode?.kind === 'call' && opcode.source === 'immediate' && slot.src === 0;
}

function helperCall(
  program: ProgramSpec,
  { spec }: LinkedFunction,
  at: number,
  slot: Slot,
  host: BpfHost,
): Slot {
  const address = host.helperAddress(slot.imm);
  if (address === undefined) {
    const where = describePlace(program, spec, at);
    throw new KernelError('EINVAL', `unknown func ${helperName(slot.imm)}#${slot.imm}: ${where}`);
  }
  const distance = address - host.callBase;
  if (distance !== BigInt.asIntN(32, distance)) {
    throw new KernelError('ERANGE', `${helperName(slot.imm)} is over 2 GiB from the call base`);
  }
  return { ...slot, imm: Number(distance) };
}
