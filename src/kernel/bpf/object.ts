/**
 * An object file in the kernel: maps made, programs verified for what they are attached to, JITed, attached.
 *
 * What a skeleton of libbpf does: each program finds its target by its section (`fentry/bpf_fentry_test1`,
 * `lsm/file_open`) or by `targets` (functions of BPF programs). Reference: bpf_object__load,
 * bpf_program__attach_trace of libbpf; bpf_check_attach_target in kernel/bpf/verifier.c. Refused are programs
 * whose target the kernel's BTF does not have, as libbpf does.
 *
 * Usage:
 *   const object = loadObject(kernel, parseObject(bytes), { targets: { on_main: { program: xdp } } });
 *   const attachment = object.attach('test1', { cookie: 5n });
 *   object.close();
 */
import {
  load,
  type LoadOptions,
  type LoadedObject,
  type LoadedProgram,
  type LoadTarget,
} from '../../bpf/object/load.js';
import {
  isProbe,
  type ObjectSpec,
  type ProbeKind,
  type ProgramSpec,
} from '../../bpf/object/spec.js';
import type { StructOpsSpec } from '../../bpf/object/struct-ops.js';
import {
  tracedFunction,
  tracedPrototype,
  unknownFunction,
  type TracedFunction,
} from '../../bpf/traced-function.js';
import { InputError, KernelError } from '../../common/errors.js';
import type { Kernel } from '../kernel.js';
import { hookResultRange } from './allow-lists.js';
import { checkAttachTarget, type AttachKind } from './attach-check.js';
import type { ProgramTarget } from './bpf.js';
import type { Link } from './probe-programs.js';
import { attachProbe } from './probe-sections.js';
import type { KernelProgram, LoadProgramOptions } from './program.js';
import type { StructOps } from './struct-ops.js';

export interface LoadObjectOptions extends Omit<LoadOptions, 'target'> {
  /** Where a program goes, by its name. Default: the kernel function that its section names. */
  readonly targets?: Readonly<Record<string, string | ProgramTarget>>;
}

export interface AttachOptions {
  /** What bpf_get_attach_cookie gives. Default 0. */
  readonly cookie?: bigint;
  /** Another target than it was loaded for. */
  readonly target?: string | ProgramTarget;
}

export interface KernelObject {
  readonly loaded: LoadedObject;
  readonly programs: ReadonlyMap<string, KernelProgram>;
  /** The program called `name`. Throws InputError when there is none. */
  program(name: string): KernelProgram;
  /** Attaches a program to its target. */
  attach(name: string, options?: AttachOptions): Link;
  /** Attaches all programs that have a target, in the order of the object. All or none. */
  attachAll(): Link[];
  /** Registers the structure of operations that the object defines as `name`. */
  registerStructOps(name: string): StructOps;
  /** That structure as the object defines it. */
  structOpsSpec(name: string): StructOpsSpec;
  /** The program that is function `index` of the object. */
  programOf(index: number): KernelProgram;
  /** Detaches all, frees programs and maps. */
  close(): void;
}

/** A program with what it was loaded for. */
interface Placed {
  readonly program: KernelProgram;
  readonly kind: AttachKind | ProbeKind | undefined;
  readonly target: string | ProgramTarget | undefined;
  readonly functionIndex: number;
}

/** Throws KernelError, VerifierError; nothing is left then. */
export function loadObject(
  kernel: Kernel,
  spec: ObjectSpec,
  options: LoadObjectOptions = {},
): KernelObject {
  const { targets = {}, ...rest } = options;
  const targetOf = (program: ProgramSpec): string | ProgramTarget | undefined =>
    targets[program.name] ?? sectionTarget(program);
  const loaded = load(spec, kernel.bpf.host, {
    ...rest,
    target: (program) => loadTarget(kernel, spec, program, targetOf(program)),
  });
  const placed = new Map<string, Placed>();
  const attached: Link[] = [];
  const registered: (() => void)[] = [];
  const close = (): void => {
    for (const unregister of registered.slice()) unregister();
    for (const attachment of attached.splice(0).reverse()) attachment.detach();
    for (const { program } of placed.values()) program.free();
    placed.clear();
    loaded.free();
  };
  try {
    for (const each of loaded.programs) {
      placed.set(each.spec.name, {
        program: kernel.bpf.load(each.xlated, programOptions(spec, each)),
        kind: isProbe(each.spec.kind) ? each.spec.kind : attachKindOf(each.spec),
        target: targetOf(each.spec),
        functionIndex: each.spec.functionIndex,
      });
    }
  } catch (error) {
    close();
    throw error;
  }
  const find = (name: string): Placed => {
    const found = placed.get(name);
    if (!found) throw new InputError(`program '${name}' is not loaded`);
    return found;
  };
  const attach = (name: string, { cookie, target }: AttachOptions = {}): Link => {
    const { program, kind, target: own } = find(name);
    const to = target ?? own;
    if (kind === undefined || to === undefined) {
      throw new InputError(`program '${name}' is attached to nothing: its section names no target`);
    }
    const made = isProbe(kind)
      ? attachProbe(kernel.bpf, program, kind, to, cookie)
      : kernel.bpf.attach(program, kind, to, cookie);
    const attachment: Link = {
      ...made,
      detach: () => {
        const at = attached.indexOf(attachment);
        if (at >= 0) attached.splice(at, 1);
        made.detach();
      },
    };
    attached.push(attachment);
    return attachment;
  };
  const programOf = (index: number): KernelProgram => {
    for (const { program, functionIndex } of placed.values()) {
      if (functionIndex === index) return program;
    }
    throw new InputError(`function ${index} of the object is no loaded program`);
  };
  const structOpsSpec = (name: string): StructOpsSpec => {
    const found = spec.structOps?.find((each) => each.name === name);
    if (!found) throw new InputError(`there is no struct_ops variable '${name}'`);
    return found;
  };
  return {
    loaded,
    programs: new Map([...placed].map(([name, { program }]) => [name, program])),
    program: (name) => find(name).program,
    attach,
    attachAll: () => {
      const made: Link[] = [];
      try {
        for (const [name, { kind, target }] of placed) {
          if (kind !== undefined && target !== undefined) made.push(attach(name));
        }
      } catch (error) {
        for (const attachment of made.reverse()) attachment.detach();
        throw error;
      }
      return made;
    },
    registerStructOps: (name) => {
      const ops = kernel.bpf.structOps.register(structOpsSpec(name), programOf);
      const unregister = (): void => {
        const at = registered.indexOf(unregister);
        if (at < 0) return;
        registered.splice(at, 1);
        ops.unregister();
      };
      registered.push(unregister);
      return { ...ops, unregister };
    },
    structOpsSpec,
    programOf,
    close,
  };
}

/** The way that a section asks for; undefined for programs that no trampoline calls. */
function attachKindOf({ kind }: ProgramSpec): AttachKind | undefined {
  switch (kind) {
    case 'fentry':
    case 'fexit':
    case 'fmod_ret':
    case 'fsession':
    case 'lsm':
    case 'freplace':
      return kind;
    case 'lsm_cgroup':
      return 'lsm';
    default:
      return undefined;
  }
}

/** The kernel function that a section names. */
function sectionTarget({ kind, attachTarget }: ProgramSpec): string | undefined {
  if (attachTarget === undefined || kind === 'freplace' || kind === 'struct_ops') return undefined;
  return kind === 'lsm' || kind === 'lsm_cgroup' ? `bpf_lsm_${attachTarget}` : attachTarget;
}

/** What the verifier is told; throws for targets that are refused already when a program is loaded. */
function loadTarget(
  kernel: Kernel,
  object: ObjectSpec,
  spec: ProgramSpec,
  target: string | ProgramTarget | undefined,
): LoadTarget | undefined {
  const kind = attachKindOf(spec);
  if (spec.kind === 'struct_ops') return kernel.bpf.structOps.loadTarget(object, spec);
  if (kind === undefined || target === undefined) return undefined;
  const { bpf } = kernel;
  const traced = tracedBy(kernel, spec, target);
  const { btf } = object;
  const id = object.functions[spec.functionIndex]?.btfId ?? 0;
  checkAttachTarget(
    {
      name: spec.name,
      sleepable: spec.sleepable,
      gpl: isGpl(object),
      main: btf && id !== 0 ? { btf, id } : undefined,
    },
    kind,
    bpf.checkedTarget(target),
    bpf.profile.version,
  );
  if (kind === 'freplace' && typeof target !== 'string') {
    const { type } = target.program.xlated;
    const replaced = type === 'xdp' || type === 'kprobe' ? type : 'socket';
    return { kind: 'replaced', program: { kind: replaced, xdpAttach: 'device' } };
  }
  const isInt = traced.returnsInteger;
  const resultRange = kind === 'lsm' && isInt ? hookResultRange(bpf.profile.version) : undefined;
  return { kind: 'traced', traced, ...(resultRange ? { resultRange } : {}) };
}

/** What BTF says of the target. */
function tracedBy(
  kernel: Kernel,
  spec: ProgramSpec,
  target: string | ProgramTarget,
): TracedFunction {
  const kernelBtf = kernel.bpf.host.kernelBtf;
  if (typeof target === 'string') {
    const trusted = spec.kind === 'lsm' || spec.kind === 'lsm_cgroup';
    const traced = tracedFunction(kernelBtf, target, { trusted });
    if (traced) return traced;
    throw new KernelError(
      'ESRCH',
      `program '${spec.name}': failed to find kernel BTF type ID of '${target}'`,
    );
  }
  const name = target.function ?? target.program.xlated.functions[0].name;
  // throws when there is none
  target.program.functionImage(name);
  const known = target.program.functionInBtf(name);
  const prototype = known?.btf.as(known.id, 'func')?.type;
  const traced =
    known && prototype !== undefined
      ? tracedPrototype(known.btf, prototype, name, { kernelBtf })
      : undefined;
  return traced ?? unknownFunction(name);
}

function isGpl({ license }: ObjectSpec): boolean {
  return /^(Dual .*\/)?GPL/.test(license);
}

function programOptions(
  object: ObjectSpec,
  { spec, functions }: LoadedProgram,
): LoadProgramOptions {
  const lsm = spec.kind === 'lsm' ? 'mac' : spec.kind === 'lsm_cgroup' ? 'cgroup' : undefined;
  return {
    sleepable: spec.sleepable,
    kprobeMulti: spec.kind === 'kprobe_multi' || spec.kind === 'kretprobe_multi',
    gpl: isGpl(object),
    structOps: spec.kind === 'struct_ops',
    ...(lsm ? { lsm } : {}),
    ...(object.btf
      ? {
          btf: {
            btf: object.btf,
            functions: new Map(functions.map(({ name, btfId }) => [name, btfId])),
          },
        }
      : {}),
  };
}
