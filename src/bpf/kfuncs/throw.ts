/**
 * bpf_throw: ends the program, in its exception callback if it has one.
 *
 * Engines that call a body leave all frames by what it throws; A64 code goes to the kernel's own function, which
 * walks them (`kernel/bpf/throw.ts`). Reference: kernel/bpf/helpers.c bpf_throw.
 */
import { argument } from '../helpers/helper.js';
import { ProgramExit } from '../host.js';
import type { KfuncRow } from './kfunc.js';

export const BPF_THROW = 'bpf_throw';

export const THROW_KFUNCS: readonly KfuncRow[] = [
  {
    prototype: 'void bpf_throw(u64 cookie)',
    flags: [],
    kinds: [
      'xdp',
      'tc',
      'fentry',
      'fexit',
      'fmod_ret',
      'fsession',
      'lsm',
      'lsm_cgroup',
      'struct_ops',
    ],
    body: (registers) => {
      throw new ProgramExit(argument(registers, 1), true);
    },
  },
];
