/**
 * `test_bpf-tailcalls`: programs that call each other through one prog array, run 1000 times each.
 *
 * All records of the file go into an array of 11 slots. In their instructions stand marks: the address
 * of the array, the index to call (relative to the record's own), and calls of kernel helpers, which
 * become no-ops. The result is R0, or a counter in the state that R1 points at.
 */
import { high32, low32 } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import type { BpfHost } from '../../bpf/host.js';
import { encodeSlots, readSlots, type Slot } from '../../bpf/instruction.js';
import { createMap } from '../../bpf/maps/create.js';
import { isProgArray, type ProgArrayMap } from '../../bpf/maps/map.js';
import { rawProgram } from '../../bpf/raw-program.js';
import { failed, passed, skipped, type CaseResult, type VectorKind } from './kind.js';
import type { ObjectEngine, ObjectMachine } from './object-engine.js';
import type { VectorRecord } from './record.js';

/** Stands for the array's address and for an index. */
const MARK = 0x7a11ca11;
const RUNS = 1000;
const SLOTS = 11;
/** `off` of an index that is an empty slot, or outside the array. */
const EMPTY = 0x7fff;
const OUTSIDE = 0x7ffe;
const NOP = { code: 0x05, dst: 0, src: 0, off: 0, imm: 0 };

export const tailCallKind: VectorKind = {
  name: 'test_bpf-tailcalls',
  matches: (record) => record.has('tail_idx'),
  check: async (record, { runner, objectEngine }, file) =>
    objectEngine
      ? checkRecord(record, objectEngine, file)
      : skipped(record, `prog arrays do not run on ${runner.name} here`),
};

function checkRecord(
  record: VectorRecord,
  engine: ObjectEngine,
  file: readonly VectorRecord[],
): CaseResult {
  const machine = engine.open({ cpuCount: 1 });
  try {
    return runRecord(record, machine, file);
  } finally {
    machine.close();
  }
}

function runRecord(
  record: VectorRecord,
  { host, instantiate }: ObjectMachine,
  file: readonly VectorRecord[],
): CaseResult {
  const array = fillArray(file, host);
  const program = array.programAt(record.number('tail_idx'));
  if (!program) throw new InputError(`${record.origin}: tail_idx is outside the array`);
  const state = host.allocate('state', 8);
  const { need_state: needState, result_in_state: inState } = flagsOf(record);
  const instance = instantiate(program);
  let result = 0n;
  for (let run = 0; run < RUNS; run++) {
    const outcome = instance.run(needState ? state.address : 0n);
    if (outcome.kind !== 'return') return failed(record, outcome.reason);
    result = BigInt.asUintN(32, outcome.r0);
  }
  if (inState) result = BigInt(host.memory.read32(state.address));
  const expected = BigInt(record.number('expected_after_1000_runs'));
  return result === expected
    ? passed(record)
    : failed(record, `expected ${expected}, got ${result}`);
}

function flagsOf(record: VectorRecord): { need_state?: unknown; result_in_state?: unknown } {
  const { flags } = record.fields;
  if (typeof flags === 'object' && flags !== null) return flags;
  throw new InputError(`${record.origin}: field flags is not an object`);
}

function fillArray(file: readonly VectorRecord[], host: BpfHost): ProgArrayMap {
  const spec = { name: 'progs', keySize: 4, valueSize: 4, maxEntries: SLOTS, flags: 0 };
  const array = createMap({ ...spec, type: 'PROG_ARRAY' }, host);
  if (!isProgArray(array)) throw new InputError('a prog array takes no programs');
  for (const record of file) {
    const insns = record.bytes('insns_hex') ?? new Uint8Array(0);
    const index = record.number('tail_idx');
    const slots = patch(readSlots(insns), index, array.address);
    array.setProgram(index, rawProgram(record.name, encodeSlots(slots)));
  }
  return array;
}

function patch(slots: readonly Slot[], index: number, address: bigint): Slot[] {
  return slots.map((slot, at) => {
    if (slot.code === 0x18 && slot.imm === MARK) return { ...slot, imm: low32(address) };
    const before = slots[at - 1];
    if (before?.code === 0x18 && before.imm === MARK) return { ...slot, imm: high32(address) };
    if (slot.code === 0xb4 && slot.imm === MARK)
      return { ...slot, off: 0, imm: target(slot, index) };
    return slot.code === 0x85 && slot.src === 1 ? NOP : slot;
  });
}

function target({ off }: Slot, index: number): number {
  if (off === EMPTY) return SLOTS - 1;
  return off === OUTSIDE ? SLOTS : index + off;
}
