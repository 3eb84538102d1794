/**
 * Runs one BPF program on one engine, as BPF_PROG_TEST_RUN does: with a packet, a context or a buffer.
 *
 * Reference: net/bpf/test_run.c (headroom 256, device lo with ifindex 1, queue 0). Engines: the
 * interpreter and the wasm tier, or the JIT image on the kernel's CPU engine. Usage:
 *   const runner = createRunner(kernel, 'interpreter', xlated);
 *   runner.run(context); // { kind: 'return', r0 }
 */
import type { XlatedProgram } from '../bpf/program.js';
import { ProgramExit } from '../bpf/host.js';
import { createInterpreter, type Interpreter } from '../bpf/interpreter.js';
import { createWasmProgram, type WasmProgram } from '../bpf/wasm.js';
import { SKB_SHARED_INFO_SIZE, XDP_PACKET_HEADROOM, XdpBuff } from '../bpf/xdp-buff.js';
import { InputError } from '../common/errors.js';
import { describeFault } from '../cpu/fault.js';
import { PAGE_SIZE } from '../cpu/memory.js';
import type { Kernel } from '../kernel/kernel.js';

/** `jit`: the image on the kernel's CPU engine. */
export type RunEngine = 'interpreter' | 'wasm' | 'jit';

export type RunResult =
  | { readonly kind: 'return'; readonly r0: bigint }
  /** What stopped it in interpreter or wasm, in one line; a JIT image oopses (`KernelOops`). */
  | { readonly kind: 'stopped'; readonly reason: string };

export interface BpfRunner {
  /** Runs with R1 = `context` and R2 = `r2`. */
  run(context: bigint, r2?: bigint): RunResult;
  /** Frees image or stack. */
  close(): void;
}

/** Throws KernelError when the JIT refuses the program. */
export function createRunner(kernel: Kernel, engine: RunEngine, program: XlatedProgram): BpfRunner {
  switch (engine) {
    case 'interpreter':
      return directRunner(createInterpreter(program, kernel.bpf.host));
    case 'wasm':
      return directRunner(createWasmProgram(program, kernel.bpf.host));
    case 'jit':
      return jitRunner(kernel, program);
  }
}

function directRunner(engine: Interpreter | WasmProgram): BpfRunner {
  return {
    run(context, r2 = 0n) {
      const result = engine.run(context, { r2 });
      switch (result.kind) {
        case 'return':
          return { kind: 'return', r0: result.r0 };
        case 'fault':
          return stopped(
            `${describeFault(result.fault)} (insn ${result.insn} of ${result.function})`,
          );
        case 'budget':
          return stopped(`out of budget at insn ${result.insn} of ${result.function}`);
        case 'error':
          return stopped(`${result.reason} (insn ${result.insn} of ${result.function})`);
      }
    },
    close: () => engine.close(),
  };
}

function jitRunner(kernel: Kernel, program: XlatedProgram): BpfRunner {
  const loaded = kernel.bpf.load(program);
  return {
    run(context, r2 = 0n) {
      try {
        return { kind: 'return', r0: kernel.call(loaded.entry, context, r2) };
      } catch (error) {
        if (error instanceof ProgramExit) return { kind: 'return', r0: error.r0 };
        throw error;
      }
    },
    close: () => loaded.free(),
  };
}

function stopped(reason: string): RunResult {
  return { kind: 'stopped', reason };
}

/** An XDP context over one page: `packet` with 256 bytes in front. */
export function xdpContext(kernel: Kernel, packet: Uint8Array): { xdp: XdpBuff; page: bigint } {
  const most = PAGE_SIZE - XDP_PACKET_HEADROOM - SKB_SHARED_INFO_SIZE;
  if (packet.length < 14 || packet.length > most) {
    throw new InputError(`a packet of ${packet.length} bytes: XDP takes 14 to ${most} in one page`);
  }
  const xdp = XdpBuff.create(kernel.bpf.host, { ifindex: 1, queueIndex: 0 });
  const page = kernel.bpf.host.allocate('packet', PAGE_SIZE).address;
  fillXdp(kernel, xdp, page, packet);
  return { xdp, page };
}

/** Puts `packet` (again) at its place in the page at `page`. */
export function fillXdp(kernel: Kernel, xdp: XdpBuff, page: bigint, packet: Uint8Array): void {
  xdp.setFrame(page, PAGE_SIZE, XDP_PACKET_HEADROOM, packet.length);
  kernel.memory.writeBytes(xdp.data, packet);
}
