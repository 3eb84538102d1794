/**
 * Attaches programs to functions of an emulated kernel as a case says, calls, and tells what happened.
 *
 * Kernel functions are traced through their patch site and ftrace, functions of BPF programs through
 * bpf_arch_text_poke. The tracing programs are loaded once: each calls a function of the lab that looks at the
 * ctx array and says what the program is to return. The caller fills x19..x29 and looks at them, and at sp,
 * afterwards; everything called destroys what it may.
 */
import { hex64 } from '../../common/bytes.js';
import { KernelError } from '../../common/errors.js';
import { encodeSlots, makeSlot, type Slot } from '../../bpf/instruction.js';
import type { XlatedProgram } from '../../bpf/program.js';
import type { KernelVersion } from '../../jit/profile.js';
import type { Attachment, ProgramTarget } from '../../kernel/bpf/bpf.js';
import type { KernelProgram } from '../../kernel/bpf/program.js';
import { KernelOops } from '../../kernel/executor.js';
import type { Kernel } from '../../kernel/kernel.js';
import type { Prototype } from '../../kernel/prototype.js';
import { CLOBBERED } from './helpers.js';
import { dirtyTasks, FRESH, lostRegisters } from './preserved.js';
import {
  groupOf,
  PROGRAM_ARGUMENTS,
  PROGRAMS_PER_KIND,
  type TrampolineCase,
} from './trampoline-case.js';
import { originalLine, passArguments, reportLine, type Events } from './trampoline-semantics.js';

const MOV64_REG = 0xbf;
const MOV64_IMM = 0xb7;
const LDX_DW = 0x79;
const CALL = 0x85;
const EXIT = 0x95;
const GET_ATTACH_COOKIE = 174;
const TARGET = 'lab_traced';
const EVENT = 'lab_trace_event';
const ORIGINAL = 'lab_trace_original';
/** Farther than BL reaches. */
const FAR_BYTES = 256n << 20n;
/** Sizes that leave no room for an image. */
const FILLERS = [1 << 14, 1 << 10, 64] as const;
const JUNK = 0xdead_0000_0000_0000n;
const GROUPS = [0, 1, 2, 3] as const;

interface Running {
  readonly fuzzCase: TrampolineCase;
  /** Link that each loaded program stands for. */
  readonly links: ReadonlyMap<number, number>;
  /** Links that have run at entry. */
  readonly entered: Set<number>;
  readonly events: string[];
  /** Where the function begins. */
  readonly address: bigint;
}

export class TrampolineRunner {
  readonly kernel: Kernel;
  readonly version: KernelVersion;
  /** By group, then by number. */
  readonly #programs: readonly (readonly KernelProgram[])[];
  /** Functions of BPF programs, by number of arguments. */
  readonly #targets: readonly KernelProgram[];
  #running: Running | undefined;

  /**
   * One per kernel: it defines functions there.
   * @param apart trampolines are out of BL range of the BPF programs that they are attached to
   */
  constructor(kernel: Kernel, apart = false) {
    this.kernel = kernel;
    this.version = kernel.bpf.profile.version;
    kernel.executor.budget = 1_000_000;
    kernel.executor.freshRegisters = FRESH;
    kernel.define(
      {
        name: TARGET,
        prototype: `u64 ${TARGET}()`,
        parameters: 8,
        errorInjection: true,
        body: () => this.#original(true),
      },
      {
        name: ORIGINAL,
        prototype: `u64 ${ORIGINAL}(u64 r1, u64 r2, u64 r3, u64 r4, u64 r5)`,
        parameters: 5,
        notrace: true,
        body: () => this.#original(false),
      },
      {
        name: EVENT,
        prototype: `u64 ${EVENT}(u64 *ctx, u64 program, u64 ip, u64 cookie)`,
        parameters: 4,
        notrace: true,
        body: (_kernel, ctx = 0n, program = 0n, ip = 0n, cookie = 0n) =>
          this.#event(ctx, Number(program), ip, cookie),
      },
    );
    this.#programs = GROUPS.map((group) =>
      Array.from({ length: PROGRAMS_PER_KIND }, (_, i) =>
        kernel.bpf.load(this.#tracingProgram(group, PROGRAMS_PER_KIND * group + i), {
          sleepable: (group & 1) !== 0,
        }),
      ),
    );
    this.#targets = Array.from({ length: PROGRAM_ARGUMENTS + 1 }, (_, count) =>
      this.#targetProgram(count),
    );
    if (apart) this.#moveImages();
  }

  /** Fills up the memory for images, so that those that follow lie far behind. */
  #moveImages(): void {
    const { images } = this.kernel.bpf;
    this.kernel.vmalloc.take(FAR_BYTES, 4096n);
    const entry = this.#targets[0]?.entry ?? 0n;
    for (const size of FILLERS) while (images.alloc(size) < entry + FAR_BYTES);
  }

  /** What happens when a case is attached, called, taken off and called again. */
  run(fuzzCase: TrampolineCase): Events {
    const target = this.#target(fuzzCase);
    const address = typeof target === 'string' ? this.kernel.symbol(target) : target.program.entry;
    const used = new Map<number, number>();
    const links = new Map<number, number>();
    const events: string[] = [];
    const attached: Attachment[] = [];
    try {
      for (const [number, link] of fuzzCase.links.entries()) {
        const group = groupOf(link);
        const index = used.get(group) ?? 0;
        used.set(group, index + 1);
        const program = this.#programs[group]?.[index];
        if (!program) throw new RangeError(`no program ${index} in group ${group}`);
        links.set(PROGRAMS_PER_KIND * group + index, number);
        attached.push(this.kernel.bpf.attach(program, link.kind, target, link.cookie));
      }
      this.#running = { fuzzCase, links, events, address, entered: new Set() };
      events.push(this.#call(fuzzCase, address));
    } catch (error) {
      if (!(error instanceof KernelError || error instanceof RangeError)) throw error;
      const name = error instanceof KernelError ? error.errno : error.message;
      return [...events, `attach: ${name}`];
    } finally {
      for (const each of attached) each.detach();
      this.#running = undefined;
    }
    return events;
  }

  #call(fuzzCase: TrampolineCase, address: bigint): string {
    const { registers, stack } = passArguments(fuzzCase);
    // what does not fit x0..x7 whole leaves the rest of them unused
    const unused = stack.length > 0 ? Array.from({ length: 8 - registers.length }, () => 0n) : [];
    dirtyTasks(this.kernel);
    try {
      const result = this.kernel.call(address, ...registers, ...unused, ...stack);
      return `returned ${hex64(result)}${lostRegisters(this.kernel, stack.length)}`;
    } catch (error) {
      if (error instanceof KernelOops || error instanceof KernelError) return error.message;
      throw error;
    }
  }

  /** The function that the case is about, with the model that it says. */
  #target({ target, arguments: args }: TrampolineCase): string | ProgramTarget {
    if (target === 'program') {
      const program = this.#targets[args.length];
      if (!program) throw new RangeError(`no program with ${args.length} arguments`);
      return { program };
    }
    const prototype: Prototype = {
      name: TARGET,
      parameters: args.map(({ size, struct }, i) => ({ name: `a${i}`, type: 'u64', size, struct })),
      returnType: 'u64',
      returnSize: 8,
    };
    this.kernel.text.prototypes.set(this.kernel.symbol(TARGET), prototype);
    return TARGET;
  }

  /** The original body runs: what did it get? */
  #original(isKernelFunction: boolean): bigint {
    const running = this.#running;
    const cpu = this.kernel.cpus[this.kernel.currentCpu];
    if (!running || !cpu) return 0n;
    const { registers, stack } = passArguments(running.fuzzCase);
    const got = registers.map((_, i) => cpu.getX(i));
    const { memory } = this.kernel;
    const onStack = stack.map((_, i) => {
      const address = cpu.sp + BigInt(8 * i);
      return memory.faultAt(address, 8, 'read') ? -1n : memory.read64(address);
    });
    running.events.push(originalLine(got, isKernelFunction ? onStack : []));
    this.#clobber();
    return running.fuzzCase.result;
  }

  /** A tracing program runs: what does it see? Gives what it returns. */
  #event(ctx: bigint, program: number, ip: bigint, cookie: bigint): bigint {
    const running = this.#running;
    const number = running?.links.get(program);
    const link = running?.fuzzCase.links[number ?? -1];
    if (!running || number === undefined || !link) return 0n;
    const { memory } = this.kernel;
    const word = (index: number): bigint => {
      const address = BigInt.asUintN(64, ctx + BigInt(8 * index));
      return memory.faultAt(address, 8, 'read') ? -1n : memory.read64(address);
    };
    const { entered, fuzzCase } = running;
    const again = entered.has(number);
    entered.add(number);
    const when = link.kind === 'fexit' || (link.kind === 'fsession' && again) ? 'exit' : 'entry';
    const slots = passArguments(fuzzCase).context.length;
    const sees = when === 'exit' || link.kind === 'fmod_ret';
    running.events.push(
      reportLine({
        link: number,
        when,
        count: word(-1),
        context: Array.from({ length: slots }, (_, i) => word(i)),
        result: sees ? word(slots) : undefined,
        ip: link.ip ? (ip === running.address ? 'function' : hex64(ip)) : '',
        cookie,
      }),
    );
    this.#clobber();
    return link.result;
  }

  #clobber(): void {
    const cpu = this.kernel.cpus[this.kernel.currentCpu];
    for (const register of CLOBBERED) cpu?.setX(register, JUNK + BigInt(register));
  }

  #callOf(address: bigint): Slot {
    return makeSlot(CALL, { imm: Number(address - this.kernel.bpf.host.callBase) });
  }

  #tracingProgram(group: number, number: number): XlatedProgram {
    const { host } = this.kernel.bpf;
    const cookie = host.helperAddress(GET_ATTACH_COOKIE);
    if (cookie === undefined) throw new RangeError('no bpf_get_attach_cookie');
    const move = (dst: number, src: number): Slot => makeSlot(MOV64_REG, { dst, src });
    const slots = [
      move(6, 1),
      (group & 2) !== 0
        ? makeSlot(LDX_DW, { dst: 7, src: 1, off: -16 })
        : makeSlot(MOV64_IMM, { dst: 7 }),
      this.#callOf(cookie),
      move(1, 6),
      makeSlot(MOV64_IMM, { dst: 2, imm: number }),
      move(3, 7),
      move(4, 0),
      this.#callOf(this.kernel.symbol(EVENT)),
      makeSlot(EXIT),
    ];
    return programOf(`trace_${number}`, 'tracing', slots);
  }

  #targetProgram(count: number): KernelProgram {
    const name = `traced_${count}`;
    const slots = [this.#callOf(this.kernel.symbol(ORIGINAL)), makeSlot(EXIT)];
    const parameters = Array.from({ length: count }, (_, i) => `u64 a${i}`).join(', ');
    return this.kernel.bpf.load(programOf(name, 'raw', slots), {
      prototypes: [`u64 ${name}(${parameters})`],
    });
  }
}

function programOf(
  name: string,
  type: XlatedProgram['type'],
  slots: readonly Slot[],
): XlatedProgram {
  return { name, type, functions: [{ name, insns: encodeSlots(slots), stackDepth: 0 }] };
}
