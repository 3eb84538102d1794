/** `trampolab xdp`: a capture through the virtio-net receive model with an XDP program. */
import {
  CSUM_VARIANTS,
  RedirectSetup,
  VIRTIO_NET_VERSIONS,
  describePacket,
  describeXdpEvent,
  installVirtioNet,
  listMap,
  mapTypes,
  load,
  openCapture,
  openTraffic,
  parseKey,
  parseObject,
  readCapture,
  selectProgram,
  withTailCallees,
  verdictName,
  TrafficRun,
  type CaptureReader,
  type CsumVariant,
  type Kernel,
  type PacketOutcome,
  type RunCounts,
  type StreamOptions,
  type XdpEvent,
} from '../index.js';
import { UsageError } from '../index.js';
import { bootLab, CaptureFile, naming, parseInput, readChunks } from '../node/index.js';
import {
  choiceOption,
  integerOption,
  parseOptions,
  requiredArgument,
  table,
  type Command,
  type Output,
} from './command.js';
import { ENGINES, OBJECT_RAM, cpuEngine, runEngine } from './engine.js';
import { OBJECT_OPTIONS, OBJECT_USAGE, asSet } from './object-options.js';

const USAGE = `xdp PROG.o --pcap IN [--out OUT] [--program NAME] [--rx MODE] [--ring split|packed] [--engine E] [--repeat N]
  PROG.o           an object with an XDP program
  --pcap IN        capture (pcap or pcapng) to receive, - for standard input
  --out OUT        write what was delivered or transmitted; .pcapng keeps each verdict as a comment
  --out DEV=OUT    the same of what was redirected to another device; may be repeated
  --program NAME   which program of an object with several
  --rx MODE        receive buffers: mergeable (default), small or big (where a program attaches and never runs)
  --driver V       version of the driver: 6.1, 6.12 (default) or 6.18
  --variant V      checksum offload beside XDP: base, v4-literal, v4-fixed, upstream, or generic (the program
                   runs on skbs); default: as the driver's version does. See also csum
  --ring LAYOUT    virtqueues: split (default) or packed
  --in-order       IN_ORDER: one used element for a batch
  --indirect       INDIRECT_DESC: a frame in several pieces takes one descriptor
  --queues N       queue pairs, on as many CPUs. Default 1
  --rss            the device spreads packets over the queues by their hash, and reports it
  --rss-key KEY    the hash key: hex, microsoft or symmetric; with --rss
  --engine E       interpreter (default) or wasm; embedded or unicorn (arm64 JIT image)
${OBJECT_USAGE}
  --set M[K]=V     put an entry into map M first (numbers, IPv4 addresses or hex:BYTES); may be repeated
  --packets        one line per packet
  --dev-bound      bind the program to the device: it may ask for metadata of packets
  --repeat N       send the capture N times, 64 packets per poll, and tell packets per second (not with
                   --out or --packets)
  --no-check       do not verify the program
  --debug, -d      the verifier's whole log when it refuses the program
  --json, -j       as JSON
Redirects (the receiving device is eth0, ifindex 2):
  --device NAME    one more device, ifindex 3 and up; may be repeated
  --set M[K]=DEV   an entry of a devmap; DEV,PROG also names a program (SEC("xdp/devmap")) for what leaves
  --set M[CPU]=N   an entry of a cpumap with a queue of N frames; N,PROG for a program (SEC("xdp/cpumap"))
  --cpus N         CPUs of the machine. Default 1
  --xsk Q=OUT      an AF_XDP socket on receive queue Q, in slot Q of each xskmap; write what it receives
  --zero-copy      the sockets' memory is the device's buffers: nothing is copied; needs --driver 6.12 or 6.18
  --events         the tracepoints xdp_redirect, xdp_devmap_xmit, xdp_cpumap_*; not with --repeat`;

/** Packets between two looks at the terminal. */
const PROGRESS_PACKETS = 4096;

/** Files of what came out, by target: '' for the stack and eth0. */
class OutFiles {
  readonly #files: ReadonlyMap<string, CaptureFile>;

  constructor(paths: ReadonlyMap<string, string>) {
    this.#files = new Map([...paths].map(([target, path]) => [target, new CaptureFile(path)]));
  }

  add({ packet, out, verdict, to, redirected }: PacketOutcome): void {
    const { time } = packet;
    const name = verdictName(verdict);
    if (out) this.#files.get('')?.add({ bytes: out, time, comment: `${name}, ${to}` });
    for (const { target, frame } of redirected) {
      this.#files.get(target)?.add({ bytes: frame, time, comment: `${name}, ${target}` });
    }
  }

  commit(): void {
    for (const file of this.#files.values()) file.commit();
  }

  abandon(): void {
    for (const file of this.#files.values()) file.abandon();
  }

  /** Nothing else may be written there. */
  get usesStdout(): boolean {
    return [...this.#files.values()].some(({ path }) => path === '-');
  }
}

type Counts = RunCounts;

function printTable(output: Output, head: [string, string], rows: Iterable<[string, number]>) {
  const body = [...rows].map(([name, value]) => [name, String(value)]);
  for (const line of table([head, ...body])) output.line(line);
}

function printResult(output: Output, { verdicts, counters, redirected }: Counts): void {
  printTable(output, ['verdict', 'packets'], verdicts);
  output.line();
  if (redirected.size > 0) {
    printTable(output, ['redirected to', 'packets'], redirected);
    output.line();
  }
  const shown = Object.entries(counters).filter(
    ([name, value]) => value !== 0 && /^(rx|tx)_/.test(name),
  );
  printTable(output, ['counter', 'value'], shown);
  printQueues(output, counters);
}

/** What each receive queue took, where there are several. */
function printQueues(output: Output, counters: Counts['counters']): void {
  const queues = Object.keys(counters).flatMap((name) => /^rx(\d+)_packets$/.exec(name)?.[1] ?? []);
  if (queues.length < 2) return;
  const columns = ['packets', 'xdp_packets', 'xdp_tx', 'xdp_redirects', 'xdp_drops'];
  const row = (queue: string): string[] =>
    columns.map((name) => String(counters[`rx${queue}_${name}`] ?? 0));
  output.line();
  const rows = queues.map((queue) => [queue, ...row(queue)]);
  for (const line of table([['queue', ...columns], ...rows])) output.line(line);
}

function packetLine({ packet, verdict, to, redirected }: PacketOutcome, number: number): string {
  const where = to === 'redirect' ? redirected.map(({ target }) => target).join(',') : to;
  const [count, name] = [String(number).padStart(4), verdictName(verdict).padEnd(12)];
  return `${count}  ${name} ${where.padEnd(9)} ${describePacket(packet.bytes)}`;
}

/** Sends the packets of a capture as they are read, and nothing of them is kept. */
function sendAll(
  reader: CaptureReader,
  run: TrafficRun,
  paths: ReadonlyMap<string, string>,
  line: ((text: string) => void) | undefined,
): OutFiles {
  const files = new OutFiles(paths);
  try {
    let number = 0;
    for (const packet of reader.packets()) {
      const outcome = run.send(packet);
      number++;
      files.add(outcome);
      if (!files.usesStdout) line?.(packetLine(outcome, number));
      if (process.stderr.isTTY && number % PROGRESS_PACKETS === 0) {
        process.stderr.write(`\r${number} packets`);
      }
    }
    files.commit();
    return files;
  } catch (error) {
    files.abandon();
    throw error;
  } finally {
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  }
}

interface RepeatedResult extends Counts {
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
    return { ...stream.counts, seconds: (user + system) / 1e6 };
  } finally {
    stream.close();
  }
}

/** Where outputs go: by target, '' for the stack and eth0. Throws UsageError. */
function outputs(
  outs: readonly string[],
  xsks: readonly string[],
  devices: readonly string[],
): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  const add = (target: string, file: string): void => {
    if (files.has(target)) throw new UsageError(`two files for ${target || '--out'}`);
    files.set(target, file);
  };
  for (const out of outs) {
    const [name = '', file] = out.split(/=(.*)/s);
    if (file !== undefined && devices.includes(name)) add(name, file);
    else if (file !== undefined && /^[a-z]+\d+$/.test(name)) {
      throw new UsageError(`--out ${out}: no device ${name}, add --device ${name}`);
    } else add('', out);
  }
  for (const xsk of xsks) {
    const match = /^(\d+)=(.+)$/.exec(xsk);
    if (!match) throw new UsageError(`--xsk wants QUEUE=FILE, not '${xsk}'`);
    add(`xsk${Number(match[1])}`, match[2] ?? '');
  }
  return files;
}

/** `v4` is the proposal as it was sent. Throws UsageError. */
function variantOption(text: string | undefined): CsumVariant | undefined {
  if (text === undefined) return undefined;
  return choiceOption('variant', text === 'v4' ? 'v4-literal' : text, 'upstream', CSUM_VARIANTS);
}

async function xdpCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    pcap: { type: 'string' },
    out: { type: 'string', multiple: true },
    device: { type: 'string', multiple: true },
    xsk: { type: 'string', multiple: true },
    'zero-copy': { type: 'boolean' },
    cpus: { type: 'string' },
    events: { type: 'boolean' },
    program: { type: 'string' },
    rx: { type: 'string' },
    driver: { type: 'string' },
    variant: { type: 'string' },
    ring: { type: 'string' },
    'in-order': { type: 'boolean' },
    indirect: { type: 'boolean' },
    queues: { type: 'string' },
    rss: { type: 'boolean' },
    'rss-key': { type: 'string' },
    engine: { type: 'string' },
    packets: { type: 'boolean' },
    'dev-bound': { type: 'boolean' },
    repeat: { type: 'string' },
    'no-check': { type: 'boolean' },
    debug: { type: 'boolean', short: 'd' },
    ...OBJECT_OPTIONS,
    set: { type: 'string', multiple: true },
    json: { type: 'boolean', short: 'j' },
  });
  const path = requiredArgument(positionals, 'PROG.o');
  if (values.pcap === undefined) throw new UsageError('--pcap IN is missing');
  const rx = choiceOption('rx', values.rx, 'mergeable', ['small', 'mergeable', 'big']);
  const version = choiceOption('driver', values.driver, '6.12', VIRTIO_NET_VERSIONS);
  const variant = variantOption(values.variant);
  const ring = choiceOption('ring', values.ring, 'split', ['split', 'packed']);
  const engine = choiceOption('engine', values.engine, 'interpreter', ENGINES);
  const repeat = integerOption('repeat', values.repeat, 0, { min: 1, max: 1_000_000_000 });
  const devices = values.device ?? [];
  const files = outputs(values.out ?? [], values.xsk ?? [], devices);
  const zeroCopy = values['zero-copy'] === true;
  if (zeroCopy && (values.xsk ?? []).length === 0) throw new UsageError('--zero-copy needs --xsk');
  if (repeat > 0 && ((values.out ?? []).length > 0 || values.packets || values.events)) {
    throw new UsageError(
      '--repeat keeps no packets: it goes without --out, --packets and --events',
    );
  }
  const queuePairs = integerOption('queues', values.queues, 1, { min: 1, max: 64 });
  const cpus = Math.max(queuePairs, integerOption('cpus', values.cpus, 1, { min: 1, max: 64 }));
  const rssKey = values['rss-key'];
  if (rssKey !== undefined && values.rss !== true) throw new UsageError('--rss-key needs --rss');
  const rss = values.rss === true ? (rssKey === undefined ? {} : { key: parseKey(rssKey) }) : null;
  const parsed = parseInput(path, (bytes) => parseObject(bytes, { name: path }));
  const spec = asSet(parsed, values);
  const wanted = selectProgram(spec, values.program, 'xdp');
  if (wanted.kind !== 'xdp' || wanted.xdpAttach !== 'device') {
    throw new UsageError(`${wanted.name} (${wanted.section}) is no XDP program of a device`);
  }
  const forEntries = spec.programs.filter(
    ({ kind, xdpAttach }) => kind === 'xdp' && xdpAttach !== 'device',
  );
  const kernel = await bootLab({ engine: cpuEngine(engine), cpus, vmallocRam: OBJECT_RAM });
  try {
    const driver = installVirtioNet(kernel);
    const object = load(spec, kernel.bpf.host, {
      programs: [...withTailCallees(spec, wanted), ...forEntries],
      check: values['no-check'] !== true,
      deviceBound: values['dev-bound'] === true,
    });
    const setup = new RedirectSetup(kernel, {
      driver,
      engine: runEngine(engine),
      object,
      devices,
      queues: [...files.keys()].flatMap((name) => /^xsk(\d+)$/.exec(name)?.[1] ?? []).map(Number),
      zeroCopy,
      settings: values.set ?? [],
    });
    const options = {
      driver,
      engine: runEngine(engine),
      program: object.program(wanted.name),
      rx,
      version,
      ...(variant && { variant }),
      prepare: setup.prepare,
      targets: setup.targets,
      ring,
      inOrder: values['in-order'] === true,
      indirect: values.indirect === true,
      queuePairs,
      resetsQueues: zeroCopy,
      ...(rss ? { rss } : {}),
    };
    if (repeat > 0) {
      const frames = parseInput(values.pcap, readCapture).packets.map(({ bytes }) => bytes);
      const { packets, seconds, ...counts } = repeatTraffic(kernel, options, frames, repeat);
      const rate = Math.round(packets / seconds);
      if (values.json) {
        const measured = { packets, cpu_seconds: seconds, packets_per_second: rate };
        output.line(JSON.stringify({ ...jsonOf(counts), ...measured }));
        return 0;
      }
      output.notice(`${packets} packets in ${seconds.toFixed(2)} s of processor time: ${rate}/s`);
      printResult(output, counts);
    } else {
      const { pcap } = values;
      const reader = naming(pcap, () => openCapture(readChunks(pcap)));
      const events: XdpEvent[] = [];
      if (values.events) driver.stack.events = events;
      const run = new TrafficRun(kernel, options);
      let counts: Counts;
      try {
        const printed = values.packets === true && !values.json;
        const line = printed ? (text: string): void => output.line(text) : undefined;
        const written = sendAll(reader, run, files, line);
        if (written.usesStdout) return 0;
        counts = run.counts;
      } finally {
        run.close();
      }
      if (values.json) {
        output.line(JSON.stringify({ ...jsonOf(counts), ...(values.events ? { events } : {}) }));
        return 0;
      }
      if (values.packets) output.line();
      for (const event of events) output.line(describeXdpEvent(event));
      if (events.length > 0) output.line();
      printResult(output, counts);
    }
    for (const map of object.maps.values()) {
      output.line();
      output.line(`map ${map.spec.name} (${map.spec.type.toLowerCase()}):`);
      for (const line of listMap(map, mapTypes(object, map.spec.name))) output.line(`  ${line}`);
    }
    setup.close();
    return 0;
  } finally {
    kernel.close();
  }
}

function jsonOf({ verdicts, counters, redirected }: Counts): Record<string, unknown> {
  const targets = redirected.size > 0 ? { redirected: Object.fromEntries(redirected) } : {};
  return { verdicts: Object.fromEntries(verdicts), ...targets, counters };
}

export const xdp: Command = {
  name: 'xdp',
  summary: 'a capture through virtio-net with an XDP program: verdicts, counters, maps',
  usage: USAGE,
  run: xdpCommand,
};
