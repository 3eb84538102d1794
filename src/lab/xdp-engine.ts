/**
 * An XDP program as the driver runs it, on any engine.
 *
 * The interpreter or the wasm tier work on kernel memory; the JIT image runs on the kernel's CPU engine.
 *
 * Usage:
 *   const engine = createXdpEngine(kernel, 'wasm', program.xlated);
 *   net.attachXdp(engine.runner);
 *   engine.close();
 */
import { createInterpreter, type Interpreter, type InterpreterResult } from '../bpf/interpreter.js';
import type { XlatedProgram } from '../bpf/program.js';
import { createWasmProgram, type WasmProgram } from '../bpf/wasm.js';
import { KernelError } from '../common/errors.js';
import { describeFault } from '../cpu/fault.js';
import type { KernelContext } from '../kernel/function.js';
import type { Kernel } from '../kernel/kernel.js';
import type { XdpRunner } from '../virtio/driver/common.js';
import type { RunEngine } from './run-program.js';

export interface XdpEngineOptions {
  /** The program was loaded with the frags flag. Default false. */
  readonly hasFrags?: boolean;
  /** Told each verdict. */
  readonly note?: (verdict: number) => void;
}

export interface XdpEngine {
  readonly runner: XdpRunner;
  close(): void;
}

export function createXdpEngine(
  kernel: Kernel,
  engine: RunEngine,
  program: XlatedProgram,
  { hasFrags = false, note = () => undefined }: XdpEngineOptions = {},
): XdpEngine {
  const { ram } = kernel.memory;
  if (engine === 'jit') {
    const loaded = kernel.bpf.load(program);
    const run = (_kernel: KernelContext, xdp: number): number => {
      const { entry } = loaded;
      const verdict = kernel.invokeImage(entry, ram.addressLo(xdp), ram.addressHi(xdp)) >>> 0;
      note(verdict);
      return verdict;
    };
    return { runner: { hasFrags, run }, close: () => loaded.free() };
  }
  const create = engine === 'wasm' ? createWasmProgram : createInterpreter;
  const direct = create(program, kernel.bpf.host);
  const run = (_kernel: KernelContext, xdp: number): number => {
    const verdict = execute(direct, ram.addressHi(xdp), ram.addressLo(xdp));
    note(verdict);
    return verdict;
  };
  return { runner: { hasFrags, run }, close: () => direct.close() };
}

/** Low half of R0. Throws KernelError for a program that does not return. */
function execute(program: Interpreter | WasmProgram, hi: number, lo: number): number {
  let result: InterpreterResult;
  try {
    if (program.execute(hi, lo)) return program.r0;
    ({ result } = program);
  } catch (error) {
    result = program.caught(error);
  }
  switch (result.kind) {
    case 'return':
      return Number(BigInt.asUintN(32, result.r0));
    case 'fault':
      throw new KernelError(
        'EFAULT',
        `${describeFault(result.fault)} (insn ${result.insn} of ${result.function})`,
      );
    case 'budget':
      throw new KernelError('EINTR', `${result.function} does not end (insn ${result.insn})`);
    case 'error':
      throw new KernelError('EFAULT', `${result.reason} (insn ${result.insn})`);
  }
}
