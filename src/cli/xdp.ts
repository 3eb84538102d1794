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
  openTraffic,
  parseObject,
  readCapture,
  runTraffic,
  selectProgram,
  withTailCallees,
  verdictName,
  writePcap,
  writePcapng,
  type Kernel,
  type StreamOptions,
  type TrafficResult,
} from '../index.js';
import { UsageError } from '../index.js';
import { bootLab, readInput, writeOutput } from '../node/index.js';
import {
  choiceOption,
  integerOption,
  parseOptions,
  requiredArgument,
  table,
  type Command,
  type Output,
} from './command.js';
import { cpuEngine, ENGINES, runEngine } from './engine.js';

const USAGE = `xdp PROG.o --pcap IN [--out OUT] [--program NAME] [--rx small|mergeable] [--ring split|packed] [--engine E] [--repeat N]
  PROG.o           an object with an XDP program
  --pcap IN        capture (pcap or pcapng) to receive, - for standard input
  --out OUT        write what was delivered or transmitted; .pcapng keeps each verdict as a comment
  --program NAME   which program of an object with several
  --rx MODE        receive buffers: mergeable (default) or small
  --ring LAYOUT    virtqueues: split (default) or packed
  --in-order       IN_ORDER: one used element for a batch
  --indirect       INDIRECT_DESC: a frame in several pieces takes one descriptor
  --engine E       interpreter (default) or wasm; embedded or unicorn (arm64 JIT image)
  --set M[K]=V     put an entry into map M first (numbers, IPv4 addresses or hex:BYTES); may be repeated
  --packets        one line per packet
  --dev-bound      bind the program to the device: it may ask for metadata of packets
  --repeat N       send the capture N times, 64 packets per poll, and tell packets per second (not with
                   --out or --packets)
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

function printResult(output: Output, result: Pick<TrafficResult, 'verdicts' | 'counters'>): void {
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

interface RepeatedResult extends Pick<TrafficResult, 'verdicts' | 'counters'> {
  readonly packets: number;
  /** Of processor time. */
  readonly seconds: number;
}

/** Sends the frames `times` times in batches; nothing is kept of them but counts. */
function repeatTraffic(
  kernel: Kernel,
  options: StreamOptions,
  frames: readonly Uint8Array[],
  times: number,
): RepeatedResult {
  const stream = openTraffic(kernel, options);
  try {
    const before = process.cpuUsage();
    for (let i = 0; i < times; i++) stream.send(frames);
    const { user, system } = process.cpuUsage(before);
    const { packets, verdicts, counters } = stream.counts;
    return { packets, verdicts, counters, seconds: (user + system) / 1e6 };
  } finally {
    stream.close();
  }
}

async function xdpCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    pcap: { type: 'string' },
    out: { type: 'string' },
    program: { type: 'string' },
    rx: { type: 'string' },
    ring: { type: 'string' },
    'in-order': { type: 'boolean' },
    indirect: { type: 'boolean' },
    engine: { type: 'string' },
    packets: { type: 'boolean' },
    'dev-bound': { type: 'boolean' },
    repeat: { type: 'string' },
    'no-check': { type: 'boolean' },
    debug: { type: 'boolean', short: 'd' },
    set: { type: 'string', multiple: true },
    json: { type: 'boolean', short: 'j' },
  });
  const path = requiredArgument(positionals, 'PROG.o');
  if (values.pcap === undefined) throw new UsageError('--pcap IN is missing');
  const rx = choiceOption('rx', values.rx, 'mergeable', ['small', 'mergeable']);
  const ring = choiceOption('ring', values.ring, 'split', ['split', 'packed']);
  const engine = choiceOption('engine', values.engine, 'interpreter', ENGINES);
  const repeat = integerOption('repeat', values.repeat, 0, { min: 1, max: 1_000_000_000 });
  if (repeat > 0 && (values.out !== undefined || values.packets)) {
    throw new UsageError('--repeat keeps no packets: it goes without --out and --packets');
  }
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
      programs: withTailCallees(spec, wanted),
      check: values['no-check'] !== true,
      deviceBound: values['dev-bound'] === true,
    });
    for (const setting of values.set ?? []) applySetting(object.maps, setting);
    const options = {
      driver,
      engine: runEngine(engine),
      program: object.program(wanted.name),
      rx,
      ring,
      inOrder: values['in-order'] === true,
      indirect: values.indirect === true,
    };
    if (repeat > 0) {
      const frames = input.packets.map(({ bytes }) => bytes);
      const { packets, seconds, verdicts, counters } = repeatTraffic(
        kernel,
        options,
        frames,
        repeat,
      );
      const rate = Math.round(packets / seconds);
      if (values.json) {
        const measured = { packets, cpu_seconds: seconds, packets_per_second: rate };
        const named = Object.fromEntries(verdicts);
        output.line(JSON.stringify({ verdicts: named, counters, ...measured }));
        return 0;
      }
      output.notice(`${packets} packets in ${seconds.toFixed(2)} s of processor time: ${rate}/s`);
      printResult(output, { verdicts, counters });
    } else {
      const result = runTraffic(kernel, { ...options, capture: input });
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
    }
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
