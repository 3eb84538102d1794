/**
 * Trampolines of booted kernels, rebuilt through attachments in the lab: the same programs attached in the same
 * order to functions with the same prototypes give the same arguments, flags and links; with the booted kernel's
 * addresses in place of ours the image is equal in every word. And the stack at the entry of each program holds
 * the same things at the same places.
 *
 * The samples of test/vectors/kernel always run; all files do where the vectors are beside the project.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hexToBytes } from '../../src/common/bytes.js';
import { encodeSlots, readSlots, type Slot } from '../../src/bpf/instruction.js';
import { rawProgram } from '../../src/bpf/raw-program.js';
import { branchWord } from '../../src/a64/immediates.js';
import { compileTrampoline } from '../../src/jit/trampoline.js';
import type { KernelVersion } from '../../src/jit/profile.js';
import type { AttachKind } from '../../src/kernel/bpf/attach-check.js';
import type { Attachment, ProgramTarget } from '../../src/kernel/bpf/bpf.js';
import { enterName, exitName } from '../../src/kernel/bpf/enter-exit.js';
import type { KernelProgram } from '../../src/kernel/bpf/program.js';
import type { Trampoline, TrampolineLink } from '../../src/kernel/bpf/trampoline.js';
import type { KernelFunction } from '../../src/kernel/function.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { bootLab } from '../../src/node/boot.js';
import { PACKAGE_ROOT } from '../../src/node/files.js';
import { factories } from '../helpers/cpus.js';
import {
  readImage,
  type ScenarioFile,
  type ScenarioImage,
  type ScenarioProgram,
  type Snapshot,
} from '../helpers/kernel-scenarios.js';
import { sharedFile } from '../helpers/shared.js';
import { inUse, textProgram } from '../helpers/tracing.js';

const FOLDERS: readonly (readonly [string, KernelVersion])[] = [
  ['6.12-max', '6.12'],
  ['7.2-max', '7.3'],
];
const SAMPLES = join(PACKAGE_ROOT, 'test', 'vectors', 'kernel');

/** The scenario files of a folder: all of them if they are there, or else the samples. */
function filesOf(folder: string): string[] {
  const place = sharedFile('vectors', 'kernel', folder);
  const path = place ?? join(SAMPLES, folder);
  const names = readdirSync(path).filter((name) => /^scen\..*\.json$/.test(name));
  return names.map((name) => join(path, name));
}

const KINDS: Readonly<Record<number, AttachKind>> = {
  24: 'fentry',
  25: 'fexit',
  26: 'fmod_ret',
  27: 'lsm',
  58: 'fsession',
};

/** A function that the lab's 6.12 text has not. */
const MORE_FUNCTIONS = ['int bpf_fentry_test10(const void *a)'];

/** Pages that stand in for the maps of programs. */
const MAP_SIZE = 4096;
const LD_IMM64 = 0x18;
const CALL = 0x85;
const GET_ATTACH_COOKIE = 174;

/** A function of the booted kernel, from a note like `8: name [('a', 2, 8, ''), ('b', 4, 12, '')]`. */
function noted(note: string): KernelFunction | undefined {
  const [, name, list] = /^\w+: (\w+) \[(.*)\]$/.exec(note) ?? [];
  if (name === undefined || list === undefined) return undefined;
  const structs: Record<string, number> = {};
  const parameters = [...list.matchAll(/\('(\w+)', (\d+), (\d+)/g)].map(([, field, kind, size]) => {
    // BTF_KIND_STRUCT
    if (kind !== '4') return `u${8 * Number(size)} ${field}`;
    structs[`s${size}`] = Number(size);
    return `struct s${size} ${field}`;
  });
  const prototype = `u64 ${name}(${parameters.join(', ')})`;
  return { name, prototype, structs, parameters: 8, body: () => 0n };
}

function defineFunctions(kernel: Kernel, file: ScenarioFile): void {
  const functions = (file.notes ?? []).map(noted).filter((fn) => fn !== undefined);
  kernel.define(...functions.filter(({ name }) => !kernel.symbols.find(name)));
}

/** Scenario 24's target: main(ctx) = 1 + sub(3), sub(x) = 10 * x. */
const TARGET = 'bf16000000000000b7010000030000008510000002000000 0700000001000000 9500000000000000';
const SUB = 'bf10000000000000 270000000a000000 9500000000000000';

function loadTarget(kernel: Kernel): KernelProgram {
  const xlated = rawProgram('target', hexToBytes((TARGET + SUB).replaceAll(' ', '')), {
    type: 'socket_filter',
    stackDepth: 0,
  });
  const prototypes = ['int target(struct __sk_buff *skb)', 'long target_sub_1(long x)'];
  return kernel.bpf.load(xlated, { prototypes });
}

/**
 * The xlated program with this lab's addresses: `map` for what its maps hold, and the one helper that these
 * programs call (the others are instructions).
 */
function loadProgram(
  kernel: Kernel,
  name: string,
  program: ScenarioProgram,
  map: bigint,
): KernelProgram {
  const slots = readSlots(hexToBytes(program.xlated));
  const { host } = kernel.bpf;
  const cookie = Number((host.helperAddress(GET_ATTACH_COOKIE) ?? 0n) - host.callBase);
  const local = slots.map((slot, i): Slot => {
    const reference = (at: number): boolean => slots[at]?.code === LD_IMM64 && slots[at].src !== 0;
    if (reference(i)) return { ...slot, src: 0, imm: Number(BigInt.asIntN(32, map)) };
    if (reference(i - 1)) return { ...slot, imm: Number(BigInt.asIntN(32, map >> 32n)) };
    return slot.code === CALL ? { ...slot, imm: cookie } : slot;
  });
  const xlated = rawProgram(name, encodeSlots(local), { type: 'tracing', stackDepth: 64 });
  return kernel.bpf.load(xlated, {
    sleepable: name.includes('sleep'),
    ...(program.eat === 27 ? { lsm: 'mac' as const } : {}),
  });
}

interface Built {
  readonly last: Attachment;
  undo(): void;
}

/** Attaches what `image` calls, in the order of loading. */
function attachAll(
  kernel: Kernel,
  file: ScenarioFile,
  image: ScenarioImage,
  target: string | ProgramTarget,
): Built {
  const map = kernel.kmalloc(MAP_SIZE);
  const undo = [(): void => kernel.kfree(map)];
  let last: Attachment | undefined;
  for (const [name, program] of Object.entries(file.progs)) {
    const found = image.calls.find((call) => call.name === name);
    if (!found) continue;
    const loaded = loadProgram(kernel, name, program, map);
    const kind = KINDS[program.eat] ?? 'fentry';
    const attached = kernel.bpf.attach(loaded, kind, target, found.cookie);
    last = attached;
    undo.push(() => {
      attached.detach();
      loaded.free();
    });
  }
  if (!last) throw new Error(`${file.scenario}: nothing to attach`);
  return { last, undo: () => undo.reverse().forEach((step) => step()) };
}

/** Our image of the same attachments with the booted kernel's addresses. */
function rebuild(
  kernel: Kernel,
  { last: { trampoline } }: Built,
  image: ScenarioImage,
  functionAddress: bigint,
): readonly string[] {
  const request = trampoline.image?.request;
  if (!request) throw new Error('no image');
  const names = trampoline.links.map(({ program }) => program);
  const links = request.links.map((link, i) => {
    const program = names.find(({ address }) => address === link.program);
    const theirs = image.calls[i];
    if (!program || !theirs) throw new Error('more programs than the image has');
    // order, and enter and exit, are ours to get right; addresses are theirs
    expect(program.name).toBe(theirs.name);
    expect([enterName(program.enterExit), exitName(program.enterExit)]).toEqual([
      theirs.enter[0],
      theirs.exit[0],
    ]);
    const { entry } = theirs;
    return {
      ...link,
      program: theirs.program,
      entry,
      enter: theirs.enter[1],
      exit: theirs.exit[1],
    };
  });
  expect(links.length).toBe(image.calls.length);
  const code = compileTrampoline(request.model, request.flags, links, {
    kernel: kernel.bpf.profile.version,
    config: { pac: true, bti: false },
    offsets: kernel.bpf.profile.offsets,
    functionAddress,
    im: image.im,
    enter: image.trampEnter,
    exit: image.trampExit,
    place: () => image.base,
  });
  const { ipAfterCall, ipEpilogue } = code;
  const theirs = image.words[(ipAfterCall ?? -4) / 4] ?? 0;
  const rebuilt = [...code.words];
  if (ipAfterCall !== undefined && ipEpilogue !== undefined && theirs >>> 26 === 0b000101) {
    // an image that is going away: bpf_tramp_image_put has been there
    rebuilt[ipAfterCall / 4] = branchWord(0n, BigInt(ipEpilogue - ipAfterCall), false);
  }
  return hexWords(rebuilt);
}

const hexWords = (words: readonly number[]): string[] =>
  words.map((word) => word.toString(16).padStart(8, '0'));

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
  built: Built,
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
  built: Built,
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

/** Names of functions that the image's programs are attached to, or the function of the BPF target. */
function targetOf(
  file: ScenarioFile,
  label: string,
  image: ScenarioImage,
  target: () => KernelProgram,
): string | ProgramTarget | undefined {
  const [first] = image.calls;
  const fn = first && file.progs[first.name]?.fn;
  if (fn) return fn;
  if (!file.progs['target']) return undefined;
  return { program: target(), function: label.includes('sub') ? 'target_sub_1' : 'target' };
}

const RUNS = factories.flatMap(({ name }) =>
  FOLDERS.map(([folder, version]) => [folder, name, version] as const),
);

describe.each(RUNS)('%s on %s', (folder, engine, version) => {
  let kernel: Kernel;
  const figures = { images: 0, words: 0, frames: 0, refusals: 0, unread: 0 };
  beforeAll(async () => {
    kernel = await bootLab({ engine, version });
    kernel.define(
      ...MORE_FUNCTIONS.map((prototype): KernelFunction => {
        const name = /(\w+)\(/.exec(prototype)?.[1] ?? '';
        return { name, prototype, parameters: 3, body: () => 0n };
      }),
    );
    kernel.call('bpf_fentry_test1', 1n);
  });
  afterAll(() => {
    console.log(`${folder} on ${engine}: ${JSON.stringify(figures)}`);
    expect(figures.images).toBeGreaterThan(0);
    expect(figures.frames).toBeGreaterThan(0);
    kernel.close();
  });

  it.each(filesOf(folder).map((path) => [/scen\.(\w+)/.exec(path)?.[1] ?? path, path]))(
    'scenario %s',
    (_name, path) => {
      const file = JSON.parse(readFileSync(path, 'utf8')) as ScenarioFile;
      const done = new Set<string>();
      defineFunctions(kernel, file);
      const before = inUse(kernel);
      for (const state of file.states) {
        for (const trampoline of state.trampolines ?? []) {
          if (done.has(trampoline.image)) continue;
          done.add(trampoline.image);
          const image = readImage(trampoline, file.progs);
          if (!image || image.calls.length === 0) {
            figures.unread++;
            continue;
          }
          let program: KernelProgram | undefined;
          const target = targetOf(file, state.label, image, () => (program = loadTarget(kernel)));
          if (target === undefined) throw new Error(`${state.label}: no target`);
          const built = attachAll(kernel, file, image, target);
          try {
            const theirs = file.states.find(({ fn }) => fn === target)?.addr;
            const words = rebuild(kernel, built, image, BigInt(theirs ?? 0));
            expect(words).toEqual(hexWords(image.words));
            figures.images++;
            figures.words += words.length;
            // scenario 14: the graph tracer has put its own return address in place of the parent's
            if (typeof target === 'string' && !file.scenario.includes('graph')) {
              for (const { entry, snaps } of file.traces) {
                const first = entrySnapshot(snaps, image.base);
                if (entry !== `${target}+0x0` || !first) continue;
                const at = snaps.some(({ pc }) => BigInt(pc) === image.base);
                if (!at) continue;
                const booted = bootedFrames(built, snaps, first);
                const ours = labFrames(kernel, built, target, first);
                for (const [name, frame] of booted) {
                  expect(ours.get(name), name).toEqual(frame);
                  figures.frames++;
                }
              }
            }
          } finally {
            built.undo();
            program?.free();
          }
        }
      }
      for (const note of file.notes ?? []) {
        const [, kind, fn] = /^(fe|fx) (\w+): attach -524$/.exec(note) ?? [];
        if (fn === undefined) continue;
        const program = textProgram(kernel, 'r0 = 0\nexit');
        const as = kind === 'fe' ? 'fentry' : 'fexit';
        expect(() => kernel.bpf.attach(program, as, fn)).toThrow(
          '-ENOTSUPP: trampoline for a function',
        );
        program.free();
        figures.refusals++;
      }
      expect(inUse(kernel)).toEqual(before);
    },
  );
});
