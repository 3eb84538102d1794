/**
 * XDP programs as the network side holds them: a `struct bpf_prog` in memory, and the engine that runs it.
 *
 * Reference: bpf_prog_run_xdp of include/net/xdp.h. The address of a bpf_prog is what structures of drivers and
 * maps point to; its id doubles as the descriptor under which user space names it in a map's value.
 *
 * Usage:
 *   const prog = programs.add({ attach: 'devmap', run: (kernel, xdp) => 2 });
 *   programs.runner(prog).run(kernel, xdp);
 */
import { hex64 } from '../common/bytes.js';
import { InputError } from '../common/errors.js';
import { struct } from '../common/struct.js';
import type { KernelContext } from '../kernel/function.js';

/** Runs an XDP program. */
export interface XdpRunner {
  /** The program was loaded with the frags flag. Default false. */
  readonly hasFrags?: boolean;
  /** expected_attach_type BPF_XDP, BPF_XDP_DEVMAP or BPF_XDP_CPUMAP. Default device. */
  readonly attach?: 'device' | 'devmap' | 'cpumap';
  /** The program is bound to the device with that ifindex, or to the one it is attached to. Default: to none. */
  readonly boundTo?: number | 'any';
  /** The verdict of the program on the xdp_buff at a physical address. */
  run(kernel: KernelContext, xdpBuff: number): number;
}

/** `struct bpf_prog` as far as drivers look into it. */
export const BPF_PROG = struct({ id: 'u32', xdp_has_frags: 'u32' });

const PROG = BPF_PROG.offset;

export class XdpPrograms {
  readonly #kernel: KernelContext;
  readonly #runners = new Map<number, XdpRunner>();
  readonly #ids = new Map<number, number>();
  // what `runner` found last
  #lastProg = 0;
  #lastRunner: XdpRunner | undefined;
  #lastId = 0;

  constructor(kernel: KernelContext) {
    this.#kernel = kernel;
  }

  /** Physical address of its `struct bpf_prog`. */
  add(runner: XdpRunner): number {
    const { memory, physical } = this.#kernel;
    const prog = physical.alloc(BPF_PROG.size);
    const id = ++this.#lastId;
    memory.ram.set32(prog + PROG.id, id);
    memory.ram.set32(prog + PROG.xdp_has_frags, (runner.hasFrags ?? false) ? 1 : 0);
    this.#runners.set(prog, runner);
    this.#ids.set(id, prog);
    return prog;
  }

  remove(prog: number): void {
    if (prog === 0) return;
    this.#runners.delete(prog);
    if (prog === this.#lastProg) this.#lastRunner = undefined;
    this.#ids.delete(this.idOf(prog));
    this.#kernel.physical.free(prog);
  }

  idOf(prog: number): number {
    return this.#kernel.memory.ram.u32(prog + PROG.id);
  }

  /** The program with an id; 0 when there is none. */
  byId(id: number): number {
    return this.#ids.get(id) ?? 0;
  }

  runner(prog: number): XdpRunner {
    if (prog === this.#lastProg && this.#lastRunner) return this.#lastRunner;
    const runner = this.#runners.get(prog);
    this.#lastProg = prog;
    this.#lastRunner = runner;
    if (runner) return runner;
    const address = hex64(this.#kernel.memory.ram.physToVirt(prog));
    throw new InputError(`no engine for the program at ${address}`);
  }
}
