/**
 * BPF programs of type kprobe: called at a kprobe, at a kretprobe, or at the entries or returns of many functions
 * (kprobe_multi, which is made of fprobes).
 *
 * The program runs as the handler of the probe does: below the stack of the interrupted text, with struct pt_regs as
 * context and a run context that holds its cookie and what bpf_get_func_ip gives. One runs at a time on a CPU
 * (bpf_prog_active); another that would run inside is left out and counted as a miss. Its result is ignored.
 *
 *   kprobe, kretprobe   sp ->  run context | pt_regs | interrupted sp
 *   kprobe_multi        sp ->  run context | interrupted sp; pt_regs are per CPU, filled from ftrace_regs
 *
 * Usage:
 *   const link = kernel.bpf.attachKprobe(program, { function: 'bpf_fentry_test1', retprobe: true });
 *   link.detach();
 *
 * Reference: kernel/trace/bpf_trace.c (trace_call_bpf, bpf_get_func_ip_kprobe, bpf_kprobe_multi_link_attach,
 * kprobe_multi_link_prog_run), kernel/trace/trace_kprobe.c (create_local_trace_kprobe), kernel/bpf/syscall.c
 * (bpf_perf_link_attach). Left out: sessions, bpf_override_return, several programs on one perf event, the
 * exception frame record of kernel_entry, x9 to x28 in kprobe_multi (ftrace does not save them; they are 0),
 * that kernels before 6.7 do not count the miss of a kprobe program (only a kprobe_multi program can be around it).
 */
import { KernelError } from '../../common/errors.js';
import type { Cpu } from '../../cpu/cpu.js';
import { parseFilterPattern } from '../ftrace/glob.js';
import type { Kernel } from '../kernel.js';
import { BPF_PROBE_RUN_CTX, FTRACE_REGS, PT_REGS, TASK_STRUCT } from '../offsets.js';
import type { Fprobe, FprobeEvent } from '../trace/fprobe.js';
import { account, BPF_PROG_STATS, lock, startTime, type EnterExitParts } from './enter-exit.js';
import type { KernelProgram } from './program.js';

/** PSTATE of kernel code below N, Z, C and V: EL1h. */
const PSR_MODE_EL1h = 5n;

/** Registers that struct ftrace_regs has in front: x0 to x8. */
const FTRACE_REGISTERS = 9;

export interface KprobeOptions {
  readonly function: string;
  /** Bytes from its first one. Default 0; a kretprobe takes no other. */
  readonly offset?: number;
  /** Called when the function returns. Default false. */
  readonly retprobe?: boolean;
  /** What bpf_get_attach_cookie gives. Default 0. */
  readonly cookie?: bigint;
}

export interface KprobeMultiOptions {
  /** Names, or a pattern for those that can be traced. */
  readonly functions: readonly string[] | string;
  /** Called when the functions return. Default false. */
  readonly retprobe?: boolean;
  /** What bpf_get_attach_cookie gives, in the order of the names. Default 0. */
  readonly cookies?: readonly bigint[];
}

/** A program in its place; `detach` takes it away again. */
export interface Link {
  readonly program: KernelProgram;
  detach(): void;
}

/** What a program is called with. */
interface Run {
  readonly program: KernelProgram;
  /** Address of its struct pt_regs. */
  readonly regs: bigint;
  /** The function, 0 inside of one. */
  readonly entryIp: bigint;
  readonly cookie: bigint;
}

export class ProbePrograms {
  readonly #kernel: Kernel;
  readonly #parts: EnterExitParts;
  /** Per-CPU int bpf_prog_active, made with the first link. */
  #active: bigint | undefined;
  /** Per-CPU struct pt_regs bpf_kprobe_multi_pt_regs. */
  #multiRegs: bigint | undefined;

  constructor(kernel: Kernel, parts: EnterExitParts) {
    this.#kernel = kernel;
    this.#parts = parts;
  }

  /** Throws KernelError: EINVAL, ENOENT (no such function). */
  attachKprobe(program: KernelProgram, options: KprobeOptions): Link {
    const { function: name, offset = 0, retprobe = false, cookie = 0n } = options;
    this.#check(program, false);
    const { kprobes, kretprobes, symbols } = this.#kernel;
    const symbol = symbols.find(name);
    if (!symbol) throw new KernelError('ENOENT', `${program.name}: there is no function ${name}`);
    const address = symbol.address + BigInt(offset);
    // KPROBE_FLAG_ON_FUNC_ENTRY
    const entryIp = symbols.lookup(address)?.offset === 0 ? address : 0n;
    const hit = (cpu: Cpu): void =>
      this.#interrupt(cpu, PT_REGS.size, (regs) => {
        saveRegisters(this.#kernel, cpu, regs);
        this.#run(cpu, { program, regs, entryIp, cookie });
      });
    if (retprobe) {
      const probe = { name: program.name, address, handler: hit };
      kretprobes.register(probe);
      return this.#link(program, () => kretprobes.unregister(probe));
    }
    const probe = { name: program.name, address, pre: hit };
    kprobes.register(probe);
    return this.#link(program, () => kprobes.unregister(probe));
  }

  /**
   * Throws KernelError: EOPNOTSUPP (no fprobes), EINVAL, ENOENT (nothing matches the pattern), ESRCH (a name that
   * cannot be traced, or comes twice).
   */
  attachKprobeMulti(program: KernelProgram, options: KprobeMultiOptions): Link {
    const { functions, retprobe = false, cookies } = options;
    const { fprobes } = this.#kernel;
    fprobes.checkSupported(program.name);
    this.#check(program, true);
    const names = typeof functions === 'string' ? this.#matching(program, functions) : functions;
    if (names.length === 0 || (cookies && cookies.length !== names.length)) {
      const why = names.length === 0 ? 'no functions' : 'not one cookie for each function';
      throw new KernelError('EINVAL', `${program.name}: ${why}`);
    }
    const cookieOf = new Map(
      names.map((name, i) => [this.#traceable(program, name), cookies?.[i] ?? 0n]),
    );
    if (cookieOf.size < names.length) {
      throw new KernelError('ESRCH', `${program.name}: a function is named twice`);
    }
    const hit = (_kernel: unknown, event: FprobeEvent): void =>
      this.#hitMulti(program, event, cookieOf.get(event.address) ?? 0n);
    const probe: Fprobe = { name: program.name, ...(retprobe ? { exit: hit } : { entry: hit }) };
    fprobes.register(probe, names);
    return this.#link(program, () => fprobes.unregister(probe));
  }

  #link(program: KernelProgram, unregister: () => void): Link {
    program.hold();
    const detach = (): void => {
      unregister();
      program.put();
    };
    return { program, detach };
  }

  #check(program: KernelProgram, multi: boolean): void {
    const refuse = (why: string): KernelError =>
      new KernelError('EINVAL', `${program.name}: ${why}`);
    const { type } = program.xlated;
    if (type !== 'kprobe') throw refuse(`a program of type ${type} cannot be attached to a probe`);
    if (program.sleepable) throw refuse('programs of kprobes cannot sleep');
    if (program.kprobeMulti !== multi) {
      throw refuse(`its expected attach type is ${multi ? 'not ' : ''}BPF_TRACE_KPROBE_MULTI`);
    }
  }

  /** What libbpf makes of a pattern. */
  #matching(program: KernelProgram, pattern: string): string[] {
    const { matches } = parseFilterPattern(pattern);
    const names = this.#kernel.ftrace.available().filter((name) => matches(name));
    if (names.length > 0) return names;
    throw new KernelError('ENOENT', `${program.name}: no function matches ${pattern}`);
  }

  /** ftrace_lookup_symbols: the address of a function with a patch site. */
  #traceable(program: KernelProgram, name: string): bigint {
    const { symbols, ftrace } = this.#kernel;
    const address = symbols.find(name)?.address;
    if (address !== undefined && ftrace.location(address) !== undefined) return address;
    throw new KernelError('ESRCH', `${program.name}: ${name} cannot be traced`);
  }

  /** kprobe_multi_link_prog_run. */
  #hitMulti(program: KernelProgram, { address, fregs }: FprobeEvent, cookie: bigint): void {
    const kernel = this.#kernel;
    const cpu = kernel.cpus[kernel.currentCpu];
    if (!cpu) throw new RangeError(`there is no CPU ${kernel.currentCpu}`);
    this.#multiRegs ??= kernel.allocPercpu(PT_REGS.size);
    const regs = kernel.perCpuAddress(this.#multiRegs, kernel.currentCpu);
    this.#interrupt(cpu, 0, () =>
      this.#run(cpu, { program, regs, entryIp: address, cookie }, () =>
        copyFtraceRegs(kernel, fregs, regs),
      ),
    );
  }

  /** Runs something that leaves no trace in the registers, `bytes` below the stack pointer. */
  #interrupt(cpu: Cpu, bytes: number, run: (sp: bigint) => void): void {
    const interrupted = cpu.saveRegisters();
    cpu.sp -= BigInt(bytes);
    run(cpu.sp);
    cpu.loadRegisters(interrupted);
  }

  /** trace_call_bpf. `prepare` fills in pt_regs that only one program may use at a time. */
  #run(cpu: Cpu, run: Run, prepare?: () => void): void {
    const kernel = this.#kernel;
    const { memory } = kernel;
    const { program, regs, entryIp, cookie } = run;
    this.#active ??= kernel.allocPercpu(4);
    const active = kernel.perCpuAddress(this.#active, kernel.currentCpu);
    const nesting = memory.read32(active);
    if (nesting > 0) {
      this.#countMiss(program);
      return;
    }
    memory.write32(active, nesting + 1);
    prepare?.();
    lock(kernel, 'rcu_read_lock_nesting', 1);
    cpu.sp -= BigInt(BPF_PROBE_RUN_CTX.size);
    const runContext = cpu.sp;
    memory.write64(runContext + BigInt(BPF_PROBE_RUN_CTX.bpf_cookie), cookie);
    memory.write64(runContext + BigInt(BPF_PROBE_RUN_CTX.entry_ip), entryIp);
    const slot = kernel.current + BigInt(TASK_STRUCT.bpf_ctx);
    const outer = memory.read64(slot);
    memory.write64(slot, runContext);
    const start = startTime(kernel, this.#parts);
    kernel.invokeText(program.entry, regs, program.address + this.#insnsi);
    account(kernel, this.#parts, program.address, start);
    memory.write64(slot, outer);
    lock(kernel, 'rcu_read_lock_nesting', -1);
    memory.write32(active, nesting);
  }

  /** bpf_func takes the instructions as second argument, for the interpreter. */
  get #insnsi(): bigint {
    return BigInt(this.#parts.profile.bpfProg.insnsi);
  }

  #countMiss(program: KernelProgram): void {
    const { memory } = this.#kernel;
    const stats = memory.read64(program.address + BigInt(this.#parts.profile.bpfProg.stats));
    const misses = stats + BigInt(BPF_PROG_STATS.misses);
    memory.write64(misses, memory.read64(misses) + 1n);
  }
}

/** The registers of the interrupted text, as kernel_entry saves them; sp is where `cpu` was interrupted. */
function saveRegisters({ memory }: Kernel, cpu: Cpu, regs: bigint): void {
  for (let n = 0; n <= 30; n++) memory.write64(regs + BigInt(8 * n), cpu.getX(n));
  memory.write64(regs + BigInt(PT_REGS.sp), regs + BigInt(PT_REGS.size));
  memory.write64(regs + BigInt(PT_REGS.pc), cpu.pc);
  memory.write64(regs + BigInt(PT_REGS.pstate), (BigInt(cpu.nzcv) << 28n) | PSR_MODE_EL1h);
  for (let at = PT_REGS.orig_x0; at < PT_REGS.size; at += 8) memory.write64(regs + BigInt(at), 0n);
}

/** ftrace_partial_regs. */
function copyFtraceRegs({ memory }: Kernel, fregs: bigint, regs: bigint): void {
  const copy = (from: number, to: number): void =>
    memory.write64(regs + BigInt(to), memory.read64(fregs + BigInt(from)));
  for (let n = 0; n < FTRACE_REGISTERS; n++) copy(FTRACE_REGS.regs + 8 * n, 8 * n);
  copy(FTRACE_REGS.fp, PT_REGS.fp);
  copy(FTRACE_REGS.lr, PT_REGS.lr);
  copy(FTRACE_REGS.sp, PT_REGS.sp);
  copy(FTRACE_REGS.pc, PT_REGS.pc);
}
