/**
 * The tour: fentry and fexit reach a kernel function through its patch site, in and out of BL range,
 * then an XDP program decides over a capture while fexit watches the driver.
 *
 * It prints nothing but what this run computed. The kernel, the objects and the capture come in, so
 * that it runs wherever they can be had.
 */
import { load, type LoadedObject } from '../bpf/object/load.js';
import { parseObject } from '../bpf/object/parse.js';
import { hex64 } from '../common/bytes.js';
import type { Attachment } from '../kernel/bpf/bpf.js';
import type { KernelProgram } from '../kernel/bpf/program.js';
import type { LinkKind } from '../kernel/bpf/trampoline.js';
import type { Kernel } from '../kernel/kernel.js';
import type { Capture } from '../net/capture.js';
import { traceAttached, type AttachedTrace } from './attached-trace.js';
import { listSite } from './listing.js';
import { listMap, mapTypes } from './map-listing.js';
import { PATH_PARTS } from './path-counts.js';
import { attachScenario } from './scenario.js';
import { installVirtioNet, runTraffic } from './xdp-traffic.js';

export interface TourInput {
  /** Boots a kernel with `vmallocUsed` bytes of vmalloc space in use. */
  readonly boot: (vmallocUsed: number) => Promise<Kernel>;
  /** examples/tracing/fentry_test2.o */
  readonly tracing: Uint8Array;
  /** examples/tracing/receive_sizes.o */
  readonly watcher: Uint8Array;
  /** An object with one XDP program, and its name. */
  readonly xdp: Uint8Array;
  readonly xdpName: string;
  readonly capture: Capture;
  readonly captureName: string;
}

/** What the tour tells at its end, one row per way to the programs. */
export interface TourRow {
  readonly way: string;
  readonly total: number;
  readonly counts: AttachedTrace['path'];
}

export interface TourOutput {
  heading(text: string): void;
  line(text?: string): void;
  table(rows: readonly (readonly string[])[]): void;
}

const TARGET = 'bpf_fentry_test2';
const ARGUMENTS = [2n, 3n];
const OUT_OF_RANGE = 128 << 20;

export async function runTour(input: TourInput, output: TourOutput): Promise<TourRow[]> {
  const rows: TourRow[] = [];
  const near = await input.boot(0);
  try {
    introduce(near, output);
    rows.push(showBareSite(near, output));
    rows.push(showNear(near, input.tracing, output));
  } finally {
    near.close();
  }
  const far = await input.boot(OUT_OF_RANGE);
  try {
    rows.push(...showFar(far, input.tracing, output));
  } finally {
    far.close();
  }
  const traffic = await input.boot(0);
  try {
    showTraffic(traffic, input, output);
  } finally {
    traffic.close();
  }
  showSummary(rows, output);
  return rows;
}

function introduce(kernel: Kernel, output: TourOutput): void {
  const { layout, ftrace, cpus } = kernel;
  output.heading('A 6.12 arm64 kernel text');
  output.line(
    `_text ${hex64(layout.text)}, ${ftrace.records.size} patch sites, ${cpus.length} CPU`,
  );
  output.line(`CPU engine: ${cpus[0]?.engine ?? 'none'}`);
  output.line(`ftrace_caller at ${hex64(kernel.symbol('ftrace_caller'))}`);
}

function rowOf(way: string, trace: Pick<AttachedTrace, 'path' | 'entries'>): TourRow {
  return { way, total: trace.entries.length, counts: trace.path };
}

function showBareSite(kernel: Kernel, output: TourOutput): TourRow {
  output.heading(`The patch site of ${TARGET}, nothing attached`);
  for (const line of listSite(kernel, TARGET)) output.line(line);
  output.line();
  const trace = traceAttached(kernel, TARGET, ARGUMENTS, undefined);
  for (const line of trace.lines) output.line(line);
  output.line(`${TARGET}(2, 3) = ${trace.result}: ${trace.entries.length} instructions`);
  return rowOf('nothing attached', trace);
}

interface Attached {
  readonly object: LoadedObject;
  readonly attachments: readonly Attachment[];
  detach(): void;
}

/** Loads all tracing programs of an object and attaches each to its own target. */
function attachObject(kernel: Kernel, bytes: Uint8Array, name: string): Attached {
  const object = load(parseObject(bytes, { name }), kernel.bpf.host);
  const programs: KernelProgram[] = [];
  const attachments = object.programs.map(({ spec, xlated }) => {
    const program = kernel.bpf.load(xlated);
    programs.push(program);
    return kernel.bpf.attach(program, spec.kind as LinkKind, spec.attachTarget ?? '');
  });
  return {
    object,
    attachments,
    detach: () => {
      for (const attachment of attachments) attachment.detach();
      for (const program of programs) program.free();
    },
  };
}

function showMaps(object: LoadedObject, output: TourOutput): void {
  for (const map of object.maps.values()) {
    output.line(`map ${map.spec.name} (${map.spec.type.toLowerCase()}):`);
    for (const line of listMap(map, mapTypes(object, map.spec.name))) output.line(`  ${line}`);
  }
}

function showNear(kernel: Kernel, tracing: Uint8Array, output: TourOutput): TourRow {
  const before = listSite(kernel, TARGET);
  const attached = attachObject(kernel, tracing, 'fentry_test2');
  const trampoline = attached.attachments[0]?.trampoline;
  const base = trampoline?.image?.code.base ?? 0n;
  output.heading('fentry and fexit attached, trampoline in BL range');
  const distance = base - kernel.symbol(TARGET);
  output.line(`trampoline at ${hex64(base)}, ${distance} bytes from ${TARGET}`);
  for (const line of listSite(kernel, TARGET)) output.line(line);
  output.line();
  const trace = traceAttached(kernel, TARGET, ARGUMENTS, trampoline);
  for (const line of trace.lines) output.line(line);
  output.line(`${TARGET}(2, 3) = ${trace.result}: ${trace.entries.length} instructions`);
  output.line();
  output.line('The trampoline frame when the fexit program began:');
  for (const line of trace.frame) output.line(line);
  output.line();
  output.line('What the programs saw:');
  showMaps(attached.object, output);
  attached.detach();
  const same = listSite(kernel, TARGET).join('\n') === before.join('\n');
  output.line(`detached: the site is ${same ? 'byte for byte' : 'NOT'} what it was`);
  return rowOf('fentry+fexit, in range', trace);
}

function showFar(kernel: Kernel, tracing: Uint8Array, output: TourOutput): TourRow[] {
  const attached = attachObject(kernel, tracing, 'fentry_test2');
  const trampoline = attached.attachments[0]?.trampoline;
  const base = trampoline?.image?.code.base ?? 0n;
  output.heading('The same with the trampoline out of BL range');
  const distance = base - kernel.symbol(TARGET);
  output.line(
    `trampoline at ${hex64(base)}, ${distance} bytes from ${TARGET} (BL reaches 134217724)`,
  );
  for (const line of listSite(kernel, TARGET)) output.line(line);
  output.line(`direct_call of those ops: ${hex64(trampoline?.ops?.directCall ?? 0n)}`);
  output.line();
  const early = traceAttached(kernel, TARGET, ARGUMENTS, trampoline);
  const untilTrampoline = early.entries.findIndex(({ pc }) => pc === base);
  for (const line of early.lines.slice(0, untilTrampoline + 1)) output.line(line);
  output.line('... and on as before');
  output.line(`${TARGET}(2, 3) = ${early.result}: ${early.entries.length} instructions`);

  const beside = attachScenario(kernel, TARGET, { ops: 1 });
  output.line();
  output.line('With an ordinary ftrace ops beside it the direct call comes late:');
  for (const line of listSite(kernel, TARGET)) output.line(line);
  const late = traceAttached(kernel, TARGET, ARGUMENTS, trampoline);
  output.line(`${TARGET}(2, 3) = ${late.result}: ${late.entries.length} instructions`);
  beside.detach();
  attached.detach();
  return [rowOf('fentry+fexit, out of range', early), rowOf('  and one ftrace ops', late)];
}

function showTraffic(kernel: Kernel, input: TourInput, output: TourOutput): void {
  output.heading(`${input.xdpName} over ${input.captureName}, fexit on receive_buf`);
  const driver = installVirtioNet(kernel);
  const watcher = attachObject(kernel, input.watcher, 'receive_sizes');
  const object = load(parseObject(input.xdp, { name: input.xdpName }), kernel.bpf.host);
  const program = object.programs[0];
  if (!program) throw new RangeError(`${input.xdpName} has no program`);
  const result = runTraffic(kernel, { driver, engine: 'jit', program, capture: input.capture });
  const { trampoline } = watcher.attachments[0] as Attachment;
  output.line(`${input.capture.packets.length} packets, program as arm64 JIT image`);
  output.line(`receive_buf is watched through ${trampoline.image?.symbol ?? 'nothing'}`);
  output.line();
  output.table([
    ['verdict', 'packets'],
    ...[...result.verdicts].map(([name, count]) => [name, String(count)]),
  ]);
  output.line();
  const shown = [
    'rx_packets',
    'rx_xdp_packets',
    'rx_xdp_tx',
    'rx_xdp_drops',
    'rx_drops',
    'tx_xdp_tx',
  ];
  output.table([
    ['driver counter', 'value'],
    ...shown.map((name) => [name, String(result.counters[name] ?? 0)]),
  ]);
  output.line();
  output.line(`maps of ${input.xdpName}:`);
  showMaps(object, output);
  output.line('maps of the fexit program (receive_buf by size):');
  showMaps(watcher.object, output);
  watcher.detach();
}

function showSummary(rows: readonly TourRow[], output: TourOutput): void {
  output.heading(`Instructions executed by ${TARGET}(2, 3)`);
  const parts = PATH_PARTS.filter((part) => rows.some(({ counts }) => counts[part] > 0));
  output.table([
    ['way', ...parts, 'total'],
    ...rows.map(({ way, counts, total }) => [
      way,
      ...parts.map((part) => String(counts[part])),
      String(total),
    ]),
  ]);
  output.line('(functions written in TypeScript count with the instructions of their text only)');
}
