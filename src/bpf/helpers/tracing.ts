/**
 * Tracing helpers: printk, and what fentry, fexit and fmod_ret programs ask about their function.
 *
 * A tracing program's context points at the first argument: ctx[n] is argument n, ctx[-1] the number
 * of argument registers, ctx[-2] the function's address, ctx[count] the return value. Reference:
 * kernel/trace/bpf_trace.c. That get_func_ret is refused in fentry is the loader's matter.
 */
import type { Memory } from '../../cpu/memory.js';
import type { BpfHost, RegisterPairs } from '../host.js';
import {
  argument,
  argument32,
  fail,
  offsetOf,
  setResult,
  setResult64,
  type Helper,
} from './helper.js';
import { bytesToText, formatPrintk, type TextSource } from './text.js';

/** Most bytes of one line (MAX_TRACE_PRINTK_BUF). */
const MAX_PRINTK = 1024;
/** Most bytes of a string that %s shows (MAX_BPRINTF_BUF). */
const MAX_STRING = 512;

/** @param funcIp for programs that probes call; undefined: the word in front of a tracing program's context */
export function tracingHelpers(
  attachCookie: (host: BpfHost) => bigint,
  funcIp?: (host: BpfHost) => bigint,
): readonly Helper[] {
  return [
    {
      id: 165,
      name: 'snprintf',
      arguments: ['mem_or_null_write', 'size_or_zero', 'const_str', 'mem_or_null', 'size_or_zero'],
      result: 'integer',
      gplOnly: true,
      body: snprintf,
    },
    {
      id: 177,
      name: 'trace_vprintk',
      arguments: ['mem', 'size', 'mem_or_null', 'size_or_zero'],
      result: 'integer',
      gplOnly: true,
      body: traceVprintk,
    },
    {
      id: 6,
      name: 'trace_printk',
      arguments: ['mem', 'size', 'anything', 'anything', 'anything'],
      result: 'integer',
      gplOnly: true,
      body: tracePrintk,
    },
    {
      id: 173,
      name: 'get_func_ip',
      arguments: ['ctx'],
      result: 'integer',
      body: (registers, host) => {
        if (funcIp) setResult64(registers, funcIp(host));
        else load(host.memory, registers, -16);
      },
    },
    {
      id: 174,
      name: 'get_attach_cookie',
      arguments: ['ctx'],
      result: 'integer',
      body: (registers, host) => setResult64(registers, attachCookie(host)),
    },
    {
      id: 183,
      name: 'get_func_arg',
      arguments: ['ctx', 'anything', 'long'],
      result: 'integer',
      body: (registers, { memory }) => {
        const n = argument32(registers, 2) >>> 0;
        if (n >= argumentCount(memory, registers)) fail(registers, 'EINVAL');
        else copy(memory, registers, 8 * n, 3);
      },
    },
    {
      id: 184,
      name: 'get_func_ret',
      arguments: ['ctx', 'long'],
      result: 'integer',
      body: (registers, { memory }) =>
        copy(memory, registers, 8 * argumentCount(memory, registers), 2),
    },
    {
      id: 185,
      name: 'get_func_arg_cnt',
      arguments: ['ctx'],
      result: 'integer',
      body: (registers, { memory }) => load(memory, registers, -8),
    },
  ];
}

function argumentCount(memory: Memory, registers: RegisterPairs): number {
  return memory.view.getUint32(offsetOf(memory, registers, 1, 8, 'read', -8), true);
}

/** R0 = the 8 bytes at ctx + distance. */
function load(memory: Memory, registers: RegisterPairs, distance: number): void {
  const at = offsetOf(memory, registers, 1, 8, 'read', distance);
  registers[0] = memory.view.getInt32(at, true);
  registers[1] = memory.view.getInt32(at + 4, true);
}

/** Stores the 8 bytes at ctx + distance where argument `to` points; R0 = 0. */
function copy(memory: Memory, registers: RegisterPairs, distance: number, to: number): void {
  const from = offsetOf(memory, registers, 1, 8, 'read', distance);
  memory.bytes.copyWithin(offsetOf(memory, registers, to, 8, 'write'), from, from + 8);
  setResult(registers, 0);
}

/** Most arguments of a format in memory (MAX_BPRINTF_VARARGS). */
const MAX_VARARGS = 12;

/** The 64-bit arguments at argument `n`, with their size in bytes behind it; undefined: refused. */
function readArguments(memory: Memory, registers: RegisterPairs, n: number): bigint[] | undefined {
  const size = argument32(registers, n + 1) >>> 0;
  const isNull = registers[2 * n] === 0 && registers[2 * n + 1] === 0;
  if (size % 8 !== 0 || size > 8 * MAX_VARARGS || (size > 0 && isNull)) return undefined;
  if (size === 0) return [];
  const at = offsetOf(memory, registers, n, size, 'read');
  return Array.from({ length: size / 8 }, (_, i) => memory.view.getBigUint64(at + 8 * i, true));
}

/** bpf_snprintf: the length with its zero byte, also when the text was cut. */
function snprintf(registers: RegisterPairs, { memory }: BpfHost): void {
  const size = argument32(registers, 2) >>> 0;
  const values = readArguments(memory, registers, 4);
  const format = sourceIn(memory).string(argument(registers, 3));
  const text = values && formatPrintk(format, values, sourceIn(memory));
  if (text === undefined) {
    fail(registers, 'EINVAL');
    return;
  }
  if (size > 0) {
    const at = offsetOf(memory, registers, 1, size, 'write');
    const shown = Math.min(text.length, size - 1);
    for (let i = 0; i < shown; i++) memory.bytes[at + i] = text.charCodeAt(i);
    memory.bytes[at + shown] = 0;
  }
  setResult(registers, text.length + 1);
}

/** bpf_trace_vprintk: as trace_printk, with arguments in memory. */
function traceVprintk(registers: RegisterPairs, host: BpfHost): void {
  const { memory } = host;
  const size = argument32(registers, 2) >>> 0;
  const values = readArguments(memory, registers, 3);
  const at = size === 0 ? 0 : offsetOf(memory, registers, 1, size, 'read');
  const format = bytesToText(memory.bytes.subarray(at, at + size));
  const text = values && formatPrintk(format, values, sourceIn(memory))?.slice(0, MAX_PRINTK - 1);
  if (text === undefined) {
    fail(registers, 'EINVAL');
    return;
  }
  host.printk(text.replace(/\n$/, ''));
  setResult(registers, text.length);
}

function tracePrintk(registers: RegisterPairs, host: BpfHost): void {
  const { memory } = host;
  const size = argument32(registers, 2) >>> 0;
  const at = size === 0 ? 0 : offsetOf(memory, registers, 1, size, 'read');
  const format = memory.bytes.subarray(at, at + size);
  const values = [3, 4, 5].map((n) => argument(registers, n));
  const text = format.includes(0)
    ? formatPrintk(bytesToText(format), values, sourceIn(memory))?.slice(0, MAX_PRINTK - 1)
    : undefined;
  if (text === undefined) {
    fail(registers, 'EINVAL');
    return;
  }
  host.printk(text.replace(/\n$/, ''));
  setResult(registers, text.length);
}

/** Strings and bytes of `memory`; what is not mapped reads as empty, as with nofault copies. */
function sourceIn(memory: Memory): TextSource {
  return {
    string: (address) => {
      const region = memory.regionAt(address);
      if (!region) return '';
      const left = Number(region.address + BigInt(region.size) - address);
      return bytesToText(memory.readBytes(address, Math.min(left, MAX_STRING)));
    },
    bytes: (address, size) =>
      memory.faultAt(address, size, 'read')
        ? new Uint8Array(size)
        : memory.readBytes(address, size),
  };
}
