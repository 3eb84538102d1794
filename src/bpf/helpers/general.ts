/**
 * Helpers for every program type: clocks, CPU, random numbers, reading memory, strings.
 *
 * Reference: kernel/bpf/helpers.c, kernel/trace/bpf_trace.c. Differences to a real kernel: all clocks
 * are the host's, there is one NUMA node, jiffies count 4 ms (HZ=250) from 0, and outside a kernel
 * no task runs (`HelperOptions.pidTgid`).
 */
import { bytesToText } from './text.js';
import {
  argument32,
  fail,
  offsetAt,
  offsetOf,
  setResult,
  setResult64,
  type Helper,
} from './helper.js';
import { MemoryAccessError } from '../../cpu/fault.js';
import { withIntrinsic, type BpfHost, type HelperBody, type RegisterPairs } from '../host.js';

const clock = withIntrinsic({ kind: 'clock' }, (registers, host) =>
  setResult64(registers, host.clock()),
);

function clockHelper(id: number, name: string): Helper {
  return { id, name, arguments: [], result: 'integer', body: clock };
}

export function generalHelpers(pidTgid: (host: BpfHost) => bigint): readonly Helper[] {
  return [
    clockHelper(5, 'ktime_get_ns'),
    clockHelper(125, 'ktime_get_boot_ns'),
    clockHelper(160, 'ktime_get_coarse_ns'),
    clockHelper(208, 'ktime_get_tai_ns'),
    {
      id: 118,
      name: 'jiffies64',
      arguments: [],
      result: 'integer',
      body: withIntrinsic({ kind: 'jiffies' }, (registers, host) =>
        setResult64(registers, host.jiffies()),
      ),
    },
    {
      id: 7,
      name: 'get_prandom_u32',
      arguments: [],
      result: 'integer',
      body: withIntrinsic({ kind: 'random' }, (registers, host) => {
        registers[0] = host.random();
        registers[1] = 0;
      }),
    },
    {
      id: 8,
      name: 'get_smp_processor_id',
      arguments: [],
      result: 'integer',
      body: withIntrinsic({ kind: 'current_cpu' }, (registers, host) =>
        setResult(registers, host.currentCpu()),
      ),
    },
    {
      id: 42,
      name: 'get_numa_node_id',
      arguments: [],
      result: 'integer',
      body: withIntrinsic({ kind: 'constant', value: 0 }, (registers) => setResult(registers, 0)),
    },
    {
      id: 14,
      name: 'get_current_pid_tgid',
      arguments: [],
      result: 'integer',
      body: (registers, host) => setResult64(registers, pidTgid(host)),
    },
    {
      id: 4,
      name: 'probe_read',
      arguments: ['uninit_mem', 'size_or_zero', 'anything'],
      result: 'integer',
      gplOnly: true,
      body: probeRead,
    },
    {
      id: 112,
      name: 'probe_read_user',
      arguments: ['uninit_mem', 'size_or_zero', 'anything'],
      result: 'integer',
      gplOnly: true,
      body: probeReadUser,
    },
    {
      id: 114,
      name: 'probe_read_user_str',
      arguments: ['uninit_mem', 'size_or_zero', 'anything'],
      result: 'integer',
      gplOnly: true,
      body: probeReadUser,
    },
    {
      id: 113,
      name: 'probe_read_kernel',
      arguments: ['uninit_mem', 'size_or_zero', 'anything'],
      result: 'integer',
      gplOnly: true,
      body: probeRead,
    },
    {
      id: 115,
      name: 'probe_read_kernel_str',
      arguments: ['uninit_mem', 'size_or_zero', 'anything'],
      result: 'integer',
      gplOnly: true,
      body: probeReadString,
    },
    {
      id: 182,
      name: 'strncmp',
      arguments: ['mem', 'size', 'const_str'],
      result: 'integer',
      body: strncmp,
    },
    {
      id: 105,
      name: 'strtol',
      arguments: ['mem', 'size', 'anything', 'long'],
      result: 'integer',
      body: (registers, host) => parseNumber(registers, host, true),
    },
    {
      id: 106,
      name: 'strtoul',
      arguments: ['mem', 'size', 'anything', 'long'],
      result: 'integer',
      body: (registers, host) => parseNumber(registers, host, false),
    },
  ];
}

/** The running task: its address as a number, and as a pointer whose type the verifier knows. */
export function taskHelpers(currentTask: (host: BpfHost) => bigint): readonly Helper[] {
  const body: HelperBody = (registers, host) => setResult64(registers, currentTask(host));
  const common = { arguments: [], result: 'integer', body } as const;
  return [
    { id: 35, name: 'get_current_task', ...common, gplOnly: true },
    { id: 158, name: 'get_current_task_btf', ...common },
  ];
}

/** copy_from_kernel_nofault: on a fault the destination is zeroed and the result is -EFAULT. */
function probeRead(registers: RegisterPairs, { memory }: BpfHost): void {
  const size = argument32(registers, 2) >>> 0;
  setResult(registers, 0);
  if (size === 0) return;
  const to = offsetOf(memory, registers, 1, size, 'write');
  const from = memory.offsetRead(registers[7], registers[6], size);
  if (from >= 0) {
    memory.bytes.copyWithin(to, from, from + size);
    return;
  }
  memory.bytes.fill(0, to, to + size);
  fail(registers, 'EFAULT');
}

/** There is no user memory: what is read is zero, and the result -EFAULT. */
function probeReadUser(registers: RegisterPairs, { memory }: BpfHost): void {
  const size = argument32(registers, 2) >>> 0;
  if (size > 0) {
    const to = offsetOf(memory, registers, 1, size, 'write');
    memory.bytes.fill(0, to, to + size);
  }
  fail(registers, 'EFAULT');
}

/** strncpy_from_kernel_nofault: gives the length with the zero byte. */
function probeReadString(registers: RegisterPairs, { memory }: BpfHost): void {
  const size = argument32(registers, 2) >>> 0;
  if (size === 0) {
    fail(registers, 'EINVAL');
    return;
  }
  const to = offsetOf(memory, registers, 1, size, 'write');
  for (let length = 0; length < size; length++) {
    const byte = byteAt(registers, 3, length, memory);
    if (byte === undefined) {
      memory.bytes.fill(0, to, to + size);
      fail(registers, 'EFAULT');
      return;
    }
    memory.bytes[to + length] = byte;
    if (byte === 0 || length === size - 1) {
      memory.bytes[to + length] = 0;
      setResult(registers, length + 1);
      return;
    }
  }
}

/** The byte at argument `n` plus `distance`, or undefined where nothing is mapped. */
function byteAt(
  registers: RegisterPairs,
  n: number,
  distance: number,
  memory: BpfHost['memory'],
): number | undefined {
  try {
    return memory.bytes[
      offsetAt(memory, registers[2 * n + 1], registers[2 * n], 1, 'read', distance)
    ];
  } catch (error) {
    if (error instanceof MemoryAccessError) return undefined;
    throw error;
  }
}

function strncmp(registers: RegisterPairs, { memory }: BpfHost): void {
  const size = argument32(registers, 2) >>> 0;
  for (let i = 0; i < size; i++) {
    const a = memory.bytes[offsetOf(memory, registers, 1, 1, 'read', i)];
    const b = memory.bytes[offsetOf(memory, registers, 3, 1, 'read', i)];
    if (a !== b || a === 0) {
      setResult(registers, a === b ? 0 : a < b ? -1 : 1);
      return;
    }
  }
  setResult(registers, 0);
}

/** Bases by the lower 5 bits of flags; any other flag is refused. */
const BASES = [0, 8, 10, 16];

/** bpf_strtol, bpf_strtoul: gives the number of characters that were used. */
function parseNumber(registers: RegisterPairs, { memory }: BpfHost, isSigned: boolean): void {
  const size = argument32(registers, 2) >>> 0;
  const flags = argument32(registers, 3);
  if (size === 0 || registers[7] !== 0 || !BASES.includes(flags)) {
    fail(registers, 'EINVAL');
    return;
  }
  const at = offsetOf(memory, registers, 1, size, 'read');
  const text = bytesToText(memory.bytes.subarray(at, at + Math.min(size, 64)));
  const parsed = parseInteger(text, flags, isSigned);
  if (typeof parsed === 'string') {
    fail(registers, parsed);
    return;
  }
  const to = offsetOf(memory, registers, 4, 8, 'write');
  memory.view.setBigUint64(to, BigInt.asUintN(64, parsed.value), true);
  setResult(registers, parsed.length);
}

type ParsedNumber = { readonly value: bigint; readonly length: number };

/** __bpf_strtoull: white space, sign, prefix by base, digits. */
function parseInteger(
  text: string,
  wantedBase: number,
  isSigned: boolean,
): ParsedNumber | 'EINVAL' | 'ERANGE' {
  const [start = '', sign = ''] = /^\s*(-?)/.exec(text) ?? [];
  if (sign === '-' && !isSigned) return 'EINVAL';
  let rest = text.slice(start.length);
  let base = wantedBase;
  if (base === 0) base = /^0x[0-9a-f]/i.test(rest) ? 16 : rest.startsWith('0') ? 8 : 10;
  const prefix = base === 16 && /^0x/i.test(rest) ? 2 : 0;
  rest = rest.slice(prefix);
  const digits = { 8: /^[0-7]+/, 10: /^[0-9]+/, 16: /^[0-9a-f]+/i }[base]?.exec(rest)?.[0];
  if (digits === undefined) return 'EINVAL';
  let value = 0n;
  for (const digit of digits) value = value * BigInt(base) + BigInt(parseInt(digit, base));
  if (sign === '-') value = -value;
  const fits = isSigned ? value === BigInt.asIntN(64, value) : value === BigInt.asUintN(64, value);
  return fits ? { value, length: start.length + prefix + digits.length } : 'ERANGE';
}
