/** `trampolab rss`: which receive queue packets go to, by outer and by inner headers. */
import { join, resolve } from 'node:path';
import {
  CaptureRun,
  DEFAULT_PACKET_TIME,
  EXPERIMENTS,
  InputError,
  openCapture,
  runExperiment,
  UsageError,
  type CapturedPacket,
  type CaptureReader,
} from '../index.js';
import { CaptureFile, makeFolder, readChunks, naming } from '../node/index.js';
import { integerOption, parseOptions, type Command, type Output } from './command.js';
import { rssSettings, RSS_OPTIONS } from './rss-settings.js';
import {
  captureJson,
  captureLines,
  experimentDetail,
  experimentJson,
  experimentLines,
} from './rss-tables.js';

const USAGE = `rss CAPTURE [--queues N] [--tunnels LIST] [--key KEY] [--out-dir DIR] ...
rss [--experiment NAME]
  CAPTURE          pcap or pcapng of Ethernet, - for standard input: packets and flows by queue, with
                   and without inner hash
  --queues N       receive queues; default 8
  --key KEY        hex digits, microsoft (default) or symmetric
  --types LIST     hash types: IPv4,TCPv4,UDPv4,IPv6,TCPv6,UDPv6,IP_EX,TCP_EX,UDP_EX, linux (without
                   the _EX ones), none or a mask 0x...; default all
  --tunnels LIST   tunnels whose inner header is hashed: GRE_2784,GRE_2890,GRE_7676,GRE_UDP,VXLAN,
                   VXLAN_GPE,GENEVE,IPIP,NVGRE, GRE (three of them), none or a mask; default all
  --form FORM      final (virtio 1.3, default) or v7: the proposal, which knows GRE, VXLAN, GENEVE
  --table LIST     queue of each entry of the indirection table, a power of two of them
  --entries N      or so many entries, entry i naming queue i modulo the queues; default 128
  --unclassified N queue of packets without a hash; default 0
  --port T=N       UDP port of gre-udp, vxlan, vxlan-gpe or geneve; may be repeated
  --qemu           hash IPv6 extension headers and atomic fragments as QEMU does
  --cost NS        time of a CPU per packet, for packets out of order; default ${DEFAULT_PACKET_TIME}
  --out-dir DIR    write queue0.pcap, queue1.pcap, ... as the inner hash steers
  --experiment N   one of the experiments that are listed without CAPTURE
  --json, -j       as JSON`;

const PROGRESS_PACKETS = 65536;
const LINKTYPE_ETHERNET = 1;
/** More files than this are rather a mistake. */
const MAX_FILES = 1024;

/** A capture file for each queue. */
class QueueFiles {
  readonly #files: readonly CaptureFile[];

  constructor(folder: string, queues: number, input: string) {
    if (queues > MAX_FILES) {
      throw new UsageError(`--out-dir writes at most ${MAX_FILES} files, not ${queues}`);
    }
    const paths = Array.from({ length: queues }, (_, i) => join(folder, `queue${i}.pcap`));
    const same = paths.find((each) => resolve(each) === resolve(input));
    if (same !== undefined) throw new UsageError(`${same} is the capture that is read`);
    makeFolder(folder);
    this.#files = paths.map((path) => new CaptureFile(path));
  }

  add(queue: number, packet: CapturedPacket): void {
    this.#files[queue]?.add(packet);
  }

  commit(): void {
    for (const file of this.#files) file.commit();
  }

  abandon(): void {
    for (const file of this.#files) file.abandon();
  }
}

function showProgress(packets: number): void {
  if (process.stderr.isTTY) process.stderr.write(`\r${packets} packets`);
}

function endProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
}

/** The capture must be one before any file is written. */
function steer(path: string, run: CaptureRun, openFiles: () => QueueFiles | undefined): void {
  const reader = naming(path, () => openCapture(readChunks(path)));
  const files = openFiles();
  try {
    steerAll(path, reader, run, files);
  } catch (error) {
    files?.abandon();
    throw error;
  } finally {
    endProgress();
  }
  files?.commit();
}

function steerAll(
  path: string,
  reader: CaptureReader,
  run: CaptureRun,
  files: QueueFiles | undefined,
): void {
  for (const packet of reader.packets()) {
    const linkType = reader.interfaces[packet.interfaceIndex]?.linkType;
    if (linkType !== LINKTYPE_ETHERNET) {
      throw new InputError(`${path}: link type ${linkType}, not Ethernet (1)`);
    }
    const queue = run.add(packet);
    files?.add(queue, packet);
    if (run.packets % PROGRESS_PACKETS === 0) showProgress(run.packets);
  }
}

function experiments(name: string | undefined, json: boolean, output: Output): void {
  const chosen = EXPERIMENTS.filter((each) => name === undefined || each.name === name);
  if (chosen.length === 0) {
    const names = EXPERIMENTS.map((each) => each.name).join(', ');
    throw new UsageError(`no experiment '${name}' (there are ${names})`);
  }
  const results = chosen.map(runExperiment);
  if (json) output.line(JSON.stringify(results.map(experimentJson)));
  else {
    const lines = name === undefined ? experimentLines(results) : results.flatMap(experimentDetail);
    for (const line of lines) output.line(line);
  }
}

async function rssCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    ...RSS_OPTIONS,
    cost: { type: 'string' },
    'out-dir': { type: 'string' },
    experiment: { type: 'string' },
    json: { type: 'boolean', short: 'j' },
  });
  const [path, surplus] = positionals;
  if (surplus !== undefined) throw new UsageError(`unexpected '${surplus}'`);
  const json = values.json ?? false;
  if (path === undefined) {
    const { experiment, json: _json, ...others } = values;
    const [other] = Object.keys(others);
    if (other !== undefined)
      throw new UsageError(`--${other} is for a capture: CAPTURE is missing`);
    experiments(experiment, json, output);
    return 0;
  }
  if (values.experiment !== undefined) {
    throw new UsageError('--experiment makes its own packets: it goes without CAPTURE');
  }
  const settings = rssSettings(values);
  const cost = integerOption('cost', values.cost, DEFAULT_PACKET_TIME, {
    min: 0,
    max: 1_000_000_000,
  });
  const run = new CaptureRun(settings, cost);
  const folder = values['out-dir'];
  steer(path, run, () =>
    folder === undefined ? undefined : new QueueFiles(folder, settings.queues, path),
  );
  const report = run.report();
  if (json) output.line(JSON.stringify(captureJson(report)));
  else for (const line of captureLines(report)) output.line(line);
  return 0;
}

export const rss: Command = {
  name: 'rss',
  summary: 'receive queues of a capture by outer and inner hash; experiments with tunnels',
  usage: USAGE,
  run: rssCommand,
};
