/**
 * Runs the image of a JIT record on bare CPU engines, two of them side by side, and compares R0 with the
 * record's.
 *
 * There is no kernel around it: memory holds the image where the record has it, its context and a stack;
 * the program returns to an address where nothing is run. Programs with calls have no `exec`. Each engine
 * has a memory of its own that is kept from record to record.
 *
 * Usage:
 *   const machines = new ExecMachines([embeddedFactory, unicorn]);
 *   machines.difference(image, exec);   // undefined: r0 is the expected one, the engines agree
 */
import { viewOf } from '../../common/bytes.js';
import type { Cpu, Registers, Stop } from '../../cpu/cpu.js';
import type { CpuFactory } from '../../cpu/engines.js';
import { describeFault } from '../../cpu/fault.js';
import { compareRuns, printDifference, type Side } from '../../cpu/lockstep.js';
import { Memory, PAGE_SIZE, type Region } from '../../cpu/memory.js';
import type { JitImage } from '../../jit/program.js';
import type { ExecExpectation } from '../../jit/vectors/program.js';

const MEMORY = 1 << 20;
const STACK = { address: 0xffff_8000_9000_0000n, size: 4 * PAGE_SIZE };
/** Where the program returns to: x30. */
const RETURN = 0xffff_8000_8000_0000n;
const BUDGET = 10_000_000;

interface Machine extends Side {
  readonly memory: Memory;
}

export class ExecMachines {
  readonly #machines: readonly Machine[];

  /** @param factories one engine, or two to be compared */
  constructor(factories: readonly CpuFactory[]) {
    this.#machines = factories.map((factory) => {
      const memory = new Memory(MEMORY);
      memory.map({ name: 'stack', ...STACK, permissions: 'rw' });
      memory.map({ name: 'return', address: RETURN, size: PAGE_SIZE, permissions: 'rx' });
      return { name: factory.name, memory, cpu: factory.create(memory) };
    });
  }

  /** What is not as the record has it, in one line. */
  difference(image: JitImage, exec: ExecExpectation): string | undefined {
    const placed = this.#machines.map(({ memory }) => place(memory, image, exec));
    try {
      const start = (): void => this.#machines.forEach(({ cpu }, i) => begin(cpu, exec, placed[i]));
      start();
      const [first, second] = this.#machines;
      if (!first) return undefined;
      if (!second)
        return outcome(first.cpu, first.cpu.run({ until: RETURN, budget: BUDGET }), exec);
      const result = compareRuns(first, second, start, { until: RETURN, budget: BUDGET });
      if (result.kind === 'differ') return printDifference(result);
      return outcome(first.cpu, result.stop, exec);
    } finally {
      this.#machines.forEach(({ memory }, i) => placed[i]?.forEach((each) => memory.unmap(each)));
    }
  }

  close(): void {
    for (const { cpu } of this.#machines) cpu.close();
  }
}

/** Image and context. */
function place(memory: Memory, image: JitImage, exec: ExecExpectation): [Region, Region] {
  const bytes = new Uint8Array(image.jitedLength + 8);
  const view = viewOf(bytes);
  image.words.forEach((word, i) => view.setUint32(4 * i, word, true));
  view.setBigUint64(image.jitedLength, image.pltTarget, true);
  const text = memory.map({
    name: image.name,
    address: image.base,
    size: bytes.length,
    permissions: 'rx',
  });
  memory.pokeBytes(image.base, bytes);
  const context = memory.map({
    name: 'context',
    address: exec.contextAddress,
    size: exec.context.length,
    permissions: 'rw',
  });
  return [text, context];
}

/** Everything as before the first instruction. */
function begin(cpu: Cpu, exec: ExecExpectation, placed: readonly Region[] = []): void {
  const { memory } = cpu;
  memory.writeBytes(exec.contextAddress, exec.context);
  memory.writeBytes(STACK.address, new Uint8Array(STACK.size));
  for (const { address, size } of placed) cpu.sync(address, address + BigInt(size));
  const x = Array.from({ length: 31 }, () => 0n);
  x[0] = exec.contextAddress;
  x[30] = RETURN;
  const system: Registers['system'] = { sp_el0: 0n, tpidr_el1: 0n, tpidr_el2: 0n, tpidr_el0: 0n };
  cpu.loadRegisters({
    x,
    sp: STACK.address + BigInt(STACK.size),
    pc: placed[0]?.address ?? 0n,
    nzcv: 0,
    system,
  });
}

function outcome(cpu: Cpu, stop: Stop, exec: ExecExpectation): string | undefined {
  if (stop.kind !== 'until') {
    const detail = stop.kind === 'fault' ? `: ${describeFault(stop.fault)}` : '';
    return `run on ${cpu.engine}: ${stop.kind}${detail} at 0x${cpu.pc.toString(16)}`;
  }
  const r0 = cpu.getX(0);
  if (r0 === exec.r0) return undefined;
  return `run on ${cpu.engine}: r0 0x${exec.r0.toString(16)}, ours 0x${r0.toString(16)}`;
}
