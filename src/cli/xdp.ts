/** `trampolab xdp`: a capture through the virtio-net receive model with an XDP program. */
import {
  applySetting,
  commentOption,
  describePacket,
  ethernetCapture,
  installVirtioNet,
  listMap,
  mapTypes,
  load,
  parseObject,
  readCapture,
  runTraffic,
  selectProgram,
  verdictName,
  writePcap,
  writePcapng,
  type TrafficResult,
} from '../index.js';
import { UsageError } from '../index.js';
import { bootLab, readInput, writeOutput } from '../node/index.js';
import {
  choiceOption,
  parseOptions,
  requiredArgument,
  table,
  type Command,
  type Output,
} from './command.js';
import { cpuEngine, ENGINES, runEngine } from './engine.js';

const USAGE = `xdp PROG.o --pcap IN [--out OUT] [--program NAME] [--rx small|mergeable] [--engine E]
  PROG.o           an object with an XDP program
  --pcap IN        capture (pcap or pcapng) to receive, - for standard input
  --out OUT        write what was delivered or transmitted; .pcapng keeps each verdict as a comment
  --program NAME   which program of an object with several
  --rx MODE        receive buffers: mergeable (default) or small
  --engine E       interpreter (default) or wasm; embedded or unicorn (arm64 JIT image)
  --set M[K]=V     put an entry into map M first (numbers, IPv4 addresses or hex:BYTES); may be repeated
  --packets        one line per packet
  --no-check       do not verify the program
  --debug, -d      the verifier's whole log when it refuses the program
  --json, -j       as JSON`;

function capture(result: TrafficResult, asPcapng: boolean): Uint8Array {
  const sent = result.outcomes.filter(({ out }) => out !== undefined);
  const made = ethernetCapture(
    sent.map(({ packet, out, verdict, to }) => ({
      time: packet.time,
      bytes: out ?? new Uint8Array(0),
      options: asPcapng ? [commentOption(`${verdictName(verdict)}, ${to}`)] : [],
    })),
    asPcapng ? 'pcapng' : 'pcap',
  );
  return asPcapng ? writePcapng(made) : writePcap(made);
}

function printResult(output: Output, result: TrafficResult): void {
  for (const line of table([
    ['verdict', 'packets'],
    ...[...result.verdicts].map(([name, count]) => [name, String(count)]),
  ])) {
    output.line(line);
  }
  output.line();
  const counters = Object.entries(result.counters).filter(
    ([name, value]) => value !== 0 && /^(rx|tx)_/.test(name),
  );
  for (const line of table([
    ['counter', 'value'],
    ...counters.map(([name, value]) => [name, String(value)]),
  ])) {
    output.line(line);
  }
}

function printPackets(output: Output, result: TrafficResult): void {
  for (const [index, { packet, verdict, to }] of result.outcomes.entries()) {
    output.line(
      `${String(index + 1).padStart(4)}  ${verdictName(verdict).padEnd(12)} ${to.padEnd(9)} ${describePacket(packet.bytes)}`,
    );
  }
  output.line();
}

async function xdpCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    pcap: { type: 'string' },
    out: { type: 'string' },
    program: { type: 'string' },
    rx: { type: 'string' },
    engine: { type: 'string' },
    packets: { type: 'boolean' },
    'no-check': { type: 'boolean' },
    debug: { type: 'boolean', short: 'd' },
    set: { type: 'string', multiple: true },
    json: { type: 'boolean', short: 'j' },
  });
  const path = requiredArgument(positionals, 'PROG.o');
  if (values.pcap === undefined) throw new UsageError('--pcap IN is missing');
  const rx = choiceOption('rx', values.rx, 'mergeable', ['small', 'mergeable']);
  const engine = choiceOption('engine', values.engine, 'interpreter', ENGINES);
  const spec = parseObject(readInput(path), { name: path });
  const wanted = selectProgram(spec, values.program);
  if (wanted.kind !== 'xdp') {
    throw new UsageError(`${wanted.name} (${wanted.section}) is no XDP program`);
  }
  const input = readCapture(readInput(values.pcap));
  const kernel = await bootLab({ engine: cpuEngine(engine) });
  try {
    const driver = installVirtioNet(kernel);
    const object = load(spec, kernel.bpf.host, {
      programs: [wanted],
      check: values['no-check'] !== true,
    });
    for (const setting of values.set ?? []) applySetting(object.maps, setting);
    const result = runTraffic(kernel, {
      driver,
      engine: runEngine(engine),
      program: object.program(wanted.name),
      capture: input,
      rx,
    });
    if (values.out !== undefined) {
      writeOutput(values.out, capture(result, values.out.endsWith('.pcapng')));
      if (values.out === '-') return 0;
    }
    if (values.json) {
      const verdicts = Object.fromEntries(result.verdicts);
      output.line(JSON.stringify({ verdicts, counters: result.counters }));
      return 0;
    }
    if (values.packets) printPackets(output, result);
    printResult(output, result);
    for (const map of object.maps.values()) {
      output.line();
      output.line(`map ${map.spec.name} (${map.spec.type.toLowerCase()}):`);
      for (const line of listMap(map, mapTypes(object, map.spec.name))) output.line(`  ${line}`);
    }
    return 0;
  } finally {
    kernel.close();
  }
}

export const xdp: Command = {
  name: 'xdp',
  summary: 'a capture through virtio-net with an XDP program: verdicts, counters, maps',
  usage: USAGE,
  run: xdpCommand,
};
