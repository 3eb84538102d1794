/**
 * Runs an XDP program over packets, each in buffers of its own as BPF_PROG_TEST_RUN makes them.
 *
 * Unlike `xdp-traffic.ts` no driver is in between: only what the program does to its maps stays.
 *
 * Usage:
 *   runPackets(kernel, 'wasm', object.program('count').xlated, packets);
 */
import type { XlatedProgram } from '../bpf/program.js';
import { XdpTestFrame } from '../bpf/xdp-test-run.js';
import { InputError } from '../common/errors.js';
import type { Kernel } from '../kernel/kernel.js';
import { createRunner, type RunEngine } from './run-program.js';

/** Throws InputError when the program is stopped, and says at which packet. */
export function runPackets(
  kernel: Kernel,
  engine: RunEngine,
  program: XlatedProgram,
  packets: readonly Uint8Array[],
  repeat = 1,
): void {
  const frame = new XdpTestFrame(kernel.bpf.host);
  const runner = createRunner(kernel, engine, program);
  try {
    for (let round = 0; round < repeat; round++) {
      for (const [index, packet] of packets.entries()) {
        frame.place(packet);
        const result = runner.run(frame.xdp.address);
        if (result.kind !== 'return') throw new InputError(`packet ${index + 1}: ${result.reason}`);
      }
    }
  } finally {
    runner.close();
  }
}
