/** `trampolab csum`: checksum offload beside XDP, every scenario run, what was expected beside it. */
import {
  CSUM_MODES,
  CSUM_SECTIONS,
  CSUM_VARIANTS,
  CsumLab,
  UsageError,
  createXdpEngine,
  describeNetHeader,
  describePacket,
  describeRow,
  load,
  parseObject,
  readCapture,
  runCsumCapture,
  runMatrix,
  selectProgram,
  withTailCallees,
  applySetting,
  type CsumCaptureRun,
  type CsumCell,
  type CsumMode,
  type CsumResult,
  type CsumVariant,
  type Kernel,
  type XdpEngine,
} from '../index.js';
import { bootLab, parseInput } from '../node/index.js';
import { choiceOption, parseOptions, table, type Command, type Output } from './command.js';
import { ENGINES, OBJECT_RAM, cpuEngine, runEngine } from './engine.js';

const USAGE = `csum [--variant V[,V]] [--rx MODE] [--section N] | --pcap FILE [--prog OBJ]
  --variant V      base, v4-literal, v4-fixed, upstream, generic; default: all
  --rx MODE        mergeable (default), small, two-buffers, two-buffers-frags, big
  --section N      10.1 to 10.6; default: all
  --pcap FILE      the packets of a capture in place of the matrix: where each one ended, and why
  --prog OBJ       an object with an XDP program for them; default: they pass no program
  --program NAME   which program of an object with several
  --set M[K]=V     put an entry into map M first; may be repeated
  --forward        route the capture's packets on to a peer; default: they are for this host
  --soft           the egress device completes no checksums: software does
  --verified       the device says DATA_VALID of complete packets
  --engine E       interpreter (default), wasm, embedded or unicorn (arm64 JIT image)
  --json, -j       as JSON
Exit 1 when a scenario ends elsewhere than expected.`;

const SUMMED = ['NONE', 'UNNECESSARY', 'COMPLETE', 'PARTIAL'] as const;

function variantsOf(text: string | undefined): readonly CsumVariant[] {
  if (text === undefined) return CSUM_VARIANTS;
  return text.split(',').map((word) => choiceOption('variant', word, 'base', CSUM_VARIANTS));
}

/** `PARTIAL 302/6`. */
function skbState({ skb }: CsumResult): string {
  if (!skb) return 'no skb';
  const summed = SUMMED[skb.ipSummed] ?? String(skb.ipSummed);
  return summed === 'PARTIAL' ? `${summed} ${skb.csumStart}/${skb.csumOffset}` : summed;
}

function sentWith({ sentHeader }: CsumResult): string {
  return sentHeader ? describeNetHeader(sentHeader) : 'stayed';
}

function isRight({ result, expected }: CsumCell): boolean {
  return result.outcome === expected;
}

function printMatrix(
  output: Output,
  cells: readonly (readonly CsumCell[])[],
  variants: readonly CsumVariant[],
): void {
  const [only] = variants;
  const detailed = variants.length === 1;
  for (const [section, title] of Object.entries(CSUM_SECTIONS)) {
    const lines = cells.filter(([first]) => first?.row.section === section);
    if (lines.length === 0) continue;
    output.line(`${section}  ${title}`);
    const heading = detailed
      ? ['packet', only ?? '', 'expected', 'skb behind receive_buf', 'left with']
      : ['packet', ...variants];
    const rows = lines.map((line): string[] => {
      const name = line[0] ? describeRow(line[0].row) : '';
      const cell = detailed ? line[0] : undefined;
      if (cell) {
        const { result, expected } = cell;
        return [name, result.outcome, expected, skbState(result), sentWith(result)];
      }
      return [name, ...variants.map((variant) => cellText(line, variant))];
    });
    for (const text of table([heading, ...rows])) output.line(text);
    output.line();
  }
}

function cellText(line: readonly CsumCell[], variant: CsumVariant): string {
  const cell = line.find((each) => each.variant === variant);
  if (!cell) return 'not run';
  const { outcome } = cell.result;
  return isRight(cell) ? outcome : `${outcome} (expected: ${cell.expected})`;
}

function cellJson(cell: CsumCell): object {
  const { row, variant, mode, result, expected } = cell;
  return {
    section: row.section,
    packet: describeRow(row),
    variant,
    rx: mode,
    outcome: result.outcome,
    expected,
    ...resultJson(result),
  };
}

function resultJson({ skb, drops, sentHeader, verdict }: CsumResult): object {
  return {
    ip_summed: skb ? (SUMMED[skb.ipSummed] ?? skb.ipSummed) : null,
    csum_start: skb?.csumStart ?? null,
    csum_offset: skb?.csumOffset ?? null,
    drops,
    sent: sentHeader ? describeNetHeader(sentHeader) : null,
    verdict: verdict ?? null,
  };
}

async function matrixCommand(
  lab: CsumLab,
  options: {
    readonly variants: readonly CsumVariant[];
    readonly mode: CsumMode;
    readonly section: keyof typeof CSUM_SECTIONS | undefined;
    readonly json: boolean;
  },
  output: Output,
): Promise<number> {
  const cells = runMatrix(lab, options);
  const all = cells.flat();
  const different = all.filter((cell) => !isRight(cell)).length;
  if (options.json) {
    output.line(JSON.stringify({ cells: all.map(cellJson), different }));
  } else {
    printMatrix(output, cells, options.variants);
    output.line(`${all.length} scenarios: ${all.length - different} as expected, ${different} not`);
  }
  return different === 0 ? 0 : 1;
}

/** `L4 drop (UDP_CSUM __udp4_lib_rcv)`, `left (NEEDS_CSUM ...), then delivered`. */
function captureText(result: CsumResult): string {
  if (result.sentHeader) return `left (virtio_net_hdr ${sentWith(result)}), then ${result.outcome}`;
  const [drop] = result.drops;
  return drop === undefined || result.outcome === 'delivered'
    ? result.outcome
    : `${result.outcome} (${drop})`;
}

function printCapture(
  output: Output,
  packets: readonly Uint8Array[],
  runs: readonly CsumCaptureRun[],
): void {
  for (const [i, { kind, results }] of runs.entries()) {
    const packet = packets[i];
    if (packet) output.line(`${String(i + 1).padStart(4)}  ${kind}  ${describePacket(packet)}`);
    for (const line of table(
      [...results].map(([variant, result]) => [
        `         ${variant}`,
        skbState(result),
        captureText(result),
      ]),
    )) {
      output.line(line);
    }
  }
}

/** A maker of engines for the program of an object, each with its own run of the same maps. */
function programFrom(
  kernel: Kernel,
  path: string,
  options: {
    readonly name: string | undefined;
    readonly engine: (typeof ENGINES)[number];
    readonly settings: readonly string[];
  },
): (note: (verdict: number) => void) => XdpEngine {
  const spec = parseInput(path, (bytes) => parseObject(bytes, { name: path }));
  const wanted = selectProgram(spec, options.name, 'xdp');
  if (wanted.kind !== 'xdp') {
    throw new UsageError(`${wanted.name} (${wanted.section}) is no XDP program`);
  }
  const object = load(spec, kernel.bpf.host, { programs: withTailCallees(spec, wanted) });
  for (const setting of options.settings) applySetting(object.maps, setting);
  const program = object.program(wanted.name);
  return (note) =>
    createXdpEngine(kernel, runEngine(options.engine), program.xlated, {
      hasFrags: program.spec.frags,
      note,
    });
}

async function csumCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    variant: { type: 'string' },
    rx: { type: 'string' },
    section: { type: 'string' },
    pcap: { type: 'string' },
    prog: { type: 'string' },
    program: { type: 'string' },
    set: { type: 'string', multiple: true },
    forward: { type: 'boolean' },
    soft: { type: 'boolean' },
    verified: { type: 'boolean' },
    engine: { type: 'string' },
    json: { type: 'boolean', short: 'j' },
  });
  if (positionals[0] !== undefined) throw new UsageError(`unexpected '${positionals[0]}'`);
  const variants = variantsOf(values.variant);
  const mode = choiceOption('rx', values.rx, 'mergeable', CSUM_MODES);
  const engine = choiceOption('engine', values.engine, 'interpreter', ENGINES);
  const json = values.json === true;
  const section =
    values.section === undefined
      ? undefined
      : choiceOption('section', values.section, '10.1', SECTIONS);
  if (values.pcap === undefined && (values.prog ?? values.program) !== undefined) {
    throw new UsageError('--prog needs --pcap FILE: the matrix has its own programs');
  }
  const kernel = await bootLab({ engine: cpuEngine(engine), vmallocRam: OBJECT_RAM });
  try {
    const lab = new CsumLab(kernel, runEngine(engine));
    if (values.pcap === undefined) {
      return await matrixCommand(lab, { variants, mode, section, json }, output);
    }
    const packets = parseInput(values.pcap, readCapture).packets.map(({ bytes }) => bytes);
    const settings = values.set ?? [];
    const runs = runCsumCapture(lab, {
      packets,
      variants,
      mode,
      forward: values.forward === true,
      softwareChecksum: values.soft === true,
      verified: values.verified === true,
      ...(values.prog === undefined
        ? {}
        : {
            program: programFrom(kernel, values.prog, { name: values.program, engine, settings }),
          }),
    });
    if (json) output.line(JSON.stringify(runs.map(captureJson)));
    else printCapture(output, packets, runs);
    return 0;
  } finally {
    kernel.close();
  }
}

const SECTIONS = Object.keys(CSUM_SECTIONS) as (keyof typeof CSUM_SECTIONS)[];

function captureJson({ kind, results }: CsumCaptureRun): object {
  return {
    kind,
    results: [...results].map(([variant, result]) => ({
      variant,
      outcome: result.outcome,
      ...resultJson(result),
    })),
  };
}

export const csum: Command = {
  name: 'csum',
  summary: 'checksum offload beside XDP: where packets end under each way to have both',
  usage: USAGE,
  run: csumCommand,
};
