/** `trampolab run`: one BPF program, one engine, in the manner of `bpftool prog run`. */
import {
  InputError,
  UsageError,
  assemble,
  bytesToHex,
  createRunner,
  fillXdp,
  hexToBytes,
  listMap,
  listTrace,
  load,
  parseObject,
  rawProgram,
  selectProgram,
  tracedRun,
  xdpContext,
  type BpfMap,
  type Kernel,
  type RunResult,
  type XlatedProgram,
} from '../index.js';
import { bootLab, readInput, writeOutput } from '../node/index.js';
import {
  choiceOption,
  integerOption,
  parseOptions,
  type Command,
  type Output,
} from './command.js';

const USAGE = `run PROG [--program NAME] [--engine E] [--mem HEX|@FILE] [--repeat N] [--json]
  PROG              an object from clang, a text of BPF assembly, or - for standard input
  --hex HEX         the program itself as hex instead of PROG
  --program NAME    which program of an object with several
  --engine E        interpreter (default), embedded or unicorn (both run the arm64 JIT image)
  --mem HEX|@FILE   XDP: the packet; tracing: the u64 arguments; else the buffer that r1 points to
  --repeat N        run N times, print the average duration
  --data-out FILE   XDP: write the packet as the program left it (- for standard output)
  --maps            print the maps afterwards
  --trace           print every executed instruction (embedded and unicorn)
  --json, -j        as JSON`;

interface Input {
  readonly xlated: XlatedProgram;
  readonly maps: readonly BpfMap[];
}

const ELF_MAGIC = [0x7f, 0x45, 0x4c, 0x46];

function readProgram(
  kernel: Kernel,
  path: string | undefined,
  hex: string | undefined,
  name: string | undefined,
): Input {
  const helperImmediate = (id: number): number => {
    const address = kernel.bpf.host.helperAddress(id);
    if (address === undefined) throw new InputError(`there is no helper ${id}`);
    return Number(address - kernel.bpf.host.callBase);
  };
  if (hex !== undefined) {
    return { xlated: rawProgram('prog', hexToBytes(hex), { helperImmediate }), maps: [] };
  }
  if (path === undefined) throw new UsageError('PROG is missing');
  const bytes = readInput(path);
  if (!ELF_MAGIC.every((byte, i) => bytes[i] === byte)) {
    const insns = assemble(new TextDecoder().decode(bytes));
    return { xlated: rawProgram('prog', insns, { helperImmediate }), maps: [] };
  }
  const spec = parseObject(bytes, { name: path });
  const program = selectProgram(spec, name);
  const object = load(spec, kernel.bpf.host);
  const xlated = object.programs.get(program.name);
  if (!xlated) throw new InputError(`${path}: ${program.name} did not load`);
  return { xlated, maps: [...object.maps.values()] };
}

function memoryBytes(text: string | undefined): Uint8Array {
  if (text === undefined) return new Uint8Array(0);
  return text.startsWith('@') ? readInput(text.slice(1)) : hexToBytes(text);
}
