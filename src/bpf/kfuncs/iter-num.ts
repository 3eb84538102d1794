/**
 * bpf_iter_num: the numbers from a first to a last, what bpf_for and bpf_repeat count with.
 *
 * A `struct bpf_iter_num` on the stack holds the current number and the end, s32 each; next gives the
 * address of the current one. An end in front of the start, or a distance over BPF_MAX_LOOPS, makes an iterator that
 * gives nothing. Reference: kernel/bpf/bpf_iter.c.
 */
import type { Memory } from '../../cpu/memory.js';
import { argument, argument32, fail, offsetOf, setResult, setResult64 } from '../helpers/helper.js';
import type { RegisterPairs } from '../host.js';
import type { KfuncRow } from './kfunc.js';

/** Byte offsets in `struct bpf_iter_num_kern`. */
const CURRENT = 0;
const END = 4;
const ITER_SIZE = 8;
const BPF_MAX_LOOPS = 8 << 20;

function iterator(memory: Memory, registers: RegisterPairs): number {
  return offsetOf(memory, registers, 1, ITER_SIZE, 'write');
}

function set(memory: Memory, at: number, current: number, end: number): void {
  memory.view.setInt32(at + CURRENT, current, true);
  memory.view.setInt32(at + END, end, true);
}

export const ITER_NUM_KFUNCS: readonly KfuncRow[] = [
  {
    prototype: 'int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end)',
    flags: ['KF_ITER_NEW'],
    body: (registers, { memory }) => {
      const at = iterator(memory, registers);
      const start = argument32(registers, 2);
      const end = argument32(registers, 3);
      const error = start > end ? 'EINVAL' : end - start > BPF_MAX_LOOPS ? 'E2BIG' : undefined;
      if (error) {
        set(memory, at, 0, 0);
        fail(registers, error);
        return;
      }
      set(memory, at, start - 1, end);
      setResult(registers, 0);
    },
  },
  {
    prototype: 'int *bpf_iter_num_next(struct bpf_iter_num *it)',
    flags: ['KF_ITER_NEXT', 'KF_RET_NULL'],
    body: (registers, { memory }) => {
      const at = iterator(memory, registers);
      const next = (memory.view.getInt32(at + CURRENT, true) + 1) | 0;
      const end = memory.view.getInt32(at + END, true);
      if (next >= end) set(memory, at, 0, 0);
      else memory.view.setInt32(at + CURRENT, next, true);
      setResult64(registers, next >= end ? 0n : argument(registers, 1));
    },
  },
  {
    prototype: 'void bpf_iter_num_destroy(struct bpf_iter_num *it)',
    flags: ['KF_ITER_DESTROY'],
    body: (registers, { memory }) => set(memory, iterator(memory, registers), 0, 0),
  },
];
