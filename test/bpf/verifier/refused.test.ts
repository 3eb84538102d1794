import { describe, expect, it } from 'vitest';
import { verdict, type TextOptions } from './program-text.js';

type Row = readonly [what: string, program: string, verdict: string, options?: TextOptions];

/** R0 = a value of the 48-byte array, or the program ends. */
const LOOKUP = `
  *(u32 *)(r10 -4) = 1
  r2 = r10
  r2 += -4
  r1 = map[fd:1]
  call 1
  if r0 != 0 goto found
  exit
found:`;

/** R6 = data, with 14 bytes proved; R9 = ctx. */
const PACKET = `
  r9 = r1
  r6 = *(u32 *)(r1 +0)
  r7 = *(u32 *)(r1 +4)
  r8 = r6
  r8 += 14
  r0 = 1
  if r8 <= r7 goto checked
  exit
checked:`;

/** R0 = a locked value, R6 too. */
const LOCK = `
  *(u32 *)(r10 -4) = 0
  r2 = r10
  r2 += -4
  r1 = map[fd:3]
  call 1
  if r0 != 0 goto found
  exit
found:
  r6 = r0
  r1 = r0
  call 93`;

const RESERVE = `
  r1 = map[fd:4]
  r2 = 16
  r3 = 0
  call 131`;

const END = '\nr0 = 0\nexit';

const TABLE: Readonly<Record<string, readonly Row[]>> = {
  registers: [
    ['R0 at exit', 'exit', 'EACCES R0 !read_ok'],
    ['never written', 'r0 = r2\nexit', 'EACCES R2 !read_ok'],
    ['clobbered by a call', 'call 7\nr0 = r1\nexit', 'EACCES R1 !read_ok'],
    [
      'written on one path only',
      'r3 = *(u32 *)(r1 +16)\nif r3 == 0 goto end\nr2 = 1\nend:\nr0 = r2\nexit',
      'EACCES R2 !read_ok',
    ],
    ['frame pointer', 'r10 = 1\nr0 = 0\nexit', 'EACCES frame pointer is read only'],
    [
      'through a number',
      'r0 = 5\nr0 = *(u8 *)(r0 +0)\nexit',
      "EACCES R0 invalid mem access 'scalar'",
    ],
  ],
  context: [
    [
      'past the end',
      'r0 = *(u32 *)(r1 +24)\nexit',
      'EACCES invalid bpf_context access off=24 size=4',
    ],
    ['wrong size', 'r0 = *(u64 *)(r1 +0)\nexit', 'EACCES invalid bpf_context access off=0 size=8'],
    ['narrow', 'r0 = *(u16 *)(r1 +16)\nexit', 'EACCES invalid bpf_context access off=16 size=2'],
    ['negative', 'r0 = *(u32 *)(r1 -4)\nexit', 'EACCES invalid bpf_context access off=-4 size=4'],
    [
      'egress of no devmap',
      'r0 = *(u32 *)(r1 +20)\nexit',
      'EACCES invalid bpf_context access off=20 size=4',
    ],
    [
      'store',
      '*(u32 *)(r1 +16) = 0\nr0 = 0\nexit',
      'EACCES invalid bpf_context access off=16 size=4',
    ],
    [
      'moved',
      'r1 += 4\nr0 = *(u32 *)(r1 +0)\nexit',
      'EACCES dereference of modified ctx ptr R1 off=4 disallowed',
    ],
    [
      'variable',
      'r2 = *(u32 *)(r1 +16)\nr2 &= 4\nr1 += r2\nr0 = *(u32 *)(r1 +0)\nexit',
      'EACCES variable ctx access var_off=(0x0; 0x4) disallowed',
    ],
    [
      'atomic',
      'r2 = 1\nlock *(u32 *)(r1 +16) += r2\nr0 = 0\nexit',
      'EACCES BPF_ATOMIC stores into R1 ctx is not allowed',
    ],
    [
      'one instruction, context and stack',
      'r2 = *(u32 *)(r1 +16)\n*(u64 *)(r10 -8) = 0\nr3 = r1\nif r2 == 0 goto use\nr3 = r10\nr3 += -8\nuse:\nr0 = *(u32 *)(r3 +0)\nexit',
      'EINVAL same insn cannot be used with different pointers',
    ],
    [
      'pt_regs, past the end',
      'r0 = *(u64 *)(r1 +336)\nexit',
      'EACCES invalid bpf_context access off=336 size=8',
      { kind: 'kprobe' },
    ],
    [
      'pt_regs, across two registers',
      'r0 = *(u64 *)(r1 +4)\nexit',
      'EACCES invalid bpf_context access off=4 size=8',
      { kind: 'kretprobe' },
    ],
    [
      'pt_regs, store',
      '*(u64 *)(r1 +0) = 0\nr0 = 0\nexit',
      'EACCES invalid bpf_context access off=0 size=8',
      { kind: 'kprobe_multi' },
    ],
    [
      'pt_regs, map with a lock',
      'r1 = map[fd:3]\nr0 = 0\nexit',
      'EINVAL tracing progs cannot use bpf_spin_lock yet',
      { kind: 'kprobe' },
    ],
    [
      'pt_regs, map with a timer',
      'r1 = map[fd:8]\nr0 = 0\nexit',
      'EINVAL tracing progs cannot use bpf_timer yet',
      { kind: 'kprobe' },
    ],
    [
      'pt_regs, helper that looks at a trampoline',
      'call 185\nexit',
      'EINVAL program of this type cannot use helper bpf_get_func_arg_cnt#185',
      { kind: 'kprobe' },
    ],
    [
      'traced arguments in part',
      'r0 = *(u32 *)(r1 +0)\nr0 = 0\nexit',
      'EACCES invalid bpf_context access off=0 size=4',
      { kind: 'fentry' },
    ],
  ],
  stack: [
    [
      'above',
      '*(u64 *)(r10 +0) = 1\nr0 = 0\nexit',
      'EACCES invalid write to stack R10 off=0 size=8',
    ],
    [
      'below',
      '*(u64 *)(r10 -520) = 1\nr0 = 0\nexit',
      'EACCES invalid write to stack R10 off=-520 size=8',
    ],
    [
      'misaligned',
      '*(u64 *)(r10 -12) = 1\nr0 = 0\nexit',
      'EACCES misaligned stack access off (0x0; 0x0)+0+-12 size 8',
    ],
    [
      'part of a pointer',
      '*(u64 *)(r10 -8) = r1\nr0 = *(u32 *)(r10 -8)\nexit',
      'EACCES invalid size of register fill',
    ],
    [
      'pointer in 4 bytes',
      '*(u32 *)(r10 -8) = r1\nr0 = 0\nexit',
      'EACCES invalid size of register spill',
    ],
    [
      'variable, too far',
      'r2 = *(u32 *)(r1 +16)\nr2 &= 15\nr3 = r10\nr3 += -8\nr3 += r2\nr0 = *(u8 *)(r3 +0)\nexit',
      'EINVAL invalid variable-offset read from stack R3 var_off=(0x0; 0xf) off=-8 size=1',
    ],
    [
      'variable, unbounded',
      'call 7\nr3 = r10\nr3 += r0\nr0 = *(u8 *)(r3 +0)\nexit',
      'EINVAL math between fp pointer and register with unbounded min value is not allowed',
    ],
    [
      'pointer lost by a byte store',
      '*(u64 *)(r10 -8) = r1\n*(u8 *)(r10 -8) = 0\nr1 = *(u64 *)(r10 -8)\nr0 = *(u32 *)(r1 +0)\nexit',
      "EACCES R1 invalid mem access 'scalar'",
    ],
    [
      'key out of the frame',
      'r1 = map[fd:2]\nr2 = r10\nr2 += -4\ncall 1\nr0 = 0\nexit',
      'EINVAL invalid indirect access to stack R2 off=-4 size=8',
    ],
  ],
  packet: [
    [
      'unchecked',
      'r1 = *(u32 *)(r1 +0)\nr0 = *(u8 *)(r1 +0)\nexit',
      'EACCES invalid access to packet, off=0 size=1, R1(id=0,off=0,r=0); R1 offset is outside of the packet',
    ],
    [
      'one byte more',
      `${PACKET}\nr0 = *(u8 *)(r6 +14)\nexit`,
      'EACCES invalid access to packet, off=14 size=1, R6(id=0,off=0,r=14); R6 offset is outside of the packet',
    ],
    [
      'before',
      `${PACKET}\nr0 = *(u8 *)(r6 -1)\nexit`,
      'EACCES invalid access to packet, off=-1 size=1, R6(id=0,off=0,r=14); R6 offset is outside of the packet',
    ],
    [
      'wrong branch',
      `${PACKET.replace('<=', '>')}\nr0 = *(u8 *)(r6 +0)\nexit`,
      'EACCES invalid access to packet, off=0 size=1, R6(id=0,off=0,r=0); R6 offset is outside of the packet',
    ],
    [
      'at the end',
      `${PACKET}\nr0 = *(u8 *)(r7 +0)\nexit`,
      "EACCES R7 invalid mem access 'pkt_end'",
    ],
    [
      'end moved',
      `${PACKET}\nr7 += -1${END}`,
      'EACCES R7 pointer arithmetic on pkt_end prohibited',
    ],
    [
      'variable, unchecked',
      `${PACKET}\nr3 = *(u8 *)(r6 +0)\nr6 += r3\nr0 = *(u8 *)(r6 +0)\nexit`,
      'EACCES invalid access to packet, off=0 size=1, R6(id=1,off=0,r=0); R6 offset is outside of the packet',
    ],
    ...[44, 54, 65].map((helper): Row => [
      `stale after helper ${helper}`,
      `${PACKET}\nr1 = r9\nr2 = 0\ncall ${helper}\nr0 = *(u8 *)(r6 +0)\nexit`,
      "EACCES R6 invalid mem access 'scalar'",
    ]),
    [
      'metadata without check',
      'r2 = *(u32 *)(r1 +8)\nr0 = *(u32 *)(r2 +0)\nexit',
      'EACCES invalid access to packet, off=0 size=4, R2(id=0,off=0,r=0); R2 offset is outside of the packet',
    ],
    [
      'atomic',
      `${PACKET}\nr3 = 1\nlock *(u32 *)(r6 +0) += r3${END}`,
      'EACCES BPF_ATOMIC stores into R6 pkt is not allowed',
    ],
    [
      'too far to prove',
      'r6 = *(u32 *)(r1 +0)\nr7 = *(u32 *)(r1 +4)\nr8 = r6\nr8 += 65536\nr0 = 1\nif r8 > r7 goto end\nr0 = *(u8 *)(r6 +0)\nend:\nexit',
      'EACCES invalid access to packet, off=0 size=1, R6(id=0,off=0,r=0); R6 offset is outside of the packet',
    ],
  ],
  'map values': [
    [
      'not checked for NULL',
      LOOKUP.replace('if r0 != 0 goto found\n  exit\nfound:', 'r0 = *(u8 *)(r0 +0)\nexit'),
      "EACCES R0 invalid mem access 'map_value_or_null'",
    ],
    [
      'checked the wrong way',
      `${LOOKUP.replace('!=', '==')}\nr0 = *(u8 *)(r0 +0)\nexit`,
      "EACCES R0 invalid mem access 'scalar'",
    ],
    [
      'past the end',
      `${LOOKUP}\nr0 = *(u64 *)(r0 +41)\nexit`,
      'EACCES invalid access to map value, value_size=48 off=41 size=8; R0 min value is outside of the allowed memory range',
    ],
    [
      'before',
      `${LOOKUP}\nr0 = *(u64 *)(r0 -8)\nexit`,
      'EACCES invalid access to map value, value_size=48 off=-8 size=8; R0 min value is outside of the allowed memory range',
    ],
    [
      'index unbounded',
      `${LOOKUP}\nr1 = *(u64 *)(r0 +0)\nr1 <<= 1\nr1 >>= 1\nr0 += r1\nr0 = *(u8 *)(r0 +0)\nexit`,
      'EACCES R0 unbounded memory access, make sure to bounds check any such access',
    ],
    [
      'index may be negative',
      `${LOOKUP}\nr1 = *(u32 *)(r0 +0)\nr1 <<= 32\nr1 s>>= 32\nif r1 s> 3 goto end\nr0 += r1\nr0 = *(u8 *)(r0 +0)\nend:\nr0 = 0\nexit`,
      'EINVAL value -2147483648 makes map_value pointer be out of bounds',
    ],
    [
      'arithmetic before the check',
      'r2 = r10\nr2 += -4\n*(u32 *)(r10 -4) = 1\nr1 = map[fd:1]\ncall 1\nr0 += 8\nr0 = 0\nexit',
      'EACCES R0 pointer arithmetic on map_value_or_null prohibited, null-check it first',
    ],
    [
      'read-only',
      'r1 = map[fd:6][0]+0\n*(u8 *)(r1 +0) = 1\nr0 = 0\nexit',
      'EACCES write into map forbidden, value_size=16 off=0 size=1',
    ],
    [
      'lock as data',
      `${LOCK}\nr1 = *(u32 *)(r6 +0)\nr0 = 0\nexit`,
      'EACCES bpf_spin_lock cannot be accessed directly by load/store',
    ],
    [
      'misaligned atomic',
      `${LOOKUP}\nr1 = 1\nlock *(u64 *)(r0 +4) += r1${END}`,
      'EACCES misaligned value access off (0x0; 0x0)+0+4 size 8',
    ],
    [
      'inner map not checked',
      'r2 = r10\nr2 += -4\n*(u32 *)(r10 -4) = 0\nr1 = map[fd:7]\ncall 1\nr1 = r0\nr2 = r10\nr2 += -4\ncall 1\nr0 = 0\nexit',
      'EACCES R1 type=map_value_or_null expected=map_ptr',
    ],
  ],
  'pointer arithmetic': [
    [
      'multiply',
      'r1 *= 2\nr0 = 0\nexit',
      'EACCES R1 pointer arithmetic with *= operator prohibited',
    ],
    ['and', 'r1 &= -8\nr0 = 0\nexit', 'EACCES R1 bitwise operator &= on pointer prohibited'],
    ['32 bits', 'w1 += 4\nr0 = 0\nexit', 'EACCES R1 32-bit pointer arithmetic prohibited'],
    ['two pointers', 'r1 += r10\nr0 = 0\nexit', 'EACCES R1 pointer += pointer prohibited'],
    [
      'number minus pointer',
      'r2 = 5\nr2 -= r1\nr0 = 0\nexit',
      'EACCES R2 tried to subtract pointer from scalar',
    ],
    [
      'frame pointer minus',
      'r2 = r10\nr2 -= 8\nr0 = 0\nexit',
      'EACCES R2 subtraction from stack pointer prohibited',
    ],
    [
      'map pointer',
      'r1 = map[fd:1]\nr1 += 8\nr0 = 0\nexit',
      'EACCES R1 pointer arithmetic on map_ptr prohibited',
    ],
    [
      'too far',
      'r2 = r10\nr2 += 0x20000000\nr0 = 0\nexit',
      'EINVAL math between fp pointer and 536870912 is not allowed',
    ],
    [
      'unknown number',
      'call 5\nr2 = r10\nr2 += r0\nr0 = 0\nexit',
      'EINVAL math between fp pointer and register with unbounded min value is not allowed',
    ],
  ],
  helpers: [
    ['unknown', 'call 999\nexit', 'EINVAL invalid func unknown#999'],
    [
      'of another type',
      'r2 = 0\ncall 174\nexit',
      'EINVAL program of this type cannot use helper bpf_get_attach_cookie#174',
    ],
    [
      'for GPL programs',
      '*(u64 *)(r10 -8) = 0\nr1 = r10\nr1 += -8\nr2 = 8\ncall 6\nexit',
      'EINVAL cannot call GPL-restricted function from non-GPL compatible program',
      { gpl: false },
    ],
    [
      'number for a map',
      'r1 = 0\nr2 = r10\nr2 += -8\ncall 1\nexit',
      'EACCES R1 type=scalar expected=map_ptr',
    ],
    [
      'context for a key',
      'r2 = r1\nr1 = map[fd:1]\ncall 1\nexit',
      'EACCES R2 type=ctx expected=fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_',
    ],
    [
      'wrong map type',
      'r1 = map[fd:5]\nr2 = r10\nr2 += -4\ncall 1\nexit',
      'EINVAL cannot pass map_type PROG_ARRAY into func bpf_map_lookup_elem#1',
    ],
    [
      'socket taken out of a map by a tracing program',
      '*(u32 *)(r10 -4) = 0\nr1 = map[fd:10]\nr2 = r10\nr2 += -4\ncall 3\nr0 = 0\nexit',
      'EINVAL cannot pass map_type SOCKMAP into func bpf_map_delete_elem#3',
      { kind: 'fentry' },
    ],
    [
      'ring buffer lookup',
      'r1 = map[fd:4]\nr2 = r10\nr2 += -4\ncall 1\nexit',
      'EACCES invalid zero-sized read',
    ],
    [
      'tail call into an array',
      'r2 = map[fd:1]\nr3 = 0\ncall 12\nr0 = 0\nexit',
      'EINVAL cannot pass map_type ARRAY into func bpf_tail_call#12',
    ],
    ['stack for a context', 'r1 = r10\nr2 = 0\ncall 44\nexit', 'EACCES R1 type=fp expected=ctx'],
    [
      'size that may be negative',
      `call 5\nr2 = r0\nr1 = r10\nr1 += -16\nr3 = 0\nr4 = 0\nr5 = 0\ncall 6\nexit`,
      "EACCES R2 min value is negative, either use unsigned or 'var &= const'",
    ],
    [
      'size that may be 0',
      'call 7\nr2 = r0\nr2 &= 8\nr1 = r10\nr1 += -16\nr3 = 0\nr4 = 0\nr5 = 0\ncall 6\nexit',
      'EACCES R2 invalid zero-sized read: u64=[0,8]',
    ],
    [
      'size beyond the frame',
      'r6 = r1\ncall 7\nr4 = r0\nr4 &= 31\nr4 += 1\nr1 = r6\nr2 = 0\nr3 = r10\nr3 += -16\ncall 189\nexit',
      'EINVAL invalid indirect access to stack R3 off=-16 size=32',
    ],
    ['missing argument', 'r1 = map[fd:1]\ncall 1\nexit', 'EACCES R2 !read_ok'],
    [
      'string that is no constant',
      '*(u64 *)(r10 -8) = 0\nr1 = r10\nr1 += -8\nr2 = 8\nr3 = r10\nr3 += -8\ncall 182\nexit',
      'EACCES R3 type=fp expected=map_value',
    ],
    [
      'string without end',
      '*(u64 *)(r10 -8) = 0\nr1 = r10\nr1 += -8\nr2 = 8\nr3 = map[fd:6][0]+6\ncall 182\nexit',
      'EINVAL string is not zero-terminated',
    ],
    [
      'update of a frozen map',
      '*(u64 *)(r10 -16) = 0\n*(u64 *)(r10 -8) = 0\nr1 = map[fd:6]\nr2 = r10\nr2 += -16\nr3 = r2\nr4 = 0\ncall 2\nexit',
      'EACCES write into map forbidden',
    ],
  ],
  references: [
    [
      'leak',
      `${RESERVE}\nif r0 == 0 goto end\nr1 = 5\nend:\nr0 = 0\nexit`,
      'EINVAL Unreleased reference id=1 alloc_insn=4; BPF_EXIT instruction in main prog would lead to reference leak',
    ],
    [
      'never checked',
      `${RESERVE}\nr0 = 0\nexit`,
      'EINVAL Unreleased reference id=1 alloc_insn=4; BPF_EXIT instruction in main prog would lead to reference leak',
    ],
    [
      'submitted twice',
      `${RESERVE}\nif r0 == 0 goto end\nr6 = r0\nr1 = r0\nr2 = 0\ncall 132\nr1 = r6\nr2 = 0\ncall 132\nend:\nr0 = 0\nexit`,
      'EACCES R1 type=scalar expected=ringbuf_mem',
    ],
    [
      'used after',
      `${RESERVE}\nif r0 == 0 goto end\nr6 = r0\nr1 = r0\nr2 = 0\ncall 133\n*(u8 *)(r6 +0) = 1\nend:\nr0 = 0\nexit`,
      "EACCES R6 invalid mem access 'scalar'",
    ],
    [
      'moved',
      `${RESERVE}\nif r0 == 0 goto end\nr1 = r0\nr1 += 8\nr2 = 0\ncall 132\nend:\nr0 = 0\nexit`,
      'EINVAL R1 must have zero offset when passed to release func or trusted arg to kfunc',
    ],
    [
      'past the end',
      `${RESERVE}\nif r0 == 0 goto end\n*(u64 *)(r0 +9) = 1\nend:\nr0 = 0\nexit`,
      'EACCES invalid access to memory, mem_size=16 off=9 size=8; R0 min value is outside of the allowed memory range',
    ],
    [
      'size that is not constant',
      'call 7\nr2 = r0\nr1 = map[fd:4]\nr3 = 0\ncall 131\nexit',
      'EACCES R2 is not a known constant',
    ],
    [
      'tail call',
      `r6 = r1${RESERVE}\nif r0 == 0 goto end\nr1 = r6\nr2 = map[fd:5]\nr3 = 0\ncall 12\nend:\nr0 = 0\nexit`,
      'EINVAL Unreleased reference id=1 alloc_insn=5; tail_call would lead to reference leak',
    ],
  ],
  locks: [
    [
      'held at exit',
      `${LOCK}${END}`,
      'EINVAL BPF_EXIT instruction in main prog cannot be used inside bpf_spin_lock-ed region',
    ],
    [
      'call under lock',
      `${LOCK}\ncall 7\nexit`,
      'EINVAL function calls are not allowed while holding a lock',
    ],
    [
      'taken twice',
      `${LOCK}\nr1 = r6\ncall 93\nexit`,
      'EINVAL function calls are not allowed while holding a lock',
    ],
    [
      'not taken',
      `${LOCK.replace('call 93', 'call 94')}${END}`,
      'EINVAL bpf_spin_unlock without taking a lock',
    ],
    [
      'map without one',
      `${LOOKUP}\nr1 = r0\ncall 93${END}`,
      "EINVAL map 'array' has no valid bpf_spin_lock",
    ],
    [
      'wrong place',
      `${LOCK.replace('r1 = r0', 'r1 = r0\nr1 += 4')}${END}`,
      "EINVAL off 4 doesn't point to 'struct bpf_spin_lock' that is at 0",
    ],
  ],
  'control flow': [
    ['falls off', 'r0 = 0', 'EINVAL last insn is not an exit or jmp'],
    ['jump out', 'r0 = 0\ngoto +5\nexit', 'EINVAL jump out of range from insn 1 to 7'],
    ['unreachable', 'r0 = 0\nexit\nr0 = 1\nexit', 'EINVAL unreachable insn 2'],
    [
      'endless, constant',
      'r0 = 1\nagain:\nif r0 == 1 goto again\nexit',
      'EINVAL infinite loop detected at insn 1',
    ],
    ['endless, empty', 'r0 = 1\nagain:\ngoto again', 'EINVAL infinite loop detected at insn 1'],
    [
      'endless, unknown',
      'r6 = r1\nagain:\nr0 = *(u32 *)(r6 +16)\nif r0 != 0 goto again\nexit',
      'EINVAL infinite loop detected at insn 1',
    ],
    [
      'too long',
      'r0 = 0\nagain:\nr0 += 1\nif r0 != 1000000 goto again\nexit',
      'E2BIG BPF program is too large. Processed 1000001 insn',
    ],
    [
      'middle of ld_imm64',
      'r0 = 0\ngoto +1\nr1 = 5 ll\nexit',
      'EINVAL jump into the middle of ldimm64 insn 3',
    ],
    ['division by constant 0', 'r0 = 1\nr0 /= 0\nexit', 'EINVAL div by zero'],
    ['shift too far', 'r0 = 1\nr0 <<= 64\nexit', 'EINVAL invalid shift 64'],
  ],
  results: [
    [
      'fentry',
      'r0 = 1\nexit',
      'EINVAL At program exit the register R0 has P1 should have been in [0, 0]',
      { kind: 'fentry' },
    ],
    [
      'fentry, unknown',
      'call 7\nexit',
      'EINVAL At program exit the register R0 has Pscalar() should have been in [0, 0]',
      { kind: 'fexit' },
    ],
  ],
  functions: [
    ['recursion', 'call f\nexit\nf:\ncall f\nexit', 'E2BIG the call stack of 9 frames is too deep'],
    [
      'stack in all',
      '*(u64 *)(r10 -264) = 0\ncall f\nexit\nf:\n*(u64 *)(r10 -264) = 0\nr0 = 0\nexit',
      'EACCES combined stack size of 2 calls is 544. Too large',
    ],
    [
      'pointer to its own frame',
      'call f\nexit\nf:\nr0 = r10\nr0 += -8\nexit',
      'EINVAL cannot return stack pointer to the caller',
    ],
    [
      'own frame stored in the caller',
      'r1 = r10\nr1 += -8\ncall f\nr0 = 0\nexit\nf:\nr2 = r10\nr2 += -8\n*(u64 *)(r1 +0) = r2\nr0 = 0\nexit',
      'EINVAL cannot spill pointers to stack into stack frame of the caller',
    ],
    ['no result', 'call f\nexit\nf:\nexit', 'EACCES R0 !read_ok'],
    [
      'tail call below much stack',
      'r6 = r1\n*(u64 *)(r10 -256) = 0\nr1 = r6\ncall f\nexit\nf:\nr2 = map[fd:5]\nr3 = 0\ncall 12\nr0 = 0\nexit',
      'EACCES tail_calls are not allowed when call stack of previous frames is 256 bytes. Too large',
    ],
    [
      'tail-called result as index',
      `r6 = r1\nr1 = r6\ncall f\nr7 = r0${LOOKUP}\nr0 += r7\nr0 = *(u8 *)(r0 +0)\nexit\nf:\nr2 = map[fd:5]\nr3 = 0\ncall 12\nr0 = 0\nexit`,
      'EINVAL math between map_value pointer and register with unbounded min value is not allowed',
    ],
    [
      'global: dereference without check',
      'r1 = r10\nr1 += -8\n*(u64 *)(r10 -8) = 0\ncall f\nexit\nf:\nr0 = *(u32 *)(r1 +0)\nexit',
      "EACCES R1 invalid mem access 'mem_or_null'",
      { globals: { 1: [{ kind: 'memory', size: 8, nonNull: false }] } },
    ],
    [
      'global: memory too small',
      'r1 = r10\nr1 += -4\ncall f\nexit\nf:\nr0 = 0\nexit',
      "EINVAL invalid indirect access to stack R1 off=-4 size=8; Caller passes invalid args into func#1 ('test_sub_1')",
      { globals: { 1: [{ kind: 'memory', size: 8, nonNull: false }] } },
    ],
    [
      'global: no context',
      'r1 = 0\ncall f\nexit\nf:\nr0 = 0\nexit',
      "EINVAL arg#0 expects pointer to ctx; Caller passes invalid args into func#1 ('test_sub_1')",
      { globals: { 1: [{ kind: 'ctx' }] } },
    ],
    [
      'global: argument used as index',
      `r1 = 3\ncall f\nexit\nf:\nr6 = r1${LOOKUP}\nr0 += r6\nr0 = *(u8 *)(r0 +0)\nexit`,
      'EINVAL math between map_value pointer and register with unbounded min value is not allowed',
      { globals: { 1: [{ kind: 'scalar' }] } },
    ],
    [
      'callback with a wrong result',
      'r1 = 10\nr2 = subprog[+6]\nr3 = 0\nr4 = 0\ncall 181\nr0 = 0\nexit\nr0 = 7\nexit',
      'EINVAL At callback return the register R0 has P7 should have been in [0, 1]',
    ],
    [
      'callback that goes too far',
      'r1 = 10\nr2 = subprog[+6]\nr3 = 0\nr4 = 0\ncall 181\nr0 = 0\nexit\nr2 = r10\nr2 += r1\nr0 = 0\nexit',
      'EINVAL math between fp pointer and register with unbounded min value is not allowed',
    ],
    [
      'callback on a ring buffer',
      'r1 = map[fd:4]\nr2 = subprog[+6]\nr3 = 0\nr4 = 0\ncall 164\nr0 = 0\nexit\nr0 = 0\nexit',
      'ENOTSUPP callback function not allowed for map',
    ],
    [
      'callback result escapes its checks',
      `*(u64 *)(r10 -16) = 0\nr1 = 1000\nr2 = subprog[+17]\nr3 = r10\nr3 += -16\nr4 = 0\ncall 181\nr6 = *(u64 *)(r10 -16)${LOOKUP}\nr0 += r6\nr0 = *(u8 *)(r0 +0)\nexit\nr3 = *(u64 *)(r2 +0)\nr3 += 1\n*(u64 *)(r2 +0) = r3\nr0 = 0\nexit`,
      'EACCES invalid access to map value, value_size=48 off=48 size=1; R0 min value is outside of the allowed memory range',
    ],
  ],
};

describe.each(Object.entries(TABLE))('refused: %s', (_, rows) => {
  it.each(rows.map((row) => [row[0], row] as const))(
    '%s',
    (_what, [, program, expected, options]) => {
      expect(verdict(program, options ?? {})).toBe(expected);
    },
  );
});
