/** `trampolab verify`: a JIT image made elsewhere, against the interpreter. */
import { join } from 'node:path';
import {
  InputError,
  Kallsyms,
  UsageError,
  applySetting,
  hexToBytes,
  load,
  parseObject,
  readCapture,
  readImage,
  selectProgram,
  verifyImage,
} from '../index.js';
import { PACKAGE_ROOT, bootLab, parseInput, readInput } from '../node/index.js';
import {
  choiceOption,
  parseOptions,
  requiredArgument,
  type Command,
  type Output,
} from './command.js';
import { OBJECT_RAM } from './engine.js';
import { OBJECT_OPTIONS, OBJECT_USAGE, asSet } from './object-options.js';

const USAGE = `verify IMAGE --prog PROG.o --kallsyms FILE [--address HEX,..] [--mem HEX|@FILE | --pcap FILE]
  IMAGE            what 'bpftool prog dump jited id N file IMAGE' wrote on an arm64 machine
  --prog PROG.o    the XDP object it was made from; --program NAME when it has several
  --kallsyms FILE  /proc/kallsyms of that machine, read as root (names what the image calls)
  --address HEX    where the image's functions were, separated by commas; default: the symbols
                   bpf_prog_<tag>_<name> of kallsyms
  --kernel V       its kernel: 6.1, 6.12 or 7.3; default 6.12
${OBJECT_USAGE}
  --set M[K]=V     put an entry into map M first, as in 'run'; may be repeated
  --mem HEX|@FILE  one packet; --pcap FILE: all of a capture; default: those of the examples
  --engine E       embedded (default) or unicorn
  --json, -j       as JSON`;

const VERSIONS = ['6.1', '6.12', '7.3'] as const;
/** The lab's own text and images keep out of the way of a kernel without KASLR. */
const LAB_KASLR_SEED = 1n << 62n;
const LAB_VMALLOC_USED = 2 ** 33;

function readPackets(mem: string | undefined, pcap: string | undefined): Uint8Array[] {
  if (mem !== undefined && pcap !== undefined)
    throw new UsageError('--mem and --pcap exclude each other');
  if (mem !== undefined) return [mem.startsWith('@') ? readInput(mem.slice(1)) : hexToBytes(mem)];
  const path = pcap ?? join(PACKAGE_ROOT, 'examples', 'captures', 'mixed.pcap');
  return parseInput(path, readCapture)
    .packets.map(({ bytes }) => bytes)
    .filter(({ length }) => length >= 14);
}

function parseAddresses(text: string): bigint[] {
  return text.split(',').map((part) => {
    if (!/^(0x)?[0-9a-f]{1,16}$/i.test(part)) {
      throw new UsageError(`--address takes hex numbers, not '${part}'`);
    }
    return BigInt(`0x${part.replace(/^0x/i, '')}`);
  });
}

async function verifyCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    prog: { type: 'string' },
    program: { type: 'string' },
    kallsyms: { type: 'string' },
    address: { type: 'string' },
    kernel: { type: 'string' },
    ...OBJECT_OPTIONS,
    set: { type: 'string', multiple: true },
    mem: { type: 'string' },
    pcap: { type: 'string' },
    engine: { type: 'string' },
    json: { type: 'boolean', short: 'j' },
  });
  const path = requiredArgument(positionals, 'IMAGE');
  if (values.prog === undefined) throw new UsageError('--prog PROG.o is missing');
  const version = choiceOption('kernel', values.kernel, '6.12', VERSIONS);
  const engine = choiceOption('engine', values.engine, 'embedded', ['embedded', 'unicorn']);
  const packets = readPackets(values.mem, values.pcap);
  const { prog } = values;
  const parsed = parseInput(prog, (bytes) => parseObject(bytes, { name: prog }));
  const spec = asSet(parsed, values);
  const chosen = selectProgram(spec, values.program, 'xdp');
  const kallsyms =
    values.kallsyms === undefined
      ? Kallsyms.parse('')
      : parseInput(values.kallsyms, (bytes) => Kallsyms.parse(new TextDecoder().decode(bytes)));
  const names = [chosen.name, ...spec.functions.map(({ name }) => name)];
  const bases =
    values.address === undefined
      ? [...new Set(names.flatMap((name) => kallsyms.programs(name)))]
      : parseAddresses(values.address);
  if (bases.length === 0) {
    throw new InputError(`${path}: no address: kallsyms has no bpf_prog_<tag>_${chosen.name}`);
  }
  const image = readImage(path, readInput(path), bases);
  const kernel = await bootLab({
    engine,
    version,
    kaslrSeed: LAB_KASLR_SEED,
    vmallocUsed: LAB_VMALLOC_USED,
    vmallocRam: OBJECT_RAM,
  });
  try {
    const result = verifyImage(kernel, {
      image,
      kallsyms,
      program: chosen.name,
      packets,
      load: () => {
        const object = load(spec, kernel.bpf.host, { programs: [chosen] });
        for (const setting of values.set ?? []) applySetting(object.maps, setting);
        return object;
      },
    });
    const { difference } = result;
    if (values.json)
      output.line(JSON.stringify({ packets: result.packets, difference: difference ?? null }));
    else if (difference === undefined) {
      output.line(`${result.packets} packets: the image does what the interpreter does`);
    }
    if (difference === undefined) return 0;
    throw new InputError(`${path}: ${difference}`);
  } finally {
    kernel.close();
  }
}

export const verify: Command = {
  name: 'verify',
  summary: 'a JIT image dumped from a real arm64 kernel, against the interpreter',
  usage: USAGE,
  run: verifyCommand,
};
