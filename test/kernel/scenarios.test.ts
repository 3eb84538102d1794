/**
 * The stack that programs of booted kernels found at their entry, against that of the same attachments in the
 * lab: the same things at the same places. (`trampolab check` compares the images themselves.)
 *
 * The samples of test/vectors/kernel always run; all files do where the vectors are beside the project.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { KernelVersion } from '../../src/jit/profile.js';
import type { Attachment } from '../../src/kernel/bpf/bpf.js';
import type { Trampoline, TrampolineLink } from '../../src/kernel/bpf/trampoline.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import {
  attachScenarioPrograms,
  defineFunctions,
  targetOf,
  type ScenarioAttachment,
} from '../../src/lab/check/booted/scenario-attach.js';
import { readScenario } from '../../src/lab/check/booted/scenario-file.js';
import { readImage } from '../../src/lab/check/booted/scenario-image.js';
import { bootLab } from '../../src/node/boot.js';
import { PACKAGE_ROOT } from '../../src/node/files.js';
import { factories } from '../helpers/cpus.js';
import { sharedFile } from '../helpers/shared.js';
import { inUse } from '../helpers/tracing.js';

/** Registers and stack when a traced call came to a symbol. */
interface Snapshot {
  readonly pc: string;
  readonly sym: string;
  readonly sp: string;
  readonly stack: readonly string[];
  readonly regs: readonly string[];
}

interface Trace {
  readonly entry: string;
  readonly snaps: readonly Snapshot[];
}

const FOLDERS: readonly (readonly [string, KernelVersion])[] = [
  ['6.12-max', '6.12'],
  ['7.2-max', '7.3'],
];
const SAMPLES = join(PACKAGE_ROOT, 'test', 'vectors', 'kernel');

/** The scenario files of a folder with traced calls: all of them if they are there, or else the samples. */
function filesOf(folder: string): string[] {
  const place = sharedFile('vectors', 'kernel', folder);
  const path = place ?? join(SAMPLES, folder);
  const names = readdirSync(path).filter((name) => /^scen\..*\.json$/.test(name));
  return names.map((name) => join(path, name));
}

interface Entry {
  readonly regs: readonly bigint[];
  readonly sp: bigint;
  readonly fn: bigint;
}

/** A value as it follows from the registers at the function's entry. */
function meaning(value: bigint, entry: Entry): string {
  const { regs, sp, fn } = entry;
  if (value === fn) return 'function';
  if (value === fn + 8n) return 'function+8';
  const register = [29, 30].find((n) => regs[n] === value);
  if (register !== undefined) return `x${register}`;
  const distance = BigInt.asIntN(64, value - sp);
  if (distance > -4096n && distance < 4096n) return `sp${distance < 0n ? '' : '+'}${distance}`;
  return `0x${value.toString(16)}`;
}

/** What a frame holds, field by field; what nobody has written yet is left out. */
function frameMeaning(
  attached: Attachment,
  kind: string,
  read: (offset: number) => bigint,
  sp: bigint,
  entry: Entry,
): object {
  const frame = attached.trampoline.image?.code.frame;
  if (!frame) throw new Error('no image');
  const at = (offset: number): string => meaning(read(offset), entry);
  const parent = frame.parentRecord ?? 0;
  return {
    sp: sp - entry.sp,
    cookie: at(frame.runCtx),
    saved: at(frame.runCtx + 8),
    ip: frame.ip === undefined ? '' : at(frame.ip),
    count: at(frame.nregs),
    arguments: Array.from({ length: frame.argumentSlots }, (_, i) => at(frame.args + 8 * i)),
    retval: frame.retval === undefined || kind === 'fentry' ? '' : at(frame.retval),
    saved19: at(frame.x19),
    saved20: at(frame.x20),
    self: [at(frame.selfRecord), at(frame.selfRecord + 8)],
    parent: [at(parent), at(parent + 8)],
  };
}

/** One link of each program: of a session the one at entry. */
function firstLinks({ links }: Trampoline): readonly TrampolineLink[] {
  return links.filter(
    ({ program }, i) => links.findIndex((each) => each.program === program) === i,
  );
}

/** Calls the function in the lab with the registers of a trace; the frame at each program's entry. */
function labFrames(
  kernel: Kernel,
  built: ScenarioAttachment,
  name: string,
  from: Snapshot,
): Map<string, object> {
  const { trampoline } = built.last;
  const theirs = from.regs.map(BigInt);
  const delta = (value: bigint): bigint => BigInt.asIntN(64, value - BigInt(from.sp));
  const fn = kernel.symbol(name);
  const frames = new Map<string, object>();
  let entry: Entry | undefined;
  const ends = [
    kernel.executor.watch(kernel.cpus, fn, (cpu) => {
      cpu.sp -= 256n;
      // what the frame record of a caller would be: anything but an argument's value
      for (const [n, value] of theirs.entries()) {
        if (n === 30) continue;
        const near = delta(value) > -4096n && delta(value) < 4096n;
        if (n < 8 || n >= 19) cpu.setX(n, near ? cpu.sp + delta(value) : value);
      }
      for (const [i, value] of from.stack.entries()) {
        kernel.memory.write64(cpu.sp + BigInt(8 * i), BigInt(value));
      }
      const regs = Array.from({ length: 31 }, (_, n) => cpu.getX(n));
      entry = { regs, sp: cpu.sp, fn };
    }),
    ...firstLinks(trampoline).map(({ program, kind }) =>
      kernel.executor.watch(kernel.cpus, program.entry, (cpu) => {
        if (!entry) throw new Error('the function was not entered');
        const read = (offset: number): bigint => kernel.memory.read64(cpu.sp + BigInt(offset));
        const frame = frameMeaning(built.last, kind, read, cpu.sp, entry);
        if (!frames.has(program.name)) frames.set(program.name, frame);
      }),
    ),
  ];
  kernel.call(name, ...theirs.slice(0, 6));
  for (const end of ends) end();
  return frames;
}

/**
 * Registers at the function's entry. Some traces begin in the trampoline only: two instructions later, x9 is
 * what x30 was.
 */
function entrySnapshot(snaps: readonly Snapshot[], image: bigint): Snapshot | undefined {
  const [first] = snaps;
  if (!first || BigInt(first.pc) !== image) return first;
  const [link, parent] = [BigInt(first.regs[30] ?? 0), first.regs[9] ?? ''];
  return { ...first, pc: `${link - 8n}`, regs: first.regs.map((x, n) => (n === 30 ? parent : x)) };
}

/** Frames that the booted kernel had, by program. */
function bootedFrames(
  built: ScenarioAttachment,
  snaps: readonly Snapshot[],
  first: Snapshot,
): Map<string, object> {
  const { trampoline } = built.last;
  const entry = { regs: first.regs.map(BigInt), sp: BigInt(first.sp), fn: BigInt(first.pc) };
  const frames = new Map<string, object>();
  for (const { program, kind } of firstLinks(trampoline)) {
    const snap = snaps.find(({ sym }) => sym === `prog:${program.name}+0x0`);
    if (!snap) continue;
    const read = (offset: number): bigint => BigInt(snap.stack[offset / 8] ?? -1);
    frames.set(program.name, frameMeaning(built.last, kind, read, BigInt(snap.sp), entry));
  }
  return frames;
}

const RUNS = factories.flatMap(({ name }) =>
  FOLDERS.map(([folder, version]) => [folder, name, version] as const),
);

describe.each(RUNS)('%s on %s', (folder, engine, version) => {
  let kernel: Kernel;
  let frames = 0;
  beforeAll(async () => {
    kernel = await bootLab({ engine, version });
    kernel.call('bpf_fentry_test1', 1n);
  });
  afterAll(() => {
    expect(frames).toBeGreaterThan(0);
    kernel.close();
  });

  it.each(filesOf(folder).map((path) => [/scen\.(\w+)/.exec(path)?.[1] ?? path, path]))(
    'scenario %s',
    (name, path) => {
      const json = JSON.parse(readFileSync(path, 'utf8')) as { traces: readonly Trace[] };
      // 14: the graph tracer has put its own return address in place of the parent's
      if (json.traces.length === 0 || name.includes('graph')) return;
      const scenario = readScenario(name, json);
      defineFunctions(kernel, scenario);
      const before = inUse(kernel);
      const done = new Set<string>();
      for (const state of scenario.states) {
        for (const trampoline of state.trampolines) {
          const image = readImage(trampoline, scenario.programs);
          const target = image && targetOf(scenario, image, state.label);
          if (!image || target?.kind !== 'kernel' || done.has(trampoline.words.join())) continue;
          const traces = json.traces.filter(({ entry, snaps }) => {
            const isEntered = snaps.some(({ pc }) => BigInt(pc) === trampoline.base);
            return isEntered && entry === `${target.name}+0x0`;
          });
          if (traces.length === 0) continue;
          done.add(trampoline.words.join());
          const built = attachScenarioPrograms(kernel, scenario, image, target);
          for (const { snaps } of traces) {
            const first = entrySnapshot(snaps, trampoline.base);
            if (!first) continue;
            const ours = labFrames(kernel, built, target.name, first);
            for (const [program, frame] of bootedFrames(built, snaps, first)) {
              expect(ours.get(program), program).toEqual(frame);
              frames++;
            }
          }
          built.undo();
        }
      }
      expect(inUse(kernel)).toEqual(before);
    },
  );
});
