/**
 * `trampolab check` of `vectors/jit`: images, trampolines and pokes of real kernels against ours, word by
 * word. No engine runs: see `jit/vectors.ts` for what is compared.
 */
import { KernelError } from '../common/errors.js';
import { checkJitRecord, isJitRecord } from '../jit/vectors.js';
import { failed, passed, type VectorKind } from './check/kind.js';

export const jitKind: VectorKind = {
  name: 'JIT output',
  matches: (record) => isJitRecord(record.fields),
  check: async (record) => {
    try {
      const difference = checkJitRecord(record.fields);
      return difference === undefined ? passed(record) : failed(record, difference);
    } catch (error) {
      if (error instanceof KernelError) return failed(record, error.message);
      throw error;
    }
  },
};
