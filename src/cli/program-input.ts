/**
 * Reads what a command calls PROG: an object from clang, a text of BPF assembly, or hex.
 *
 * Objects are loaded into the kernel, so that maps and helpers have addresses; the other forms are
 * bare slots whose helper calls are resolved against the same kernel.
 */
import {
  InputError,
  UsageError,
  assemble,
  hexToBytes,
  load,
  parseBtf,
  parseObject,
  callImmediate,
  rawProgram,
  selectProgram,
  withTailCallees,
  type BpfMap,
  type Kernel,
  type LoadOptions,
  type LoadedObject,
  type LoadedProgram,
  type SectionKind,
  type XlatedProgram,
} from '../index.js';
import { naming, parseInput, readInput } from '../node/index.js';
import { choiceOption, type ParsedOptions } from './command.js';
import { OBJECT_OPTIONS, OBJECT_USAGE, asSet } from './object-options.js';

export interface ProgramInput {
  readonly xlated: XlatedProgram;
  readonly maps: readonly BpfMap[];
  /** Of an object: what is known of it beside its instructions. */
  readonly object?: LoadedObject;
  readonly program?: LoadedProgram;
}

/** How PROG is named on the command line. */
export interface ProgramArguments {
  /** A file, `-` for standard input. */
  readonly path?: string | undefined;
  readonly hex?: string | undefined;
  /** Which program of an object with several. */
  readonly program?: string | undefined;
  /** What the program is, whatever its section says. */
  readonly type?: SectionKind | undefined;
  /** A file with the types of a kernel. */
  readonly btf?: string | undefined;
  /** The program is bound to the device that it will run on. Default: false. */
  readonly deviceBound?: boolean;
  /** False runs it raw, without the verifier. */
  readonly check?: boolean;
  /** What is set in the object before it is loaded. */
  readonly settings?: ParsedOptions<typeof OBJECT_OPTIONS>['values'];
}

/** The options that all commands with a PROG take, for `parseOptions`. */
export const PROGRAM_OPTIONS = {
  program: { type: 'string' },
  hex: { type: 'string' },
  type: { type: 'string' },
  ...OBJECT_OPTIONS,
  btf: { type: 'string' },
  'dev-bound': { type: 'boolean' },
  'no-check': { type: 'boolean' },
  debug: { type: 'boolean', short: 'd' },
} as const;

/** What they mean, for usage texts. */
export const PROGRAM_USAGE = `  PROG              an object from clang, a text of BPF assembly, or - for standard input
  --hex HEX         the program itself as hex instead of PROG
  --program NAME    which program of an object with several
  --type TYPE       what it is when its section does not say: xdp, tc, socket, fentry, fexit, fmod_ret
  --btf FILE        the kernel's BTF for CO-RE; default: the lab's own
  --dev-bound       bind the program to the device: it may ask for metadata of packets
${OBJECT_USAGE}
  --no-check        do not verify an object's program
  --debug, -d       the verifier's whole log when it refuses one`;

const TYPES: readonly SectionKind[] = ['xdp', 'tc', 'socket', 'fentry', 'fexit', 'fmod_ret'];

/** From the values of `PROGRAM_OPTIONS`. */
export function programArguments(
  values: ParsedOptions<typeof PROGRAM_OPTIONS>['values'],
  path: string | undefined,
): ProgramArguments {
  const { hex, program, type, btf } = values;
  const kind = type === undefined ? undefined : choiceOption('type', type, 'xdp', TYPES);
  const check = values['no-check'] !== true;
  const deviceBound = values['dev-bound'] === true;
  return { path, hex, program, type: kind, btf, check, deviceBound, settings: values };
}

const ELF_MAGIC = [0x7f, 0x45, 0x4c, 0x46];

export function readProgram(kernel: Kernel, from: ProgramArguments): ProgramInput {
  const helperImmediate = (id: number): number => {
    const immediate = callImmediate(kernel.bpf.host, id);
    if (immediate === undefined) throw new InputError(`there is no helper ${id}`);
    return immediate;
  };
  if (from.hex !== undefined) {
    return { xlated: rawProgram('prog', hexToBytes(from.hex), { helperImmediate }), maps: [] };
  }
  if (from.path === undefined) throw new UsageError('PROG is missing');
  const bytes = readInput(from.path);
  if (!ELF_MAGIC.every((byte, i) => bytes[i] === byte)) {
    const insns = naming(from.path, () => assembleText(bytes));
    return { xlated: rawProgram('prog', insns, { helperImmediate }), maps: [] };
  }
  const { path } = from;
  const parsed = naming(path, () => parseObject(bytes, { name: path }));
  const spec = asSet(parsed, from.settings ?? {});
  const selected = selectProgram(spec, from.program);
  const chosen = from.type === undefined ? selected : { ...selected, kind: from.type };
  const options: LoadOptions = {
    programs: withTailCallees(spec, chosen),
    check: from.check ?? true,
    deviceBound: from.deviceBound ?? false,
    ...(from.btf === undefined ? {} : { kernelBtf: parseInput(from.btf, parseBtf) }),
  };
  const object = load(spec, kernel.bpf.host, options);
  const program = object.program(chosen.name);
  return { xlated: program.xlated, maps: [...object.maps.values()], object, program };
}

/** Throws InputError, without what is no text. */
function assembleText(bytes: Uint8Array): ReturnType<typeof assemble> {
  const text = new TextDecoder().decode(bytes);
  if (/[\0\ufffd]/.test(text)) throw new InputError('neither an ELF object nor assembly text');
  return assemble(text);
}
