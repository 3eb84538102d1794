/**
 * `vectors/xdp/reference.jsonl`: XDP programs with what a real kernel returned for each packet of a
 * sequence, and what its maps held in the end.
 *
 * Each record is a fresh load of its object, with helpers as of 6.18 and two CPUs (as the machine had).
 * Objects and packets lie beside the file and come through `CheckOptions.readSibling`. Compared are
 * verdict, packet, metadata and context of every run, and all maps that were dumped. Skipped with their
 * reason: records whose results depend on the machine (`env`), engines that run no objects.
 */
import { bytesToHex, plainBytes } from '../../common/bytes.js';
import { InputError, KernelError } from '../../common/errors.js';
import type { BpfMap } from '../../bpf/maps/map.js';
import { parseBtf } from '../../bpf/btf/parse.js';
import { load } from '../../bpf/object/load.js';
import { parseObject } from '../../bpf/object/parse.js';
import { XdpTestFrame } from '../../bpf/xdp-test-run.js';
import {
  failed,
  passed,
  skipped,
  type CaseResult,
  type CheckOptions,
  type VectorKind,
} from './kind.js';
import type { ObjectEngine, ObjectInstance } from './object-engine.js';
import { parseRecords, VectorRecord } from './record.js';
import { compareMaps, EventLog, objectMap, setUpMaps } from './xdp-reference-maps.js';

const PACKETS = 'packets.jsonl';
/** Types of the kernel that the results come from, as far as the objects need them. */
const KERNEL_TYPES = 'obj/core_reloc.min.btf';
/** CPUs of the machine that the results come from. */
const CPUS = 2;

interface Packet {
  readonly name: string;
  readonly bytes: Uint8Array;
}

export const xdpReferenceKind: VectorKind = {
  name: 'XDP programs with results of a kernel',
  matches: (record) => record.has('object') && record.has('runs') && record.has('maps_after'),
  check: async (record, options) => {
    const named = new VectorRecord(record.origin, { ...record.fields, name: nameOf(record) });
    const { objectEngine: engine, readSibling } = options;
    if (record.fields.env === true) {
      return skipped(named, 'env: its results depend on the machine');
    }
    if (!engine) return skipped(named, `objects do not run on ${options.runner.name} here`);
    if (!readSibling) throw new InputError(`${record.origin}: no files beside it can be read`);
    return checkRecord(named, engine, readSibling);
  },
};

function nameOf(record: VectorRecord): string {
  return `${record.text('object')} ${record.text('program')}`;
}

function checkRecord(
  record: VectorRecord,
  engine: ObjectEngine,
  readSibling: NonNullable<CheckOptions['readSibling']>,
): CaseResult {
  const text = new TextDecoder().decode(readSibling(PACKETS));
  const packets = new Map(
    parseRecords(PACKETS, text).map((packet): [string, Packet] => [
      packet.name,
      { name: packet.name, bytes: packet.bytes('hex') ?? new Uint8Array(0) },
    ]),
  );
  const spec = parseObject(readSibling(`obj/${record.text('object')}`), {
    name: record.text('object'),
  });
  const needsTypes = spec.functions.some(({ coreRelocations }) => coreRelocations.length > 0);
  const kernelBtf = needsTypes ? parseBtf(plainBytes(readSibling(KERNEL_TYPES))) : undefined;
  const machine = engine.open({ helpers: '6.18', cpuCount: CPUS });
  const { host } = machine;
  try {
    const object = load(spec, host, kernelBtf ? { kernelBtf } : {});
    const find = (name: string): BpfMap => objectMap(object, name, record.origin);
    setUpMaps(record, object, find);
    const events = new EventLog(object.maps.values());
    const frame = new XdpTestFrame(host);
    const instance = machine.instantiate(object.program(record.text('program')).xlated);
    for (const run of record.records('runs')) {
      const packet = packets.get(run.text('packet'));
      if (!packet) throw new InputError(`${run.origin}: no packet '${run.text('packet')}'`);
      const difference = checkRun(run, packet, frame, instance);
      if (difference !== undefined) return failed(record, difference);
      events.drain();
    }
    const difference = compareMaps(record, find, events);
    return difference === undefined ? passed(record) : failed(record, difference);
  } catch (error) {
    if (error instanceof KernelError) return failed(record, error.message);
    throw error;
  } finally {
    machine.close();
  }
}

/** The first difference of one run. */
function checkRun(
  run: VectorRecord,
  packet: Packet,
  frame: XdpTestFrame,
  instance: ObjectInstance,
): string | undefined {
  frame.place(packet.bytes);
  const { xdp } = frame;
  const linear = Number(xdp.dataEnd - xdp.data);
  const outcome = instance.run(xdp.address);
  if (outcome.kind !== 'return') return `packet ${packet.name}: ${outcome.reason}`;
  const meta = bytesToHex(frame.metadata());
  const dataMeta = Number(xdp.dataMeta - xdp.data);
  const context = (data: number, end: number): string => `data ${data}, data_end ${end}`;
  const expectedOut = run.bytes('out_hex') ?? packet.bytes;
  const expectedContext = contextOf(run, linear);
  const checks: readonly (readonly [string, string, string])[] = [
    ['verdict', `${BigInt.asUintN(32, outcome.r0)}`, `${run.number('retval') >>> 0}`],
    ['packet', bytesToHex(xdp.packet()), bytesToHex(expectedOut)],
    ['metadata', meta, run.has('meta') ? run.text('meta') : ''],
    [
      'context',
      context(Math.max(-dataMeta, 0), Number(xdp.dataEnd - xdp.data) + Math.max(-dataMeta, 0)),
      context(expectedContext.data, expectedContext.end),
    ],
  ];
  for (const [what, ours, theirs] of checks) {
    if (ours !== theirs) return `packet ${packet.name}: ${what} ${ours}, kernel ${theirs}`;
  }
  return undefined;
}

/** data and data_end as the record gives them, from data_meta on. */
function contextOf(run: VectorRecord, linear: number): { data: number; end: number } {
  const { ctx_out: context } = run.fields;
  if (typeof context === 'object' && context !== null) {
    const { data, data_end: end } = context as { data?: unknown; data_end?: unknown };
    if (typeof data === 'number' && typeof end === 'number') return { data, end };
    throw new InputError(`${run.origin}: ctx_out has no data and data_end`);
  }
  return { data: 0, end: linear };
}
