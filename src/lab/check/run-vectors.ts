/**
 * Run vectors: programs with the R0 they must return.
 *
 * | kind              | R1                                       | result                  |
 * | ----------------- | ---------------------------------------- | ----------------------- |
 * | conformance, ubpf | copy of mem_hex, R2 its length           | R0, or a refusal        |
 * | test_bpf          | context; NULL (no_data); buffer          | low 32 bits, each subtest |
 * | bench-programs    | copy of mem_hex                          | R0                      |
 *
 * Records that cannot be run here are recognised and skipped with their reason.
 */
import { classicKind } from './classic-vectors.js';
import { failed, passed, skipped, type CaseResult, type VectorKind } from './kind.js';
import type { VectorRecord } from './record.js';
import { BENCH_HELPERS, CONFORMANCE_HELPERS, NO_HELPERS, UBPF_HELPERS } from './run-helpers.js';
import { describeOutcome, type RunOutcome } from './runner.js';
import { tailCallKind } from './tail-call-vectors.js';
import { xdpReferenceKind } from './xdp-reference.js';

/** Bytes that stand for the socket buffer of test_bpf: no eBPF test there reads it. */
const OPAQUE_CONTEXT = 256;

const conformanceKind: VectorKind = {
  name: 'conformance',
  matches: (record) => isExpectation(record) && !record.has('asm_only'),
  check: async (record, { runner, decompressor }) => {
    const outcome = runner.run({
      name: record.name,
      insns: record.instructions(decompressor),
      memory: record.bytes('mem_hex'),
      helpers: CONFORMANCE_HELPERS,
    });
    return compareR0(record, outcome);
  },
};

const ubpfKind: VectorKind = {
  name: 'ubpf',
  matches: (record) => isExpectation(record) && record.has('asm_only'),
  check: async (record, { runner, decompressor }) => {
    const reason = ubpfSkipReason(record, runner.boundsStack);
    if (reason !== undefined) return skipped(record, reason);
    const outcome = runner.run({
      name: record.name,
      insns: record.instructions(decompressor),
      memory: record.bytes('mem_hex'),
      helpers: UBPF_HELPERS,
      // uBPF's validator refuses a jump to itself when loading
      validate: { refuseSelfJump: true },
    });
    if (!record.has('error_stage')) return compareR0(record, outcome);
    if (outcome.kind === 'unsupported') return skipped(record, outcome.reason);
    const stage = record.text('error_stage');
    const kind = stage === 'load' ? 'refused' : 'fault';
    if (outcome.kind === kind) return passed(record);
    return failed(record, `expected an error at ${stage}, ${describeOutcome(outcome)}`);
  },
};

const testBpfKind: VectorKind = {
  name: 'test_bpf',
  matches: (record) => record.has('subtests') && record.fields.is_classic === false,
  check: async (record, { runner, decompressor }) => {
    const insns = record.instructions(decompressor);
    const flags = record.texts('flags');
    for (const subtest of record.records('subtests')) {
      const size = subtest.number('data_size');
      const memorySize = flags.includes('large_mem') ? size : OPAQUE_CONTEXT;
      const outcome = runner.run({
        name: record.name,
        insns,
        memory: flags.includes('no_data') ? undefined : new Uint8Array(memorySize),
        helpers: NO_HELPERS,
      });
      const result = compareLow32(record, outcome, subtest.hexNumber('expected'));
      if (result.status !== 'passed') return result;
    }
    return passed(record);
  },
};

const benchKind: VectorKind = {
  name: 'bench-programs',
  matches: (record) => record.has('dynamic_insns') && record.has('insns_hex'),
  check: async (record, { runner, decompressor }) => {
    if (record.has('packet_hex')) {
      return skipped(record, 'an XDP program: needs a loader that rewrites context accesses');
    }
    const outcome = runner.run({
      name: record.name,
      insns: record.instructions(decompressor),
      memory: record.bytes('mem_hex'),
      helpers: BENCH_HELPERS,
    });
    return compareR0(record, outcome);
  },
};

export const RUN_KINDS: readonly VectorKind[] = [
  conformanceKind,
  ubpfKind,
  testBpfKind,
  benchKind,
  classicKind,
  tailCallKind,
  xdpReferenceKind,
];

/** Records of these kinds are recognised, and the whole file is refused. */
export const REFUSED_KINDS: readonly Pick<VectorKind, 'name' | 'matches'>[] = [
  {
    name: 'a packet',
    matches: (record) => record.has('set') && record.has('hex'),
  },
];

function isExpectation(record: VectorRecord): boolean {
  return record.has('groups') && 'expected_r0' in record.fields && !record.has('dynamic_insns');
}

function ubpfSkipReason(record: VectorRecord, boundsStack: boolean): string | undefined {
  if (record.name.endsWith('err-stack-oob') && !boundsStack) {
    return 'leaves its stack frame: an image trusts the verifier there';
  }
  if (record.fields.asm_only === true) return 'encoder test without an expected result';
  if (record.fields.harness_only === true) return "a test of uBPF's C interface";
  if (record.name.endsWith('err-unknown-opcode')) return 'stale: 0x06 is gotol since ISA v4';
  if (record.name.endsWith('err-too-many-instructions')) {
    return "uBPF's own limit of 65536 instructions";
  }
  return undefined;
}

function compareR0(record: VectorRecord, outcome: RunOutcome): CaseResult {
  if (outcome.kind === 'unsupported') return skipped(record, outcome.reason);
  const expected = record.hexNumber('expected_r0');
  if (outcome.kind === 'return' && outcome.r0 === expected) return passed(record);
  return failed(record, `expected r0 0x${expected.toString(16)}, ${describeOutcome(outcome)}`);
}

function compareLow32(record: VectorRecord, outcome: RunOutcome, expected: bigint): CaseResult {
  if (outcome.kind === 'unsupported') return skipped(record, outcome.reason);
  if (outcome.kind === 'return' && BigInt.asUintN(32, outcome.r0) === expected) {
    return passed(record);
  }
  return failed(record, `expected w0 0x${expected.toString(16)}, ${describeOutcome(outcome)}`);
}
