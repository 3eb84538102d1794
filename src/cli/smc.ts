/** `trampolab smc`: SMC-D over its loopback device: handshake, transfer, state, benchmark. */
import {
  InputError,
  LOOPBACK_FORMS,
  SELECTION_POLICIES,
  bytesToHex,
  connectPair,
  copyFigures,
  createSmc,
  DECLINE_REASONS,
  declineName,
  describeMessage,
  errnoName,
  formatIpv4,
  listDevices,
  listLinkGroups,
  listSocks,
  messageName,
  openTransfer,
  runPeers,
  smcStatistics,
  UsageError,
  type ConnectionState,
  type DeclinedBy,
  type Kernel,
  type Smc,
  type SmcEndpoint,
  type SockState,
  type TransferStep,
} from '../index.js';
import { SMALL, measureSmc, type SmcBenchResult } from '../../bench/smc.js';
import { bootLab } from '../node/index.js';
import { statisticsLines } from './smc-stats.js';
import {
  choiceOption,
  integerOption,
  parseOptions,
  table,
  type Command,
  type Output,
} from './command.js';

const USAGE = `smc handshake|run|state|stats|reasons|bench [OPTIONS]
  handshake        connects two sockets and prints every message, field by field
  run              sends messages over a connection and counts copies, records and signals
  state            sockets, link groups and devices of some connections, as smcss and smcd show them
  stats            what the kernel counted while connections carried messages, as smcd stats shows it
  reasons          the codes of a decline: who falls back to TCP with which, and when
  bench            copy against nocopy, beside Node's TCP and UNIX sockets in the same run
  --copy           a loopback device that copies (default: sender and receiver share the buffer)
  --loopback FORM  6.12 (default), rfc, rfc-attachment, or none
  --ism            an ISM device beside it, which can only copy
  --policy P       order of devices: landed (loopback, ISM; default) or maintainer (ISM, loopback)
  --ueid NAME      user EID of this machine (default SMC-LAB); none for none
  --connections N  how many (handshake default 1, state and stats 2)
  --size N         run, stats: bytes of a message (default 6000); --count N messages (default 8)
  --buffer N       run, stats: SO_RCVBUF and SO_SNDBUF (default 16384)
  --trace          run: cursors and the receiver's ring after every call
  --random SEED    run: random calls of both sides instead; --bytes N of them (default 10000000)
  --details        stats: counts of each side and why sockets fell back, as smcd -d stats
  --json, -j       as JSON`;

const OPTIONS = {
  copy: { type: 'boolean' },
  loopback: { type: 'string' },
  ism: { type: 'boolean' },
  policy: { type: 'string' },
  ueid: { type: 'string' },
  connections: { type: 'string' },
  size: { type: 'string' },
  count: { type: 'string' },
  buffer: { type: 'string' },
  trace: { type: 'boolean' },
  details: { type: 'boolean' },
  random: { type: 'string' },
  bytes: { type: 'string' },
  json: { type: 'boolean', short: 'j' },
} as const;

const MACHINE_OPTIONS = ['copy', 'loopback', 'ism', 'policy', 'ueid', 'json'] as const;
/** What each part of the command looks at. */
const OPTIONS_OF = {
  handshake: [...MACHINE_OPTIONS, 'connections'],
  run: [...MACHINE_OPTIONS, 'size', 'count', 'buffer', 'trace', 'random', 'bytes'],
  state: [...MACHINE_OPTIONS, 'connections'],
  stats: [...MACHINE_OPTIONS, 'connections', 'size', 'count', 'buffer', 'details'],
  reasons: ['json'],
  bench: ['json'],
} as const satisfies Readonly<Record<string, readonly (keyof typeof OPTIONS)[]>>;

type Part = keyof typeof OPTIONS_OF;

function isPart(what: string | undefined): what is Part {
  return what !== undefined && Object.hasOwn(OPTIONS_OF, what);
}

/** Messages of a size, or random calls: each has its own. */
const RANDOM_ONLY = ['bytes'] as const;
const MESSAGES_ONLY = ['size', 'count', 'trace'] as const;

function checkOptions(part: Part, values: Values): void {
  const known: readonly string[] = OPTIONS_OF[part];
  const other = Object.keys(values).find((name) => !known.includes(name));
  if (other !== undefined) throw new UsageError(`smc ${part} has no --${other}`);
  const isRandom = values.random !== undefined;
  const lost = (isRandom ? MESSAGES_ONLY : RANDOM_ONLY).find((name) => values[name] !== undefined);
  if (lost !== undefined) {
    throw new UsageError(`--${lost} goes ${isRandom ? 'without' : 'with'} --random`);
  }
}

type Values = ReturnType<typeof parseOptions<typeof OPTIONS>>['values'];

const MAX = 1 << 20;
const ADDRESS = '127.0.0.1';

async function bootSmc(values: Values): Promise<{ readonly kernel: Kernel; readonly smc: Smc }> {
  const loopback = choiceOption('loopback', values.loopback, '6.12', [...LOOPBACK_FORMS, 'none']);
  const policy = choiceOption('policy', values.policy, 'landed', ['landed', 'maintainer']);
  const kernel = await bootLab({ ram: 64 << 20 });
  const smc = createSmc(kernel, {
    nocopy: values.copy !== true,
    loopback,
    policy: SELECTION_POLICIES[policy],
    ism: values.ism === true ? [{}] : [],
    memMax: MAX,
  });
  const ueid = values.ueid ?? 'SMC-LAB';
  if (ueid !== 'none') smc.eids.add(ueid);
  return { kernel, smc };
}

/** Connects pairs one after the other; they stay open. */
async function connectPairs(smc: Smc, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    await connectPair(smc, { address: ADDRESS, port: 5000 + i });
  }
}

// ---- handshake

async function showHandshake(smc: Smc, values: Values, output: Output): Promise<void> {
  const count = integerOption('connections', values.connections, 1, { min: 1, max: 100 });
  await connectPairs(smc, count);
  const clients = new Set(
    listSocks(smc)
      .filter(({ local, remote }) => local.port > remote.port)
      .map(({ sock }) => sock),
  );
  const messages = smc.messages.map(({ smc: sender, bytes }) => ({
    from: clients.has(sender) ? 'client' : 'server',
    name: messageName(bytes),
    bytes: bytesToHex(bytes),
    fields: describeMessage(bytes),
  }));
  if (values.json) {
    output.line(JSON.stringify({ messages, sockets: listSocks(smc).map(sockRecord) }));
    return;
  }
  for (const { from, name, bytes, fields } of messages) {
    output.line(`${from}: ${name}, ${bytes.length / 2} bytes`);
    let part = '';
    for (const field of fields) {
      if (field.part !== part || field.name === 'gid') output.line(`  ${field.part}`);
      part = field.part;
      const hex = field.hex.length > 32 ? `${field.hex.slice(0, 29)}...` : field.hex;
      const place = String(field.offset).padStart(5);
      output.line(
        `  ${place}  ${field.name.padEnd(28)}  ${hex.padEnd(32)}  ${field.value}`.trimEnd(),
      );
    }
    output.line();
  }
  for (const sock of listSocks(smc)) output.line(outcomeLine(sock));
}

function outcomeLine(sock: SockState): string {
  const who = sock.local.port > sock.remote.port ? 'client' : 'server';
  if (sock.mode !== 'TCP') return `${who}: ${sock.state}, ${sock.mode}`;
  return `${who}: ${sock.state}, TCP: ${reasonText(sock.fallbackReason, sock.peerDiagnosis)}`;
}

function reasonText(reason: number, peerDiagnosis: number): string {
  const peer = peerDiagnosis === 0 ? '' : `, peer: ${declineName(peerDiagnosis)}`;
  return `${declineName(reason)}${peer}`;
}

// ---- run

function cursorText([wrap, count]: readonly [number, number]): string {
  return `${wrap}:${count}`;
}

function traceLines({ call, result, sender, receiver, picture, stats }: TransferStep): string[] {
  const outcome = result < 0 ? `-${errnoName(result) ?? -result}` : String(result);
  const counted = Object.entries(stats).map(([name, value]) => `${name} +${value}`);
  return [
    `${call} = ${outcome}`,
    `  sender    prep ${cursorText(sender.txPrep)}  sent ${cursorText(sender.txSent)}  fin ${cursorText(sender.txFin)}` +
      `  prod ${cursorText(sender.txProd)}  peer cons ${cursorText(sender.rxCons)}  space ${sender.sndbufSpace}`,
    `  receiver  prod ${cursorText(receiver.rxProd)}  cons ${cursorText(receiver.txCons)}  to read ${receiver.bytesToReceive}`,
    `  ${picture}  ${counted.join(', ')}`.trimEnd(),
  ];
}

async function run(smc: Smc, values: Values, output: Output): Promise<number> {
  const buffer = integerOption('buffer', values.buffer, 16384, { min: 1, max: MAX });
  if (values.random !== undefined) return runRandom(smc, values, buffer, output);
  const size = integerOption('size', values.size, 6000, { min: 1, max: MAX });
  const count = integerOption('count', values.count, 8, { min: 1, max: 10_000_000 });
  const transfer = await openTransfer(smc, { rcvbuf: buffer, sndbuf: buffer });
  if (transfer.client.isFallback) {
    const { fallbackReason, peerDiagnosis } = transfer.client;
    throw new InputError(`no SMC: ${reasonText(fallbackReason, peerDiagnosis)}`);
  }
  let bytes = 0;
  let messages = 0;
  const steps: TransferStep[] = [];
  for (const step of transfer.run({ size, count })) {
    if (step.call.startsWith('send') && step.result > 0) {
      bytes += step.result;
      messages++;
    }
    if (values.trace && values.json) steps.push(step);
    else if (values.trace) for (const line of traceLines(step)) output.line(line);
  }
  const figures = copyFigures(smc.stats, bytes, messages);
  if (values.json) {
    const record = { bytes, messages, ...figures, stats: smc.stats };
    output.line(toJson(values.trace ? { ...record, steps } : record));
    return 0;
  }
  if (values.trace) output.line();
  for (const line of table([
    ['messages', String(messages)],
    ['bytes', String(bytes)],
    ['copies of a byte', figures.copiesPerByte.toFixed(2)],
    ['bytes the device copied', String(smc.stats.deviceCopied)],
    ['records of 32 bytes (CDC)', String(smc.stats.cdcs)],
    ['of these window updates', String(smc.stats.windowUpdates)],
    ['signals', String(smc.stats.signals)],
    ['handshake bytes', String(smc.stats.handshakeBytes)],
  ])) {
    output.line(line);
  }
  return 0;
}

async function runRandom(
  smc: Smc,
  values: Values,
  buffer: number,
  output: Output,
): Promise<number> {
  const seed = integerOption('random', values.random, 1, { min: 0, max: 0xffffffff });
  const bytes = integerOption('bytes', values.bytes, 10_000_000, { min: 1, max: 1e12 });
  const result = await runPeers(smc, { seed, rcvbuf: buffer, sndbuf: buffer, bytes });
  if (values.json) output.line(JSON.stringify(result));
  else {
    const verdict = result.problem ?? 'byte-exact, counters in range, nobody stuck';
    output.line(`${result.bytes} bytes in ${result.calls} calls: ${verdict}`);
  }
  return result.problem === undefined ? 0 : 1;
}

// ---- state

function addressText({ address, port }: SmcEndpoint): string {
  const bytes = Uint8Array.of(address >>> 24, address >>> 16, address >>> 8, address);
  return `${formatIpv4(bytes)}:${port}`;
}

function hex16(value: bigint): string {
  return value.toString(16).padStart(16, '0');
}

function sockRecord(sock: SockState): object {
  return { ...sock, local: addressText(sock.local), remote: addressText(sock.remote) };
}

function sockRow({ state, local, remote, mode, connection }: SockState): string[] {
  const sizes = (c: ConnectionState): string[] => [
    String(c.sndbufSize),
    String(c.rmbeSize),
    hex16(c.token),
    `${cursorText(c.txProd)} ${cursorText(c.txCons)}`,
  ];
  return [
    state,
    addressText(local),
    addressText(remote),
    mode,
    ...(connection ? sizes(connection) : ['', '', '', '']),
  ];
}

async function showState(smc: Smc, values: Values, output: Output): Promise<void> {
  const count = integerOption('connections', values.connections, 2, { min: 1, max: 100 });
  await connectPairs(smc, count);
  const [socks, groups, devices] = [listSocks(smc), listLinkGroups(smc), listDevices(smc)];
  if (values.json) {
    output.line(toJson({ sockets: socks.map(sockRecord), linkGroups: groups, devices }));
    return;
  }
  const sections: readonly (readonly (readonly string[])[])[] = [
    [
      ['State', 'Local Address', 'Peer Address', 'Mode', 'Sndbuf', 'RMBE', 'Token', 'TX prod cons'],
      ...socks.map(sockRow),
    ],
    [
      ['LGR-ID', 'Device', 'Role', 'Ver', '#Conns', 'Peer GID', 'EID'],
      ...groups.map((group) => [
        group.id.toString(16).padStart(8, '0'),
        group.device,
        group.role,
        `v${group.version}`,
        String(group.connections),
        hex16(group.peerGid),
        group.eid,
      ]),
    ],
    [
      ['Device', 'CHID', 'GID', 'GID ext', 'DMBs', 'LGRs', 'nocopy'],
      ...devices.map((device) => [
        device.name,
        device.chid.toString(16).padStart(4, '0'),
        hex16(device.gid),
        hex16(device.gidExt),
        String(device.dmbs),
        String(device.linkGroups),
        device.nocopy ? 'yes' : 'no',
      ]),
    ],
  ];
  sections.forEach((rows, i) => {
    if (i > 0) output.line();
    for (const line of table(rows)) output.line(line);
  });
}

// ---- stats

/** Each client sends; what does not fit stays unsent, over TCP too. */
async function showStatistics(smc: Smc, values: Values, output: Output): Promise<void> {
  const connections = integerOption('connections', values.connections, 2, { min: 1, max: 100 });
  const size = integerOption('size', values.size, 6000, { min: 1, max: MAX });
  const count = integerOption('count', values.count, 8, { min: 1, max: 10_000_000 });
  const buffer = integerOption('buffer', values.buffer, 16384, { min: 1, max: MAX });
  const message = new Uint8Array(size);
  const received = new Uint8Array(size);
  for (let i = 0; i < connections; i++) {
    const to = { address: ADDRESS, port: 5000 + i };
    const { client, server } = await connectPair(smc, to, { rcvbuf: buffer, sndbuf: buffer });
    for (let n = 0; n < count; n++) {
      client.sendNow(message);
      server.recvNow(received);
    }
  }
  const statistics = smcStatistics(smc);
  if (values.json) output.line(JSON.stringify(statistics));
  else for (const line of statisticsLines(statistics, values.details === true)) output.line(line);
}

// ---- reasons

const BY: Readonly<Record<DeclinedBy, string>> = {
  client: 'client',
  server: 'server',
  both: 'client, server',
  roce: 'SMC-R',
  nobody: '-',
};

function showReasons(values: Values, output: Output): void {
  if (values.json) {
    output.line(JSON.stringify(DECLINE_REASONS));
    return;
  }
  for (const line of table(
    DECLINE_REASONS.map(({ code, name, by, when }) => [
      `0x${code.toString(16).padStart(8, '0')}`,
      name,
      BY[by],
      when,
    ]),
  )) {
    output.line(line);
  }
}

function toJson(value: unknown): string {
  return JSON.stringify(value, (_name, each: unknown) =>
    typeof each === 'bigint' ? `0x${hex16(each)}` : each,
  );
}

// ---- bench

/** The mail of December 2022: ipc-bench of 100 bytes, sockperf of 14 and of 64000 bytes. */
const SEED_FIGURES: Readonly<Record<SmcBenchResult['name'], readonly [string, string, string]>> = {
  copy: ['152266', '3.36', '4936'],
  nocopy: ['151914', '3.25', '8240'],
  'node tcp': ['75140', '6.37', '4943'],
  'node unix': ['129548', '-', '-'],
};

async function bench(values: Values, output: Output): Promise<void> {
  output.notice('measuring: four ways, five runs of each');
  const results = await measureSmc();
  if (values.json) {
    output.line(JSON.stringify(results));
    return;
  }
  const figure = (value: number | undefined, digits = 2): string =>
    value === undefined ? '-' : value.toFixed(digits);
  output.line('here: per second of processor time; mail: a VM with 8 cores, December 2022');
  for (const line of table([
    ['', '100 B msg/s', 'mail', '14 B us', 'mail', '64 KiB MB/s', 'mail', 'copies', 'CDC/msg'],
    ...results.map((result) => {
      const [messages, latency, bulk] = SEED_FIGURES[result.name];
      return [
        result.name,
        figure(result.messagesPerSecond, 0),
        messages,
        figure(result.microseconds),
        latency,
        figure(result.megabytesPerSecond, 0),
        bulk,
        figure(result.bulk?.copiesPerByte),
        figure(result.small?.cdcsPerMessage, 3),
      ];
    }),
  ])) {
    output.line(line);
  }
  const find = (name: SmcBenchResult['name']): SmcBenchResult | undefined =>
    results.find((each) => each.name === name);
  const [copy, nocopy] = [find('copy'), find('nocopy')];
  if (!copy || !nocopy) return;
  const ratio = (a: number, b: number): string => `${(a / b).toFixed(2)}x`;
  output.line();
  output.line(
    `nocopy over copy: ${SMALL} B ${ratio(nocopy.messagesPerSecond, copy.messagesPerSecond)} (mail 1.00x), ` +
      `64 KiB ${ratio(nocopy.megabytesPerSecond, copy.megabytesPerSecond)} (mail 1.67x)`,
  );
  output.line('Only copy against nocopy is like for like: Node pays system calls, the model none.');
}

async function smcCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, OPTIONS);
  const [what, ...more] = positionals;
  if (more.length > 0)
    throw new UsageError(`smc ${what ?? ''} takes nothing more, not '${more[0] ?? ''}'`);
  if (!isPart(what)) {
    const given = what === undefined ? 'nothing' : `'${what}'`;
    throw new UsageError(`handshake, run, state, stats, reasons or bench, not ${given}`);
  }
  checkOptions(what, values);
  if (what === 'bench') {
    await bench(values, output);
    return 0;
  }
  if (what === 'reasons') {
    showReasons(values, output);
    return 0;
  }
  const { kernel, smc } = await bootSmc(values);
  try {
    switch (what) {
      case 'handshake':
        await showHandshake(smc, values, output);
        return 0;
      case 'run':
        return await run(smc, values, output);
      case 'stats':
        await showStatistics(smc, values, output);
        return 0;
      case 'state':
        await showState(smc, values, output);
        return 0;
    }
  } finally {
    kernel.close();
  }
}

export const smc: Command = {
  name: 'smc',
  summary: 'SMC-D over its loopback device: handshake, transfer, state, benchmark',
  usage: USAGE,
  run: smcCommand,
};
