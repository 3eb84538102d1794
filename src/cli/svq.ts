/** `trampolab svq`: a control command on its way through a shadow virtqueue, what can go wrong, a migration. */
import {
  bytesToHex,
  controlCommand,
  describeCommand,
  InputError,
  migrateRandom,
  runFault,
  SVQ_FAULTS,
  SVQ_MODES,
  SvqLab,
  UsageError,
  walkCommand,
  type FaultOutcome,
  type Migration,
  type SvqFault,
  type SvqMode,
  type SvqWalk,
} from '../index.js';
import { bootLab } from '../node/index.js';
import {
  choiceOption,
  integerOption,
  parseOptions,
  table,
  type Command,
  type Output,
} from './command.js';

const FAULT_LINES = SVQ_FAULTS.map(
  ({ name, summary }) => `                    ${name.padEnd(26)} ${summary}`,
).join('\n');

const USAGE = `svq [--command WORD] [--mode MODE] [--shadow cvq|all]
svq --fault NAME|all [--mode MODE]
svq --migrate [--seed S] [--count N] [--mode MODE]
  --command WORD  the guest's command, default promisc=off: promisc=, allmulti=, alluni=, nomulti=, nouni=,
                  nobcast=on|off, mac=MAC, mac-table=U,M (so many addresses), vlan-add=ID, vlan-del=ID, announce,
                  queues=N, rss=TYPES,N, hash=TYPES, offloads=MASK, hash-tunnel=TYPES, coal-rx=PACKETS,USECS,
                  coal-tx=PACKETS,USECS, coal-vq=VQ,PACKETS,USECS, coal-get=VQ, stats, stats-get=VQ, rss-ctx=CMD,
                  hex=BYTES (class, command, data)
  --mode MODE     how it is carried: translate, copy-v8 (as proposed in May 2022, defects included),
                  landed (QEMU 7.2 and later) or transactional (nothing leaks); default landed, with
                  --fault all of them
  --shadow WHICH  queues that are shadowed: the control queue (default) or all
  --fault NAME    one thing goes wrong; all: a table of them
${FAULT_LINES}
  --migrate       random commands on one device, their state given to another
  --seed S        of the random commands; default 1
  --count N       so many of them; default 40
  --json, -j      as JSON`;

const SHADOWS = ['cvq', 'all'] as const;

function ackText(ack: number | undefined): string {
  if (ack === undefined) return 'no answer';
  if (ack > 1) return `ack ${ack}`;
  return ack === 0 ? 'ack 0 (OK)' : 'ack 1 (ERR)';
}

function leakText({ descriptors, mappings, buffers }: FaultOutcome['leaks']): string {
  if (descriptors + mappings + buffers === 0) return 'nothing';
  return `${descriptors} descriptors, ${mappings} mappings, ${buffers} buffers`;
}

/** Most bytes that are shown of a command. */
const SHOWN_BYTES = 32;

function hexOf(bytes: Uint8Array): string {
  const hex = bytesToHex(bytes.subarray(0, SHOWN_BYTES));
  return bytes.length > SHOWN_BYTES ? `${hex}... ${bytes.length} bytes` : hex;
}

function walkLines(walk: SvqWalk): string[] {
  const command = `${hexOf(walk.request)} (${describeCommand(walk.request)})`;
  const lines = [`command ${command}, mode ${walk.mode}`, '', 'before'];
  for (const [name, line] of walk.start) lines.push(`  ${name}: ${line}`);
  for (const [i, { name, what, changes }] of walk.steps.entries()) {
    lines.push('', `${i + 1}. ${name}: ${what}`);
    if (changes.length === 0) lines.push('  (nothing that is shown here)');
    for (const change of changes) {
      const { before, after } = change;
      if (before === undefined) lines.push(`  ${change.name}: ${after ?? ''}`);
      else lines.push(`  ${change.name}: ${before}  ->  ${after ?? 'gone'}`);
    }
  }
  const reply = walk.reply.length > 0 ? `, reply ${hexOf(walk.reply)}` : '';
  lines.push('', `the guest has ${ackText(walk.ack)}${reply}; leaks: ${leakText(walk.leaks)}`);
  for (const why of walk.refusals) lines.push(`the device refused: ${why}`);
  for (const line of walk.log) lines.push(`log: ${line}`);
  return lines;
}

function walkJson(walk: SvqWalk): object {
  return {
    mode: walk.mode,
    request: bytesToHex(walk.request),
    command: describeCommand(walk.request),
    before: Object.fromEntries(walk.start),
    steps: walk.steps,
    ack: walk.ack ?? null,
    reply: bytesToHex(walk.reply),
    leaks: walk.leaks,
    refusals: walk.refusals,
    log: walk.log,
  };
}

interface FaultRow {
  readonly fault: SvqFault;
  readonly mode: SvqMode;
  readonly outcome: FaultOutcome;
}

/** What became of the VMM, in a word or two. */
function verdict({ abort, refused, broken, deviceError, outstanding }: FaultOutcome): string {
  if (abort !== undefined) return 'aborts';
  if (refused !== undefined) return 'start fails';
  if (broken) return 'NEEDS_RESET';
  if (deviceError !== undefined) return 'device broken';
  return outstanding > 0 ? 'goes on, chain not back' : 'goes on';
}

function faultTable(rows: readonly FaultRow[]): string[] {
  const short = ({ descriptors, mappings, buffers }: FaultOutcome['leaks']): string =>
    descriptors + mappings + buffers === 0 ? 'none' : `${descriptors}d ${mappings}m ${buffers}b`;
  return table([
    ['fault', 'mode', 'guest gets', 'VMM', 'leaks', 'after stop'],
    ...rows.map(({ fault, mode, outcome }) => [
      fault.name,
      mode,
      outcome.guest.join(' / ') || 'nothing',
      verdict(outcome),
      short(outcome.leaks),
      short(outcome.afterStop),
    ]),
  ]);
}

function faultDetail({ mode, outcome }: FaultRow): string[] {
  const lines = ['', mode, `  guest gets: ${outcome.guest.join(' / ') || 'nothing'}`];
  const lengths = outcome.device.map((length) => `${length} bytes`).join(', ');
  lines.push(`  device got: ${lengths || 'no command'}`, `  VMM: ${verdict(outcome)}`);
  if (outcome.abort !== undefined) lines.push(`  abort: ${outcome.abort}`);
  if (outcome.refused !== undefined) lines.push(`  start: ${outcome.refused}`);
  if (outcome.deviceError !== undefined) lines.push(`  device: ${outcome.deviceError}`);
  if (outcome.outstanding > 0) lines.push(`  chains not back: ${outcome.outstanding}`);
  lines.push(`  leaks: ${leakText(outcome.leaks)}; after a stop: ${leakText(outcome.afterStop)}`);
  for (const [name, value] of Object.entries(outcome.notes)) lines.push(`  ${name}: ${value}`);
  for (const line of outcome.log) lines.push(`  log: ${line}`);
  return lines;
}

function migrationLines(mode: SvqMode, migration: Migration): string[] {
  const { commands, accepted, source, destination, restored, same } = migration;
  return [
    `${commands} commands, ${accepted} accepted; mode ${mode}`,
    `source:      ${source}`,
    `destination: ${destination}`,
    `${restored.length} commands sent to the destination:`,
    ...restored.map((line) => `  ${line}`),
    same ? 'the destination does what the source did' : 'the destination differs',
  ];
}

function chosenFault(name: string): SvqFault {
  const fault = SVQ_FAULTS.find((each) => each.name === name);
  if (fault) return fault;
  const names = SVQ_FAULTS.map((each) => each.name).join(', ');
  throw new UsageError(`no fault '${name}' (there are all, ${names})`);
}

/** Throws UsageError for what is no command. */
function checkCommand(word: string): void {
  try {
    controlCommand(word);
  } catch (error) {
    if (error instanceof InputError) throw new UsageError(error.message);
    throw error;
  }
}

async function svqCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    command: { type: 'string' },
    mode: { type: 'string' },
    shadow: { type: 'string' },
    fault: { type: 'string' },
    migrate: { type: 'boolean' },
    seed: { type: 'string' },
    count: { type: 'string' },
    json: { type: 'boolean', short: 'j' },
  });
  const [surplus] = positionals;
  if (surplus !== undefined) throw new UsageError(`unexpected '${surplus}'`);
  const { fault, command } = values;
  const migrate = values.migrate ?? false;
  const kinds = [fault, command, values.migrate].filter((each) => each !== undefined);
  if (kinds.length > 1) throw new UsageError('--command, --fault and --migrate go one at a time');
  if (!migrate && (values.seed ?? values.count) !== undefined) {
    throw new UsageError('--seed and --count are for --migrate');
  }
  if (values.shadow !== undefined && (fault !== undefined || migrate)) {
    throw new UsageError('--shadow is for --command');
  }
  const mode = choiceOption('mode', values.mode, 'landed', SVQ_MODES);
  const print = (lines: readonly string[], json: unknown): void => {
    if (values.json ?? false) output.line(JSON.stringify(json));
    else for (const line of lines) output.line(line);
  };
  if (fault !== undefined) {
    const faults = fault === 'all' ? SVQ_FAULTS : [chosenFault(fault)];
    const modes = values.mode === undefined ? SVQ_MODES : [mode];
    const lab = new SvqLab(await bootLab());
    const rows = faults.flatMap((each) =>
      modes.map((its) => ({ fault: each, mode: its, outcome: runFault(lab, each, its) })),
    );
    const lines =
      fault === 'all'
        ? faultTable(rows)
        : [`${fault}: ${faults[0]?.summary ?? ''}`, ...rows.flatMap(faultDetail)];
    print(
      lines,
      rows.map((row) => ({ fault: row.fault.name, mode: row.mode, ...row.outcome })),
    );
    return 0;
  }
  const word = command ?? 'promisc=off';
  checkCommand(word);
  const lab = new SvqLab(await bootLab());
  if (migrate) {
    const seed = integerOption('seed', values.seed, 1, { min: 0, max: 0xffffffff });
    const count = integerOption('count', values.count, 40, { min: 0, max: 100_000 });
    const migration = migrateRandom(lab, { mode, seed, count });
    print(migrationLines(mode, migration), { mode, ...migration });
    return migration.same ? 0 : 1;
  }
  const shadow = choiceOption('shadow', values.shadow, 'cvq', SHADOWS);
  const walk = walkCommand(lab, word, { mode, shadow });
  print(walkLines(walk), walkJson(walk));
  return 0;
}

export const svq: Command = {
  name: 'svq',
  summary: 'control commands through a shadow virtqueue to a vDPA device, faults, migration',
  usage: USAGE,
  run: svqCommand,
};
