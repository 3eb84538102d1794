/** Kernel functions, dynptrs, iterators, may_goto: what is refused, with the errno of Linux 6.12. */
import { describe, expect, it } from 'vitest';
import { BtfBuilder } from '../../../src/bpf/btf/builder.js';
import { verdict, type TextOptions } from './program-text.js';

type Row = readonly [what: string, program: string, verdict: string, options?: TextOptions];

const END = '\nr0 = 0\nexit';

/** An iterator over 0..9 at fp-8. */
const ITER = `
  r1 = r10
  r1 += -8
  r2 = 0
  r3 = 10
  call bpf_iter_num_new`;
const NEXT = '\nr1 = r10\nr1 += -8\ncall bpf_iter_num_next';
const DESTROY = '\nr1 = r10\nr1 += -8\ncall bpf_iter_num_destroy';

/** R9 = ctx; a dynptr of the packet at fp-16. */
const PACKET = `
  r9 = r1
  r2 = 0
  r3 = r10
  r3 += -16
  call bpf_dynptr_from_xdp`;
const DYNPTR = '\nr1 = r10\nr1 += -16';
const SLICE = `${DYNPTR}
  r2 = 0
  r3 = 0
  r4 = 4
  call bpf_dynptr_slice_rdwr
  if r0 != 0 goto sliced
  r0 = 0
  exit
sliced:`;

/** A ring buffer record of 16 bytes as dynptr at fp-16. */
const RESERVE = `
  r1 = map[fd:4]
  r2 = 16
  r3 = 0
  r4 = r10
  r4 += -16
  call 198`;
const SUBMIT = `${DYNPTR}\nr2 = 0\ncall 199`;

/** R0 = a value of the 48-byte array, or the program ends. */
const LOOKUP = `
  *(u32 *)(r10 -4) = 0
  r2 = r10
  r2 += -4
  r1 = map[fd:1]
  call 1
  if r0 != 0 goto found
  exit
found:`;

const TYPES = new BtfBuilder()
  .struct('net_device', 16, { ifindex: ['int', 4] })
  .struct('xdp_buff', 24, { data: ['void *', 0], dev: ['struct net_device *', 8] })
  .build();
const KERNEL: TextOptions = { kernelBtf: TYPES };

const TABLE: Readonly<Record<string, readonly Row[]>> = {
  calls: [
    [
      'not allowed',
      `call bpf_no_such${END}`,
      'EACCES calling kernel function bpf_not_there is not allowed',
    ],
    [
      'of the kernel, not for this type',
      `call bpf_cpumask_create${END}`,
      'EACCES calling kernel function bpf_cpumask_create is not allowed',
    ],
    [
      'for some types',
      `call bpf_dynptr_from_skb${END}`,
      'EACCES calling kernel function bpf_dynptr_from_skb is not allowed',
    ],
    [
      'of the kernel, and not here',
      `call bpf_ct_release${END}`,
      'EOPNOTSUPP kernel function bpf_ct_release is none of those that are here',
    ],
    [
      'not for this type',
      `r2 = 0\nr3 = r10\nr3 += -16\ncall bpf_dynptr_from_xdp${END}`,
      'EACCES calling kernel function bpf_dynptr_from_xdp is not allowed',
      { kind: 'fentry' },
    ],
    [
      'license',
      `call bpf_rcu_read_lock\ncall bpf_rcu_read_unlock${END}`,
      'EINVAL cannot call kernel function from non-GPL compatible program',
      { gpl: false },
    ],
    [
      'metadata without a device',
      `r2 = r10\nr2 += -8\ncall bpf_xdp_metadata_rx_timestamp${END}`,
      'EINVAL metadata kfuncs require device-bound program',
    ],
    [
      'metadata with a device',
      `r2 = r10\nr2 += -8\ncall bpf_xdp_metadata_rx_timestamp${END}`,
      'accepted',
      { deviceBound: true },
    ],
    [
      'NULL where none may be',
      `r2 = 0\ncall bpf_xdp_metadata_rx_timestamp${END}`,
      'EACCES Possibly NULL pointer passed to trusted arg1',
      { deviceBound: true },
    ],
    [
      'other than the context',
      `r1 = r10\nr2 = r10\nr2 += -8\ncall bpf_xdp_metadata_rx_timestamp${END}`,
      'EINVAL arg#0 expected pointer to ctx, but got fp',
      { deviceBound: true },
    ],
    [
      'too little memory',
      `r2 = r10\nr2 += -4\ncall bpf_xdp_metadata_rx_timestamp${END}`,
      'EINVAL invalid read from stack R2 off=-4 size=8',
      { deviceBound: true },
    ],
    [
      'a pointer as number',
      `r1 = r10\nr1 += -8\nr2 = r10\nr3 = 1\ncall bpf_iter_num_new${END}`,
      'EINVAL R2 is not a scalar',
    ],
    ['clobbers registers', `${ITER}${DESTROY}\nr0 = r2\nexit`, 'EACCES R2 !read_ok'],
  ],
  sections: [
    [
      'nested',
      `call bpf_rcu_read_lock\ncall bpf_rcu_read_lock${END}`,
      'EINVAL nested rcu read lock (kernel function bpf_rcu_read_lock)',
    ],
    [
      'not entered',
      `call bpf_rcu_read_unlock${END}`,
      'EINVAL unmatched rcu read unlock (kernel function bpf_rcu_read_unlock)',
    ],
    [
      'not left',
      `call bpf_rcu_read_lock${END}`,
      'EINVAL BPF_EXIT instruction in main prog cannot be used inside bpf_rcu_read_lock-ed region',
    ],
    [
      'preemption not enabled',
      `call bpf_preempt_disable${END}`,
      'EINVAL BPF_EXIT instruction in main prog cannot be used inside bpf_preempt_disable-ed region',
    ],
    [
      'preemption enabled too often',
      `call bpf_preempt_enable${END}`,
      'EINVAL unmatched attempt to enable preemption (kernel function bpf_preempt_enable)',
    ],
  ],
  iterators: [
    ['to its end', `${ITER}\nagain:${NEXT}\nif r0 != 0 goto again${DESTROY}${END}`, 'accepted'],
    [
      'not destroyed',
      `${ITER}${END}`,
      'EINVAL Unreleased reference id=1 alloc_insn=4; BPF_EXIT instruction in main prog would lead to reference leak',
    ],
    ['not made', `${NEXT}${END}`, 'EINVAL expected an initialized iter_num as arg #0'],
    [
      'destroyed twice',
      `${ITER}${DESTROY}${DESTROY}${END}`,
      'EINVAL expected an initialized iter_num as arg #0',
    ],
    ['made twice', `${ITER}${ITER}${END}`, 'EINVAL expected uninitialized iter_num as arg #0'],
    [
      'written over',
      `${ITER}\n*(u64 *)(r10 -8) = 0${DESTROY}${END}`,
      'EINVAL expected an initialized iter_num as arg #0',
    ],
    [
      'read',
      `${ITER}\nr0 = *(u64 *)(r10 -8)${DESTROY}${END}`,
      'EACCES invalid read from stack off -8+0 size 8',
    ],
    [
      'not on the stack',
      `${LOOKUP}\nr1 = r0\ncall bpf_iter_num_next${END}`,
      'EINVAL arg#0 expected pointer to an iterator on stack',
    ],
    [
      'crooked',
      `r1 = r10\nr1 += -12\nr2 = 0\nr3 = 1\ncall bpf_iter_num_new${END}`,
      'EINVAL cannot pass in iter at an offset=-12',
    ],
    [
      'number not checked',
      `${ITER}${NEXT}\nr0 = *(u32 *)(r0 +0)${DESTROY}${END}`,
      "EACCES R0 invalid mem access 'scalar'",
    ],
    [
      'number written',
      `${ITER}${NEXT}\nif r0 == 0 goto done\n*(u32 *)(r0 +0) = 1\ndone:${DESTROY}${END}`,
      'EACCES R0 cannot write into rdonly_mem',
    ],
    [
      'number after its end',
      `${ITER}${NEXT}\nr6 = r0\nif r0 == 0 goto done\nr7 = 1\ndone:${DESTROY}\nr0 = *(u32 *)(r6 +0)\nexit`,
      "EACCES R6 invalid mem access 'scalar'",
    ],
    [
      'a loop in it without end',
      `${ITER}${NEXT}\nif r0 == 0 goto done\nspin: goto spin\ndone:${DESTROY}${END}`,
      'EINVAL infinite loop detected at insn 9',
    ],
    [
      'what a later round would do',
      `r7 = -16\n${ITER}\nagain:${NEXT}\nif r0 == 0 goto done\nr0 = r10\nr0 += r7\nr7 = 0\n*(u64 *)(r0 +0) = 1\ngoto again\ndone:${DESTROY}${END}`,
      'EACCES invalid write to stack R0 off=0 size=8',
    ],
    [
      'a sum that nobody needs',
      `r6 = 0\n${ITER}\nagain:${NEXT}\nif r0 == 0 goto done\nr6 += 1\ngoto again\ndone:${DESTROY}\nr0 = r6\nexit`,
      'accepted',
      { budget: 500 },
    ],
    [
      'a sum as an offset',
      `r6 = 0\n${ITER}\nagain:${NEXT}\nif r0 == 0 goto done\nr6 += 8\ngoto again\ndone:${DESTROY}${LOOKUP}\nr0 += r6\n*(u8 *)(r0 +0) = 1${END}`,
      'EACCES invalid access to map value, value_size=48 off=48 size=1; R0 min value is outside of the allowed memory range',
    ],
  ],
  may_goto: [
    [
      'an endless loop',
      'r6 = 0\nagain:\nmay_goto done\nr6 += 1\ngoto again\ndone:\nr0 = r6\nexit',
      'accepted',
      { budget: 500 },
    ],
    [
      'what a later round would do',
      `r7 = -16\nagain:\nmay_goto done\nr0 = r10\nr0 += r7\nr7 = 0\n*(u64 *)(r0 +0) = 1\ngoto again\ndone:${END}`,
      'EACCES invalid write to stack R0 off=0 size=8',
    ],
    ['nowhere', `may_goto +0${END}`, 'EINVAL invalid may_goto off 0 imm 0'],
  ],
  'packet dynptrs': [
    ['written through a slice', `${PACKET}${SLICE}\n*(u32 *)(r0 +0) = 1${END}`, 'accepted'],
    [
      'beyond a slice',
      `${PACKET}${SLICE}\n*(u32 *)(r0 +1) = 1${END}`,
      'EACCES invalid access to memory, mem_size=4 off=1 size=4; R0 min value is outside of the allowed memory range',
    ],
    [
      'a slice not checked',
      `${PACKET}${DYNPTR}\nr2 = 0\nr3 = 0\nr4 = 4\ncall bpf_dynptr_slice\nr0 = *(u8 *)(r0 +0)\nexit`,
      "EACCES R0 invalid mem access 'rdonly_mem_or_null'",
    ],
    [
      'a slice of no known size',
      `r6 = *(u32 *)(r1 +16)${PACKET}${DYNPTR}\nr2 = 0\nr3 = 0\nr4 = r6\ncall bpf_dynptr_slice${END}`,
      'EINVAL R4 must be a known constant',
    ],
    [
      'a buffer that is too small',
      `${PACKET}${DYNPTR}\nr2 = 0\nr3 = r10\nr3 += -24\nr4 = 9\ncall bpf_dynptr_slice${END}`,
      'EACCES invalid indirect read from stack R3 off -24+8 size 9',
    ],
    [
      'a slice after the packet moved',
      `${PACKET}${SLICE}\nr6 = r0\nr1 = r9\nr2 = 0\ncall 44\nr0 = *(u8 *)(r6 +0)\nexit`,
      "EACCES R6 invalid mem access 'scalar'",
    ],
    [
      'a slice of one that is written over',
      `${PACKET}${SLICE}\n*(u64 *)(r10 -8) = 0\nr0 = *(u8 *)(r0 +0)\nexit`,
      "EACCES R0 invalid mem access 'scalar'",
    ],
    [
      'written over',
      `${PACKET}\n*(u8 *)(r10 -9) = 0${DYNPTR}\ncall bpf_dynptr_size\nexit`,
      'EINVAL Expected an initialized dynptr as arg #0',
    ],
    [
      'read',
      `${PACKET}\nr0 = *(u64 *)(r10 -16)\nexit`,
      'EACCES invalid read from stack off -16+0 size 8',
    ],
    [
      'filled by a helper',
      `${PACKET}\nr1 = r10\nr1 += -16\nr2 = 16\nr3 = 0\ncall 113${END}`,
      'EACCES potential write to dynptr at off=-16 disallowed',
    ],
    [
      'not made',
      `${DYNPTR}\ncall bpf_dynptr_size\nexit`,
      'EINVAL Expected an initialized dynptr as arg #0',
    ],
    [
      'its second half',
      `${PACKET}\nr1 = r10\nr1 += -8\ncall bpf_dynptr_size\nexit`,
      'EINVAL cannot pass in dynptr at an offset=-8',
    ],
    [
      'not on the stack',
      `r1 = 0\ncall bpf_dynptr_size\nexit`,
      'EINVAL arg#0 expected pointer to stack or const struct bpf_dynptr',
    ],
    ['given back', `${PACKET}${SUBMIT}${END}`, 'EINVAL arg 1 is an unacquired reference'],
  ],
  'ring buffer dynptrs': [
    ['given back', `${RESERVE}${SUBMIT}${END}`, 'accepted'],
    [
      'not given back',
      `${RESERVE}${END}`,
      'EINVAL Unreleased reference id=2 alloc_insn=6; BPF_EXIT instruction in main prog would lead to reference leak',
    ],
    [
      'written over',
      `${RESERVE}\n*(u64 *)(r10 -16) = 0${END}`,
      'EINVAL cannot overwrite referenced dynptr',
    ],
    [
      'used afterwards',
      `${RESERVE}${SUBMIT}${DYNPTR}\ncall bpf_dynptr_size\nexit`,
      'EINVAL Expected an initialized dynptr as arg #0',
    ],
    [
      'its bytes afterwards',
      `${RESERVE}${DYNPTR}\nr2 = 0\nr3 = 8\ncall 203\nr6 = r0\nif r0 == 0 goto done\nr7 = 1\ndone:${SUBMIT}\nr0 = *(u8 *)(r6 +0)\nexit`,
      "EACCES R6 invalid mem access 'scalar'",
    ],
    [
      'a copy afterwards',
      `${RESERVE}${DYNPTR}\nr2 = r10\nr2 += -32\ncall bpf_dynptr_clone${SUBMIT}\nr1 = r10\nr1 += -32\ncall bpf_dynptr_size\nexit`,
      'EINVAL Expected an initialized dynptr as arg #0',
    ],
    [
      'bytes that are NULL still leave it to give back',
      `${RESERVE}${DYNPTR}\nr2 = 0\nr3 = 8\ncall 203\nif r0 == 0 goto null${SUBMIT}${END}\nnull:${END}`,
      'EINVAL Unreleased reference id=2 alloc_insn=6; BPF_EXIT instruction in main prog would lead to reference leak',
    ],
    [
      'its bytes given back as a record',
      `${RESERVE}${DYNPTR}\nr2 = 0\nr3 = 8\ncall 203\nif r0 == 0 goto done\nr1 = r0\nr2 = 0\ncall 132\ndone:${SUBMIT}${END}`,
      'EACCES R1 type=mem expected=ringbuf_mem',
    ],
  ],
  'memory dynptrs': [
    [
      'of a map value',
      `${LOOKUP}\nr1 = r0\nr2 = 48\nr3 = 0\nr4 = r10\nr4 += -24\ncall 197${END}`,
      'accepted',
    ],
    [
      'of the stack',
      `r1 = r10\nr1 += -32\nr2 = 8\nr3 = 0\nr4 = r10\nr4 += -16\ncall 197${END}`,
      'EACCES Unsupported reg type fp for bpf_dynptr_from_mem data',
    ],
  ],
  casts: [
    [
      'the context',
      `call bpf_cast_to_kern_ctx\nr0 = *(u64 *)(r0 +8)\nr0 = *(u32 *)(r0 +4)\nexit`,
      'accepted',
      KERNEL,
    ],
    [
      'other than the context',
      `r1 = r10\ncall bpf_cast_to_kern_ctx${END}`,
      'EINVAL arg#0 expected pointer to ctx, but got fp',
      KERNEL,
    ],
    [
      'beyond the struct',
      `call bpf_cast_to_kern_ctx\nr0 = *(u64 *)(r0 +24)\nexit`,
      'EACCES access beyond struct xdp_buff at off 24 size 8',
      KERNEL,
    ],
    [
      'a hole',
      `call bpf_cast_to_kern_ctx\nr0 = *(u64 *)(r0 +16)\nexit`,
      "EACCES struct xdp_buff doesn't have field at offset 16",
      KERNEL,
    ],
    [
      'written',
      `call bpf_cast_to_kern_ctx\n*(u64 *)(r0 +0) = 1${END}`,
      'EACCES only read is supported',
      KERNEL,
    ],
    [
      'to no struct',
      `r2 = 99\ncall bpf_rdonly_cast${END}`,
      'EINVAL kfunc bpf_rdonly_cast type ID argument must be of a struct',
      KERNEL,
    ],
    [
      'to no known type',
      `r2 = *(u32 *)(r1 +16)\ncall bpf_rdonly_cast${END}`,
      'EINVAL R2 must be a known constant',
      KERNEL,
    ],
  ],
};

describe.each(Object.entries(TABLE))('%s', (_, rows) => {
  it.each(rows.map((row) => [row[0], row] as const))(
    '%s',
    (_what, [, program, expected, options]) => {
      expect(verdict(program, options)).toBe(expected);
    },
  );
});
