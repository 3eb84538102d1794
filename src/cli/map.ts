/** `trampolab map`: the maps of an object, in the manner of `bpftool map`. */
import {
  InputError,
  UsageError,
  applySetting,
  dumpMaps,
  hexToBytes,
  listMaps,
  load,
  mapRecords,
  parseObject,
  readCapture,
  runPackets,
  selectProgram,
  withTailCallees,
  type BpfMap,
} from '../index.js';
import { bootLab, parseInput, readInput } from '../node/index.js';
import { choiceOption, integerOption, parseOptions, type Command, type Output } from './command.js';
import { ENGINES, OBJECT_RAM, cpuEngine, runEngine } from './engine.js';
import { OBJECT_OPTIONS, OBJECT_USAGE, asSet } from './object-options.js';

const USAGE = `map dump PROG.o [--map NAME] [--mem HEX|@FILE | --pcap FILE [--repeat N]] [--set M[K]=V]
       map list PROG.o [--map NAME]
  dump              print what is in the maps: by their types, or as bytes
  list              print what maps there are
  --map NAME        only this one
  --mem HEX|@FILE   run the XDP program over one packet first; --pcap FILE: over all of a capture,
                    --repeat N times
  --program NAME    which program of an object with several
  --engine E        interpreter (default) or wasm; embedded or unicorn (arm64 JIT image)
${OBJECT_USAGE}
  --set M[K]=V      put an entry into map M before that (numbers, IPv4 addresses or hex:BYTES); may be repeated
  --no-check        do not verify the program
  --json, -j        as JSON`;

function readPackets(mem: string | undefined, pcap: string | undefined): Uint8Array[] {
  if (mem !== undefined && pcap !== undefined) {
    throw new UsageError('--mem and --pcap exclude each other');
  }
  if (mem !== undefined) return [mem.startsWith('@') ? readInput(mem.slice(1)) : hexToBytes(mem)];
  return pcap === undefined ? [] : parseInput(pcap, readCapture).packets.map(({ bytes }) => bytes);
}

function chosenMaps(maps: ReadonlyMap<string, BpfMap>, name: string | undefined): BpfMap[] {
  if (name === undefined) return [...maps.values()];
  const map = maps.get(name);
  if (map) return [map];
  throw new InputError(`no map '${name}', but: ${[...maps.keys()].join(', ') || 'none at all'}`);
}

async function mapCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    map: { type: 'string' },
    program: { type: 'string' },
    mem: { type: 'string' },
    pcap: { type: 'string' },
    repeat: { type: 'string' },
    engine: { type: 'string' },
    ...OBJECT_OPTIONS,
    set: { type: 'string', multiple: true },
    'no-check': { type: 'boolean' },
    json: { type: 'boolean', short: 'j' },
  });
  const [action, path] = positionals;
  if (action !== 'dump' && action !== 'list') {
    throw new UsageError(
      `map takes dump or list${action === undefined ? '' : `, not '${action}'`}`,
    );
  }
  if (path === undefined) throw new UsageError('PROG.o is missing');
  const json = values.json === true;
  const engine = choiceOption('engine', values.engine, 'interpreter', ENGINES);
  const repeat = integerOption('repeat', values.repeat, 1, { min: 1, max: 1e6 });
  const packets = readPackets(values.mem, values.pcap);
  const parsed = parseInput(path, (bytes) => parseObject(bytes, { name: path }));
  const spec = asSet(parsed, values);
  const program = packets.length > 0 ? selectProgram(spec, values.program, 'xdp') : undefined;
  if (program && program.kind !== 'xdp') {
    throw new UsageError(`${program.name} (${program.section}) is no XDP program`);
  }
  const kernel = await bootLab({ engine: cpuEngine(engine), vmallocRam: OBJECT_RAM });
  try {
    const object = load(spec, kernel.bpf.host, {
      programs: program ? withTailCallees(spec, program) : [],
      check: values['no-check'] !== true,
    });
    const maps = chosenMaps(object.maps, values.map);
    if (action === 'list') {
      if (json) output.line(JSON.stringify(mapRecords(object, maps)));
      else for (const line of listMaps(object, maps)) output.line(line);
      return 0;
    }
    for (const setting of values.set ?? []) applySetting(object.maps, setting);
    if (program) {
      const { xlated } = object.program(program.name);
      runPackets(kernel, runEngine(engine), xlated, packets, repeat);
    }
    const text = dumpMaps(object, maps, { json, headers: maps.length > 1 });
    if (text !== '') output.line(text);
    return 0;
  } finally {
    kernel.close();
  }
}

export const map: Command = {
  name: 'map',
  summary: "an object's maps and what a run leaves in them, in bpftool's format",
  usage: USAGE,
  run: mapCommand,
};
