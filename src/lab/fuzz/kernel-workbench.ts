/**
 * A workbench in an emulated kernel: helpers are kernel functions with text, tail calls find their targets
 * through a struct bpf_prog each.
 *
 * The fuzzer's helpers destroy on the CPU what a C function may destroy.
 */
import { high32, join64, low32 } from '../../common/bytes.js';
import type { HelperBody } from '../../bpf/host.js';
import type { KernelFunction } from '../../kernel/function.js';
import type { Kernel } from '../../kernel/kernel.js';
import { CLOBBERED, mixHelpers } from './helpers.js';
import { PROGRAM_SLOTS } from './tree.js';
import { Workbench } from './workbench.js';

/** What a destroyed register holds. */
const JUNK = 0xdead_0000_0000_0000n;

export class KernelWorkbench extends Workbench {
  readonly kernel: Kernel;

  /** One per kernel: it defines functions there. */
  constructor(kernel: Kernel) {
    const { host } = kernel.bpf;
    const helpers = new Map<number, bigint>();
    const bodies = [...mixHelpers()];
    kernel.define(...bodies.map(([id, body]) => destroyer(kernel, `lab_mix_${id}`, body)));
    for (const [id, body] of bodies) {
      const address = kernel.symbol(`lab_mix_${id}`);
      host.addHelper(address, body);
      helpers.set(id, address);
    }
    super(host, helpers);
    this.kernel = kernel;
    const { insnsi } = kernel.bpf.profile.bpfProg;
    this.programAddresses = Array.from(
      { length: PROGRAM_SLOTS },
      (_, slot) => host.allocate(`bpf_prog in slot ${slot}`, insnsi).address,
    );
  }
}

/** A helper as code calls it, that leaves nothing in registers which it need not preserve. */
function destroyer(kernel: Kernel, name: string, body: HelperBody): KernelFunction {
  const registers = new Int32Array(22);
  return {
    name,
    prototype: `u64 ${name}(u64 r1, u64 r2, u64 r3, u64 r4, u64 r5)`,
    parameters: 5,
    notrace: true,
    body: (_kernel, ...args) => {
      args.forEach((value, i) => {
        registers[2 * (i + 1)] = low32(value);
        registers[2 * (i + 1) + 1] = high32(value);
      });
      body(registers, kernel.bpf.host);
      const cpu = kernel.cpus[kernel.currentCpu];
      for (const register of CLOBBERED) cpu?.setX(register, JUNK + BigInt(register));
      return join64(registers[0] ?? 0, registers[1] ?? 0);
    },
  };
}
