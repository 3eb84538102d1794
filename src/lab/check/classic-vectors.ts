/**
 * `test_bpf-classic`: classic BPF programs, translated by the kernel's rules (`bpf/classic.ts`).
 *
 * The packet is the first data_size bytes of data_hex, with zeros behind what the record gives, and then
 * the fragment. Records that read fields of a socket buffer which the record does not give are skipped,
 * with the field's name.
 */
import {
  CLASSIC_HELPERS,
  checkClassic,
  classicPacket,
  parseClassic,
  skbFieldOf,
  translateClassic,
} from '../../bpf/classic.js';
import {
  failed,
  passed,
  skipped,
  type CaseResult,
  type CheckOptions,
  type VectorKind,
} from './kind.js';
import type { VectorRecord } from './record.js';

/** Bytes of a fragment's page that belong to the packet (MAX_DATA). */
const FRAGMENT_SIZE = 128;

export const classicKind: VectorKind = {
  name: 'test_bpf-classic',
  matches: (record) => record.has('subtests') && record.fields.is_classic === true,
  check: async (record, options) => checkRecord(record, options),
};

function checkRecord(record: VectorRecord, { runner, decompressor }: CheckOptions): CaseResult {
  const filter = parseClassic(record.instructions(decompressor));
  const flags = record.texts('flags');
  const refused = checkClassic(filter);
  if (flags.includes('expected_fail')) {
    return refused === undefined
      ? failed(record, 'expected -EINVAL, but the program is accepted')
      : passed(record);
  }
  if (refused !== undefined) return failed(record, `refused: ${refused}`);
  const field = skbFieldOf(filter);
  if (field !== undefined) {
    return skipped(record, `reads the ${field} of a socket buffer, which the record does not give`);
  }
  const insns = translateClassic(filter);
  for (const subtest of record.records('subtests')) {
    const outcome = runner.run({
      name: record.name,
      insns,
      memory: flags.includes('no_data') ? undefined : packetOf(record, subtest.number('data_size')),
      helpers: CLASSIC_HELPERS,
    });
    if (outcome.kind === 'unsupported') return skipped(record, outcome.reason);
    const expected = subtest.hexNumber('expected');
    if (outcome.kind !== 'return') return failed(record, outcome.reason);
    const result = BigInt.asUintN(32, outcome.r0);
    if (result !== expected) {
      return failed(record, `expected 0x${expected.toString(16)}, got 0x${result.toString(16)}`);
    }
  }
  return passed(record);
}

function packetOf(record: VectorRecord, size: number): Uint8Array {
  const fragment = record.bytes('frag_data_hex');
  const packet = new Uint8Array(size + (fragment ? FRAGMENT_SIZE : 0));
  packet.set((record.bytes('data_hex') ?? new Uint8Array(0)).subarray(0, size));
  if (fragment) packet.set(fragment.subarray(0, FRAGMENT_SIZE), size);
  return classicPacket(packet);
}
