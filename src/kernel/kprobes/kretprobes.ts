/**
 * kretprobes: a kprobe at a function's entry that exchanges its return address for that of a trampoline; the trampoline is
 * a BRK, whose handler calls the return handlers and goes on where the function would have returned.
 *
 *   task_struct::kretprobe_instances -> { next, rp, ret_addr, fp }   newest first
 *
 * Instances come from the pool of the probe (maxactive); without a free one the call is missed. Since the entry
 * BRK lies before `mov x9, x30`, everything behind it (ftrace_caller, BPF trampolines) takes the trampoline
 * for the caller.
 *
 * Reference: kernel/kprobes.c (pre_handler_kretprobe, __kretprobe_trampoline_handler),
 * arch/arm64/kernel/probes/kprobes.c (arch_prepare_kretprobe, kretprobe_brk_handler; 6.13). Left out: entry
 * handlers, the trampoline of kernels before 6.13, which saves pt_regs by code.
 */
import { encode } from '../../a64/codec.js';
import { KernelError } from '../../common/errors.js';
import type { Cpu } from '../../cpu/cpu.js';
import { KernelOops } from '../executor.js';
import type { Kernel } from '../kernel.js';
import { TASK_STRUCT } from '../offsets.js';
import type { Kprobe } from './kprobes.js';

export const KRETPROBES_BRK_IMM = 0x007;

export interface Kretprobe {
  readonly name: string;
  /** First byte of the function. */
  readonly address: bigint;
  /** Calls that may be followed at a time. Default: 2 for each CPU, at least 10. */
  readonly maxactive?: number;
  /** The function has returned to `ret`: its result is in x0, pc already at `ret`. */
  readonly handler: (cpu: Cpu, ret: bigint) => void;
}

/** A registered one. */
interface Active {
  readonly probe: Kretprobe;
  readonly kprobe: Kprobe;
  readonly maxactive: number;
  inUse: number;
  missed: number;
}

const INSTANCE = { next: 0n, rp: 8n, ret: 16n, fp: 24n, size: 32 } as const;

export class Kretprobes {
  readonly #kernel: Kernel;
  /** By number, which stands in instances. */
  readonly #active: (Active | undefined)[] = [];
  #trampoline: bigint | undefined;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    kernel.executor.breaks.set(KRETPROBES_BRK_IMM, (cpu) => this.#returned(cpu));
  }

  /** register_kretprobe. */
  register(probe: Kretprobe): void {
    const { symbols, cpus, kprobes } = this.#kernel;
    const symbol = symbols.lookup(probe.address);
    if (symbol?.offset !== 0) {
      throw new KernelError('EINVAL', `kretprobe ${probe.name} is not at a function's entry`);
    }
    const number = this.#active.length;
    const kprobe: Kprobe = {
      name: probe.name,
      address: probe.address,
      pre: (cpu) => this.#entered(cpu, number),
    };
    kprobes.register(kprobe);
    const maxactive = probe.maxactive ?? Math.max(10, 2 * cpus.length);
    this.#active.push({ probe, kprobe, maxactive, inUse: 0, missed: 0 });
  }

  /** unregister_kretprobe: calls that are followed still return, and tell nobody. */
  unregister(probe: Kretprobe): void {
    const at = this.#active.findIndex((each) => each?.probe === probe);
    const active = this.#active[at];
    if (!active) throw new KernelError('EINVAL', `kretprobe ${probe.name} is not registered`);
    this.#kernel.kprobes.unregister(active.kprobe);
    this.#active[at] = undefined;
  }

  /** Calls that were not followed for want of an instance. */
  missed(probe: Kretprobe): number {
    return this.#active.find((each) => each?.probe === probe)?.missed ?? 0;
  }

  /** `__kretprobe_trampoline`, which stands for the caller meanwhile. */
  get trampoline(): bigint {
    this.#trampoline ??= this.#place();
    return this.#trampoline;
  }

  #place(): bigint {
    const { text } = this.#kernel;
    const brk = encode('BRK', { imm16: KRETPROBES_BRK_IMM });
    const address = text.addWords('__kretprobe_trampoline', [brk]);
    this.#kernel.syncText(address, text.end);
    return address;
  }

  /** pre_handler_kretprobe. */
  #entered(cpu: Cpu, number: number): void {
    const active = this.#active[number];
    if (!active) return;
    if (active.inUse >= active.maxactive) {
      active.missed++;
      return;
    }
    active.inUse++;
    const { memory } = this.#kernel;
    const head = this.#kernel.current + BigInt(TASK_STRUCT.kretprobe_instances);
    const instance = this.#kernel.kmalloc(INSTANCE.size);
    memory.write64(instance + INSTANCE.next, memory.read64(head));
    memory.write64(instance + INSTANCE.rp, BigInt(number));
    memory.write64(instance + INSTANCE.ret, cpu.getX(30));
    memory.write64(instance + INSTANCE.fp, cpu.getX(29));
    memory.write64(head, instance);
    cpu.setX(30, this.trampoline);
  }

  /** kretprobe_brk_handler: all instances down to the first with the real return address. */
  #returned(cpu: Cpu): boolean {
    if (cpu.pc !== this.#trampoline) return false;
    const { memory } = this.#kernel;
    const head = this.#kernel.current + BigInt(TASK_STRUCT.kretprobe_instances);
    const instances: bigint[] = [];
    let ret = cpu.pc;
    let at = memory.read64(head);
    for (; ret === this.#trampoline; at = memory.read64(at + INSTANCE.next)) {
      if (at === 0n || memory.read64(at + INSTANCE.fp) !== cpu.getX(29)) {
        throw new KernelOops('kernel BUG: kretprobe: no return address for this frame');
      }
      instances.push(at);
      ret = memory.read64(at + INSTANCE.ret);
    }
    memory.write64(head, at);
    cpu.pc = ret;
    for (const instance of instances) {
      const active = this.#active[Number(memory.read64(instance + INSTANCE.rp))];
      if (active) active.inUse--;
      if (active) this.#kernel.kprobes.handle(cpu, () => active.probe.handler(cpu, ret));
      this.#kernel.kfree(instance);
    }
    return true;
  }
}
