/**
 * The trace of A64 code: the kernel's CPU stops where each BPF instruction's code begins, and registers are
 * read through the JIT's register map.
 *
 * A generator from outside says nothing about its code: then it is all executed instructions in a row.
 * Left out: a jump to the code behind an instruction without code counts as one to that instruction.
 */
import { hex64 } from '../../common/bytes.js';
import { print } from '../../a64/print.js';
import { disassemble } from '../../bpf/disassemble.js';
import type { XlatedFunction } from '../../bpf/program.js';
import { NZCV, SP, type Cpu } from '../../cpu/cpu.js';
import { PROFILES } from '../../jit/profiles.js';
import type { JitImage } from '../../jit/program.js';
import type { FuzzCase } from './case.js';
import type { Generated, KernelRunner } from './jit-engine.js';
import type { LinkedCase } from './workbench.js';
import { MOST_STEPS, TraceRecorder, type Trace, type TraceStep } from './trace.js';

type Position = Omit<TraceStep, 'effect'>;

export function traceKernel(runner: KernelRunner, fuzzCase: FuzzCase): Trace {
  const { linked, programs, refusal } = runner.place(fuzzCase);
  runner.area.publish();
  const { workbench, kernel } = runner;
  const [cpu] = kernel.cpus;
  const recorder = new TraceRecorder(workbench, linked);
  const map = PROFILES[kernel.bpf.profile.version].registers.bpf;
  const registers = (at: Cpu): bigint[] =>
    Array.from({ length: 11 }, (_, r) => at.getX(map[r] ?? 0));
  const undo = [...positions(linked, programs)].map(([address, here]) =>
    kernel.executor.watch(kernel.cpus, address, (at) => {
      const values = registers(at);
      for (const position of here) recorder.record(position, values);
    }),
  );
  const isKnown = programs.every(({ jit }) => jit !== undefined);
  try {
    workbench.reset(linked);
    if (!isKnown) cpu?.startTrace();
    const end = refusal ?? runner.call(linked, programs);
    const code = isKnown ? prologues(programs) : executed(cpu);
    return { steps: recorder.finish(end), code, end };
  } finally {
    for (const remove of undo) remove();
    runner.area.clear();
  }
}

/** Where which instructions begin. */
function positions(linked: LinkedCase, programs: readonly Generated[]): Map<bigint, Position[]> {
  const found = new Map<bigint, Position[]>();
  for (const [program, { jit }] of programs.entries()) {
    for (const [fn, image] of (jit?.functions ?? []).entries()) {
      for (const slot of firstSlots(linked.programs[program]?.functions[fn])) {
        const from = image.insnOffsets[slot] ?? 0;
        const to = image.insnOffsets[slot + 1] ?? 0;
        const address = image.base + BigInt(from);
        const here = found.get(address) ?? [];
        found.set(address, [...here, { program, fn, slot, code: listWords(image, from, to) }]);
      }
    }
  }
  return found;
}

/** Where instructions begin: not at the second slots of ld_imm64. */
function firstSlots(fn: XlatedFunction | undefined): number[] {
  return fn ? disassemble(fn.insns).map(({ index }) => index) : [];
}

function listWords({ base, words }: JitImage, from: number, to: number): string[] {
  return Array.from(words.subarray(from / 4, to / 4), (word, i) =>
    print(word, base + BigInt(from + 4 * i)),
  );
}

/** What is executed before the first instruction. */
function prologues([main]: readonly Generated[]): string[] {
  const image = main?.jit?.functions[0];
  return image ? listWords(image, 0, image.prologueLength) : [];
}

function nameOf(register: number): string {
  if (register === SP) return 'sp';
  return register === NZCV ? 'nzcv' : `x${register}`;
}

function executed(cpu: Cpu | undefined): string[] {
  const entries = cpu?.stopTrace() ?? [];
  return entries.slice(0, MOST_STEPS).map(({ pc, word, changes }) => {
    const changed = changes.map(({ register, value }) => `${nameOf(register)}=${hex64(value)}`);
    return [print(word, pc).padEnd(32), ...changed].join(' ').trimEnd();
  });
}
