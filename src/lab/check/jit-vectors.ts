/** `vectors/jit`: images and trampolines of real kernels, word for word (see `jit/vectors.ts`). */
import { KernelError } from '../../common/errors.js';
import { checkJitRecord, isJitRecord } from '../../jit/vectors.js';
import { failed, passed, type CaseResult, type VectorKind } from './kind.js';
import type { VectorRecord } from './record.js';

function check(record: VectorRecord): CaseResult {
  try {
    const difference = checkJitRecord(record.fields);
    return difference === undefined ? passed(record) : failed(record, difference);
  } catch (error) {
    if (error instanceof KernelError) return failed(record, error.message);
    throw error;
  }
}

export const jitKind: VectorKind = {
  name: 'jit',
  matches: (record) => isJitRecord(record.fields),
  check: async (record) => check(record),
};
