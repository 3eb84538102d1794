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
import type { Btf } from '../btf/btf.js';
import { CoreTarget } from '../btf/core-match.js';
import { callDistance, callImmediate } from '../call-immediate.js';
import { essentialName } from '../btf/core-spec.js';
import type { LocalTypes } from '../btf/local-types.js';
import type { BtfRecord } from '../btf/record.js';
import type { BpfHost } from '../host.js';
import { encodeSlots, makeSlot, type Slot } from '../instruction.js';
import { BPF_THROW } from '../kfuncs/throw.js';
import { findKfunc } from '../kfuncs/table.js';
import { createMap } from '../maps/create.js';
import type { BpfMap } from '../maps/map.js';
import { OPCODES, PSEUDO } from '../opcodes.js';
import type { ProgramType, XlatedFunction, XlatedProgram } from '../program.js';
import { tracedFunction, type TracedFunction } from '../traced-function.js';
import { validate } from '../validate.js';
import { objectTypes, verifierInput } from '../verifier/from-object.js';
import type { AccessKind, VerifiedProgram } from '../verifier/input.js';
import { verify } from '../verifier/verify.js';
import { rewriteSocketLoad } from './bpf-sock.js';
import { contextBytes, rewriteContext } from './ctx-rewrite.js';
import { analyze, type FunctionFlow } from './data-flow.js';
import { DEFAULT_CALLBACK, DEFAULT_CALLBACK_NAME, exceptionCallback } from './exceptions.js';
import { expandMayGoto, fixupInstruction } from './fixups.js';
import { helperName } from './helper-names.js';
import { fillInitialValues } from './initial-values.js';
import { CallInliner } from './inline-calls.js';
import { inlineHelper } from './inline-helpers.js';
import { inlineKfunc } from './inline-kfuncs.js';
import { beforeCall, recordsOf } from './kfunc-fixups.js';
import { DEFAULT_KCONFIG, kconfigData, type Kconfig } from './kconfig.js';
import {
  movedLines,
  withoutDeadCode,
  withoutDeadFunctions,
  type LiveFunction,
} from './live-code.js';
import { linkProgram, type Addresses, type LinkedFunction } from './link.js';
import { isForeignKfunc, kfuncAddress, missingExtern } from './kfunc-externs.js';
import { KCONFIG_SECTION } from './map-definitions.js';
import { mapSpec } from './map-types.js';
import { patchSlots } from './patch.js';
import { rewriteXdpSockLoad } from './xdp-sock.js';
import { describePlace } from './place.js';
import {
  hasTrampoline,
  type FunctionSpec,
  type MapDefinition,
  type ObjectSpec,
  type ProgramSpec,
  type SectionKind,
  type SourceLine,
} from './spec.js';

export interface LoadOptions {
  /** Load only these programs. Default: all. Maps are made in any case. */
  readonly programs?: readonly ProgramSpec[];
  /** Changes a map before it is made, as bpf_map__set_max_entries does; e.g. to resize it. */
  readonly adjustMap?: (map: MapDefinition) => MapDefinition;
  /** The types that CO-RE relocations are made for. Default: those of the host. */
  readonly kernelBtf?: Btf;
  /** Values of `__kconfig` externs, beside and before the default ones. */
  readonly kconfig?: Kconfig;
  /**
   * Programs are bound to the device that they will run on (BPF_F_XDP_DEV_BOUND_ONLY): only such ones may
   * ask for a packet's metadata. An ifindex names the device (`prog_ifindex`), `true` leaves it open. Default:
   * false.
   */
  readonly deviceBound?: boolean | number;
  /**
   * What a program is going to be attached to. Default: the function that its section names, if the kernel's
   * BTF has it; freplace programs need one.
   */
  readonly target?: (program: ProgramSpec) => LoadTarget | undefined;
  /**
   * Verify programs; a refused one gives a VerifierError. Default: true. Without it a program runs raw:
   * only what the rewriting needs is found out.
   */
  readonly check?: boolean;
}

/** What the verifier has to know of the place where a program is going to run. */
export type LoadTarget =
  | {
      readonly kind: 'traced';
      readonly traced: TracedFunction;
      /** What an LSM hook may give. Default: anything. */
      readonly resultRange?: { readonly min: bigint; readonly max: bigint };
    }
  /** freplace: the program is of this kind, and takes the arguments that its BTF says. */
  | { readonly kind: 'replaced'; readonly program: Pick<ProgramSpec, 'kind' | 'xdpAttach'> };

/** What is known about a function of a loaded program. */
interface LoadedFunction {
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
  /** The ifindex of the device that it may be attached to alone, or any; undefined: it is not bound. */
  readonly boundTo: number | 'any' | undefined;
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
  fsession: 'tracing',
  lsm: 'tracing',
  lsm_cgroup: 'tracing',
  struct_ops: 'tracing',
  kprobe: 'kprobe',
  kretprobe: 'kprobe',
  kprobe_multi: 'kprobe',
  kretprobe_multi: 'kprobe',
  freplace: undefined,
  unsupported: undefined,
};

/** bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_skc_lookup_tcp */
const SOCKET_LOOKUPS: readonly number[] = [84, 85, 99];

/** BPF_MEM and BPF_MEMSX of a load; BPF_PROBE_MEM and BPF_PROBE_MEMSX are 0x40 lower. */
const PROBE = 0x40;

export function load(spec: ObjectSpec, host: BpfHost, options: LoadOptions = {}): LoadedObject {
  const maps = new Map<string, BpfMap>();
  const definitions: MapDefinition[] = [];
  const records = new Set<BtfRecord>();
  const free = (): void => {
    for (const map of maps.values()) map.free();
    maps.clear();
    host.objects.forget(host, records);
  };
  try {
    const types = objectTypes(spec.btf, options.kernelBtf ?? host.kernelBtf);
    for (const definition of spec.maps) {
      const wanted = options.adjustMap?.(definition) ?? definition;
      const adjusted = withKconfig(spec, wanted, options.kconfig);
      const made = makeMap(adjusted, types, host);
      definitions.push(made.definition);
      maps.set(definition.name, made.map);
    }
    const addresses = addressesOf(spec, maps, host, options);
    const programs = (options.programs ?? spec.programs).map((program) =>
      loadProgram(
        spec,
        program,
        options.target?.(program) ?? namedTarget(program, options.kernelBtf ?? host.kernelBtf),
        addresses,
        host,
        options,
        options.check === false ? undefined : { definitions, types },
        records,
      ),
    );
    fillInitialValues(spec, maps, programs);
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

function withKconfig(
  { externs, btf }: ObjectSpec,
  definition: MapDefinition,
  kconfig: Kconfig = {},
): MapDefinition {
  if (definition.section !== KCONFIG_SECTION || !btf) return definition;
  const values = { ...DEFAULT_KCONFIG, ...kconfig };
  return { ...definition, data: kconfigData(externs, definition.valueSize, btf, values) };
}

/** A map, and its definition as it was made: without types where the kernel refuses them, as libbpf does. */
function makeMap(
  definition: MapDefinition,
  types: LocalTypes | undefined,
  host: BpfHost,
): { readonly map: BpfMap; readonly definition: MapDefinition } {
  try {
    return { map: makeMapOf(definition, types, host), definition };
  } catch (error) {
    if (!(error instanceof KernelError) || !types || definition.valueType === 0) throw error;
    const untyped = { ...definition, keyType: 0, valueType: 0 };
    return { map: makeMapOf(untyped, undefined, host), definition: untyped };
  }
}

function makeMapOf(
  definition: MapDefinition,
  types: LocalTypes | undefined,
  host: BpfHost,
): BpfMap {
  let map: BpfMap;
  try {
    map = createMap(mapSpec(definition, { types, cpuCount: host.cpuCount }), host);
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

/** The kernel function that the section names. */
function namedTarget(program: ProgramSpec, btf: Btf | undefined): LoadTarget | undefined {
  const { attachTarget, kind } = program;
  if (attachTarget === undefined || !btf || !hasTrampoline(kind)) return undefined;
  const isLsm = kind === 'lsm' || kind === 'lsm_cgroup';
  const name = isLsm ? `bpf_lsm_${attachTarget}` : attachTarget;
  const traced = tracedFunction(btf, name, { trusted: isLsm });
  return traced && { kind: 'traced', traced };
}

function loadProgram(
  object: ObjectSpec,
  named: ProgramSpec,
  target: LoadTarget | undefined,
  addresses: Addresses,
  host: BpfHost,
  { kernelBtf = host.kernelBtf, deviceBound = false }: LoadOptions,
  /** For the verifier; undefined leaves it out. */
  known:
    | { readonly definitions: readonly MapDefinition[]; readonly types: LocalTypes | undefined }
    | undefined,
  /** Gets the records that the program passes to kernel functions. */
  records: Set<BtfRecord>,
): LoadedProgram {
  const program = target?.kind === 'replaced' ? { ...named, ...target.program } : named;
  const type = PROGRAM_TYPES[program.kind];
  if (program.kind === 'freplace') {
    throw new KernelError(
      'EINVAL',
      `program '${program.name}': freplace needs a program to extend`,
    );
  }
  if (!type) {
    throw new InputError(
      `program '${program.name}': section '${program.section}' is not supported`,
    );
  }
  if (typeof deviceBound === 'number') {
    // bpf_prog_dev_bound_init
    if (program.kind !== 'xdp' || !host.network.device(deviceBound)) {
      const why = program.kind === 'xdp' ? `no device ${deviceBound}` : 'it is no XDP program';
      throw new KernelError('EINVAL', `program '${program.name}' cannot be bound: ${why}`);
    }
  }
  const bound = deviceBound !== false;
  const linked = linkProgram(object, program, addresses);
  const verified =
    known &&
    verify(
      verifierInput(object, program, linked, known.definitions, {
        types: known.types,
        deviceBound: bound,
        kernelBtf,
        target,
      }),
      {
        hasHelper: (id) =>
          inlineHelper(program.kind, id) !== undefined || host.helperAddress(id) !== undefined,
      },
    );
  const { patches, facts } = withoutDeadFunctions(
    linked.map((each, i) => withoutDeadCode(each, verified?.functions[i]?.dead)),
    verified?.functions,
  );
  const live = patches.map((each) => (verified ? ended(each.linked) : each.linked));
  // what the verifier did not walk may be anything
  const [problem] = validate(
    (verified ? live : linked).map(({ spec, slots }) => xlated(spec.name, slots, 0)),
    { allowMayGoto: true },
  );
  if (problem !== undefined) {
    throw new KernelError('EINVAL', `program '${program.name}': ${problem}`);
  }
  if (!verified) refuseUnverified(program, live);
  const flows = facts ? flowsOf(facts, patches) : analyze(live);
  for (const { calls } of flows)
    for (const each of recordsOf(calls?.values() ?? [])) records.add(each);
  const caught = exceptionCallback(object, program);
  const catcher = caught === undefined ? undefined : object.functions[caught];
  const throws = live.some(({ slots }) => slots.some((slot) => isThrow(slot, host)));
  const finished = live.map((each, i) => {
    const { xlated: made, info } = finishFunction(program, each, flows[i] as FunctionFlow, host);
    const marks = {
      ...(i === 0 && throws ? { exceptionBoundary: true } : {}),
      ...(catcher !== undefined && isFunction(each, catcher) ? { exceptionCallback: true } : {}),
    };
    return { xlated: { ...made, ...marks }, info };
  });
  if (throws && catcher === undefined) finished.push(DEFAULT_CATCHER);
  const [main, ...others] = finished;
  if (!main) throw new InputError(`program '${program.name}' has no function`);
  return {
    spec: named,
    xlated: {
      name: program.name,
      type,
      functions: [main.xlated, ...others.map((each) => each.xlated)],
    },
    functions: finished.map(({ info }) => info),
    contextBytes: type === 'tracing' ? contextBytes(live, flows) : 0,
    boundTo: deviceBound === true ? 'any' : deviceBound === false ? undefined : deviceBound,
  };
}

/** Loads of sockets and calls on objects are rewritten, and how only the verifier knows. */
function refuseUnverified(program: ProgramSpec, functions: readonly LinkedFunction[]): void {
  for (const { slots, spec } of functions) {
    const called = spec.relocations.find(
      (each) => each.kind === 'extern' && needsVerifier(essentialName(each.symbol)),
    );
    if (called) {
      throw new InputError(
        `program '${program.name}' allocates objects: it does not run without the verifier`,
      );
    }
    for (const at of slots.keys()) {
      if (!isHelperCall(slots, at) || !SOCKET_LOOKUPS.includes(slots[at]?.imm ?? 0)) continue;
      throw new InputError(
        `program '${program.name}' looks up sockets: it does not run without the verifier`,
      );
    }
  }
}

/** What a program that throws ends in when it names nothing else: it gives the number thrown. */
const DEFAULT_CATCHER = {
  xlated: { ...xlated(DEFAULT_CALLBACK_NAME, DEFAULT_CALLBACK, 0), exceptionCallback: true },
  info: { name: DEFAULT_CALLBACK_NAME, btfId: 0, lines: [] },
};

function isThrow({ code, src, imm }: Slot, host: BpfHost): boolean {
  if (OPCODES[code]?.kind !== 'call' || src !== PSEUDO.KFUNC_CALL) return false;
  return host.kfuncAddress?.(BPF_THROW) === host.callBase + BigInt(imm);
}

/** Behind a call that never returns is nothing; the engines want an exit there. */
function ended({ spec, slots }: LinkedFunction): LinkedFunction {
  const last = OPCODES[slots[slots.length - 1]?.code ?? 0]?.kind;
  return { spec, slots: last === 'call' ? [...slots, makeSlot(0x95)] : slots };
}

function isFunction({ spec }: LinkedFunction, { section, offset }: FunctionSpec): boolean {
  return spec.section === section && spec.offset === offset;
}

/** Whether the loader passes more to a kernel function than the program does. */
function needsVerifier(kfunc: string): boolean {
  return findKfunc(kfunc)?.prototype.includes('meta__ign') ?? false;
}

/** What the rewriting needs of what the verifier found. */
function flowsOf(
  functions: VerifiedProgram['functions'],
  live: readonly LiveFunction[],
): FunctionFlow[] {
  return functions.map(({ accesses, calls, maps, loops, stackDepth }, i) => {
    const known = <T>(facts: ReadonlyMap<number, T | undefined>): Map<number, T> =>
      new Map(
        [...facts].flatMap(([slot, fact]) =>
          fact === undefined ? [] : [[live[i]?.moved[slot] ?? slot, fact] as const],
        ),
      );
    const slotsOf = (wanted: AccessKind): number[] =>
      [...accesses].flatMap(([slot, kind]) =>
        kind === wanted ? [live[i]?.moved[slot] ?? slot] : [],
      );
    return {
      contextAccesses: new Map(slotsOf('ctx').map((slot) => [slot, 'ctx'] as const)),
      guarded: new Set(slotsOf('kernel')),
      sockets: new Set(slotsOf('sock')),
      xdpSockets: new Set(slotsOf('xdp_sock')),
      maps: known(maps),
      loops: known(loops),
      calls: new Map([...calls].map(([slot, fixup]) => [live[i]?.moved[slot] ?? slot, fixup])),
      stackDepth,
    };
  });
}

function addressesOf(
  { btf }: ObjectSpec,
  maps: ReadonlyMap<string, BpfMap>,
  host: BpfHost,
  { kernelBtf = host.kernelBtf, check = true }: LoadOptions,
): Addresses {
  const find = (name: string): BpfMap => {
    const map = maps.get(name);
    if (!map) throw new InputError(`there is no map '${name}'`);
    return map;
  };
  let kernelTypes: CoreTarget | undefined;
  return {
    map: (name) => find(name).address,
    data: (name) => find(name).valueAddress,
    symbol: (extern, where) => {
      const { name, kind, weak } = extern;
      if (kind === 'kfunc') return kfuncAddress(extern, btf, host, where) ?? 0n;
      const address = host.symbolAddress?.(name);
      if (address === undefined && !weak) throw missingExtern(name, 'symbol', where);
      return address ?? 0n;
    },
    kfunc: (extern, where) => {
      // the verifier says of calls that it comes to what is wrong with them
      if (check && isForeignKfunc(extern.name, host, kernelBtf)) return 0;
      const address = kfuncAddress(extern, btf, host, where);
      return address === undefined ? undefined : callDistance(extern.name, address, host);
    },
    kernelTypes: () => {
      if (!kernelBtf) {
        throw new KernelError('ESRCH', 'CO-RE relocations need the BTF of the kernel');
      }
      return (kernelTypes ??= new CoreTarget(kernelBtf));
    },
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
  const calls = new CallInliner(flow, host);
  const replacements = rewriteContext(program, linked, flow);
  for (const at of flow.sockets ?? []) replacements.set(at, rewriteSocketLoad(slots[at] as Slot));
  for (const at of flow.xdpSockets ?? []) {
    replacements.set(at, [rewriteXdpSockLoad(slots[at] as Slot)]);
  }
  for (const [at, slot] of slots.entries()) {
    const fixup = flow.calls?.get(at);
    if (fixup) {
      const call = isHelperCall(slots, at) ? helperCall(program, linked, at, slot, host) : slot;
      replacements.set(at, [...beforeCall(fixup, host), call]);
      continue;
    }
    if (!isHelperCall(slots, at)) {
      const fixed = flow.guarded?.has(at)
        ? [guardLoad(slot)]
        : (inlineKfunc(slot, host) ?? fixupInstruction(slot));
      if (fixed) replacements.set(at, fixed);
      continue;
    }
    replacements.set(
      at,
      inlineHelper(program.kind, slot.imm, host.argumentCountMask) ??
        calls.at(at, slot.imm) ?? [helperCall(program, linked, at, slot, host)],
    );
  }
  const plain = patchSlots(slots, replacements);
  const counted = expandMayGoto(plain.slots, calls.stackDepth);
  const patched = counted
    ? { slots: counted.slots, moved: plain.moved.map((at) => counted.moved[at] ?? at) }
    : plain;
  return {
    xlated: {
      ...xlated(spec.name, patched.slots, counted?.stackDepth ?? calls.stackDepth),
      inlined: calls.inlined(patched.moved),
    },
    info: {
      name: spec.name,
      btfId: spec.btfId,
      lines: movedLines(spec.lines, patched),
    },
  };
}

/** A load that gives 0 where it would fault (BPF_PROBE_MEM). */
function guardLoad(slot: Slot): Slot {
  return { ...slot, code: slot.code - PROBE };
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
  const imm = callImmediate(host, slot.imm);
  if (imm === undefined) {
    const where = describePlace(program, spec, at);
    throw new KernelError('EINVAL', `unknown func ${helperName(slot.imm)}#${slot.imm}: ${where}`);
  }
  return { ...slot, imm };
}
