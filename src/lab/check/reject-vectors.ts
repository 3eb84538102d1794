/**
 * `vectors/xdp/rejects.jsonl`: programs that a real kernel refuses, with the errno it gave. Ours has to be
 * the same, refused when the object is loaded.
 *
 * Objects lie beside the file. The kernel's sentences are not compared: ours are in our own words.
 */
import { errnoName } from '../../common/errno.js';
import { InputError, KernelError } from '../../common/errors.js';
import { load } from '../../bpf/object/load.js';
import { parseObject } from '../../bpf/object/parse.js';
import { failed, passed, type CaseResult, type CheckOptions, type VectorKind } from './kind.js';
import { interpreterObjects } from './object-engine.js';
import { VectorRecord } from './record.js';

export const rejectKind: VectorKind = {
  name: 'programs that a kernel refuses',
  matches: (record) => record.has('object') && record.has('errno') && record.has('why'),
  check: async (record, options) => checkReject(record, options),
};

function checkReject(
  record: VectorRecord,
  { readSibling, objectEngine = interpreterObjects }: CheckOptions,
): CaseResult {
  if (!readSibling) throw new InputError(`${record.origin}: no files beside it can be read`);
  const name = record.text('object');
  const named = new VectorRecord(record.origin, { ...record.fields, name });
  const expected = record.number('errno');
  const wanted = `-${errnoName(expected) ?? expected}`;
  const spec = parseObject(readSibling(`obj/${name}`), { name });
  const program = spec.programs.find((each) => each.name === record.text('program'));
  if (!program) throw new InputError(`${record.origin}: no program '${record.text('program')}'`);
  const machine = objectEngine.open({ helpers: '6.18', cpuCount: 1 });
  try {
    load(spec, machine.host, { programs: [program] });
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    if (error.code === -expected) return passed(named);
    return failed(named, `expected ${wanted}, got ${error.message}`);
  } finally {
    machine.close();
  }
  return failed(named, `expected ${wanted}, but it is accepted`);
}
