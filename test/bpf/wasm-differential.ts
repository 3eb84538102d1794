/**
 * Runs one program in the interpreter and in the wasm tier from the same contents of memory, on the
 * same addresses, and says what differs: result, fault and its place, memory afterwards.
 */
import { join64 } from '../../src/common/bytes.js';
import { Random } from '../../src/common/random.js';
import { ERRNO } from '../../src/common/errno.js';
import type { Region } from '../../src/cpu/memory.js';
import { disassemble } from '../../src/bpf/disassemble.js';
import { helperBodies } from '../../src/bpf/helpers/table.js';
import { setResult } from '../../src/bpf/helpers/helper.js';
import { ProgramExit, type HelperBody } from '../../src/bpf/host.js';
import { createInterpreter } from '../../src/bpf/interpreter.js';
import { createMap } from '../../src/bpf/maps/create.js';
import type { MapTypeName, ProgArrayMap } from '../../src/bpf/maps/map.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import type { XlatedProgram } from '../../src/bpf/program.js';
import { describeResult, type InterpreterResult } from '../../src/bpf/result.js';
import { createWasmProgram } from '../../src/bpf/wasm.js';
import { randomProgram, type Surroundings } from './wasm-random.js';

const BUDGET = 200_000;
const CONTEXT = 40;

/** Stack frames of both engines are the same regions, so that pointers to them are the same numbers. */
class SharedStackHost extends PlainHost {
  readonly stacks = new Map<string, Region>();

  override allocate(name: string, size: number): Region {
    if (!name.startsWith('bpf_stack_')) return super.allocate(name, size);
    const region = this.stacks.get(name) ?? super.allocate(name, size);
    this.stacks.set(name, region);
    return region;
  }

  override release(region: Region): void {
    if (this.stacks.get(region.name) !== region) super.release(region);
  }
}

/** What happened to both; `difference` is undefined when it was the same. */
export interface Comparison {
  readonly result: InterpreterResult;
  readonly difference: string | undefined;
}

export class Differential {
  readonly #host: SharedStackHost;
  readonly #context: Region;
  readonly #contents: readonly Region[];
  readonly #around: Surroundings;
  readonly #progArray: ProgArrayMap;
  /** What maps need to stay themselves, by the name of the region. */
  readonly #kept: ReadonlyMap<string, Uint8Array>;

  constructor() {
    const bodies = new Map(helperBodies());
    const lookup = bodies.get(1);
    const update = bodies.get(2);
    if (!lookup || !update) throw new Error('no map helpers');
    const host = new SharedStackHost({
      helpers: new Map<number, HelperBody>([
        [1, lookup],
        [2, (words, owner) => this.#unlessHash(words, () => update(words, owner))],
        [5, (words) => void ((words[0] = words[2] * 3), (words[1] = words[5] + 7))],
        [8, bodies.get(8) ?? lookup],
        [9, () => undefined],
        [42, bodies.get(42) ?? lookup],
        [
          77,
          (words) => {
            if ((words[6] & 7) === 0) throw new ProgramExit(0xabcdn);
            setResult(words, -5);
          },
        ],
      ]),
      callBase: 0n,
      helperStride: 1,
      memorySize: 4 << 20,
      cpuCount: 3,
    });
    host.setCurrentCpu(2);
    host.setSeed(1);
    this.#host = host;
    const map = (type: MapTypeName, keySize: number, valueSize: number) =>
      createMap({ name: type, type, keySize, valueSize, maxEntries: 5, flags: 0 }, host);
    const array = map('ARRAY', 4, 20);
    const perCpu = map('PERCPU_ARRAY', 4, 8);
    const hash = map('HASH', 4, 16);
    hash.set(Uint8Array.of(1, 0, 0, 0), new Uint8Array(16).fill(7));
    hash.set(Uint8Array.of(4, 0, 0, 0), new Uint8Array(16).fill(9));
    this.#progArray = map('PROG_ARRAY', 4, 4) as ProgArrayMap;
    this.#context = host.allocate('context', CONTEXT);
    for (let depth = 0; depth < 8; depth++) host.allocate(`bpf_stack_${depth}`, 512);
    const tiny = host.allocate('tiny', 4);
    const readOnly = host.memory.protect(host.allocate('read-only', 64), 'r');
    const text = host.memory.protect(host.allocate('text', 64), 'rwx');
    this.#contents = host.memory.regions.filter(({ name }) => !name.startsWith('bpf_stack'));
    this.#kept = new Map(
      this.#contents
        .filter(({ name }) => /^(bpf_map|buckets|clock)/.test(name))
        .map(({ name, offset, size }) => [name, host.memory.bytes.slice(offset, offset + size)]),
    );
    this.#around = {
      pointers: [
        this.#context.address,
        this.#context.address + 30n,
        array.valueAddress,
        array.valueAddress + 100n,
        tiny.address,
        readOnly.address,
        text.address,
        readOnly.address + 8n,
      ],
      maps: [
        array.address,
        perCpu.address,
        hash.address,
        array.address,
        array.address,
        perCpu.address,
        hash.address,
        array.address,
        0x1234n,
      ],
      progArray: this.#progArray.address,
      lookup: 1,
      helpers: [1, 2, 5, 8, 9, 42, 77],
    };
  }

  /** Makes a program from `seed`, and one for its tail calls, and runs it on both engines. */
  run(seed: number): Comparison {
    const random = new Random(seed);
    const program = randomProgram(random, this.#around);
    if (random.below(4) === 0) {
      this.#progArray.setProgram(1, program);
      this.#progArray.setProgram(2, randomProgram(random, this.#around));
    }
    const before = this.#contents.map(() => random.u32() & 0xff);
    const interpreter = createInterpreter(program, this.#host);
    this.#fill(before);
    const r2 = random.u64();
    const options = { r2, budget: BUDGET };
    const expected = interpreter.run(this.#context.address, options);
    const expectedBytes = this.#bytes();
    interpreter.close();
    const wasm = createWasmProgram(program, this.#host, { slice: seed % 3 === 0 ? 1 : 1 << 20 });
    this.#fill(before);
    const result = wasm.run(this.#context.address, options);
    const bytes = this.#bytes();
    wasm.close();
    for (const slot of [1, 2]) this.#progArray.setProgram(slot, undefined);
    return {
      result: expected,
      difference: this.#compare(program, expected, result, expectedBytes, bytes),
    };
  }

  #unlessHash(words: Int32Array, body: () => void): void {
    const map = this.#host.mapAt(join64(words[2], words[3]));
    // an update would move elements about, and the second engine begin elsewhere
    if (map?.spec.type === 'HASH') setResult(words, -ERRNO.EPERM);
    else body();
  }

  #fill(values: readonly number[]): void {
    const { memory } = this.#host;
    for (const region of this.#host.stacks.values()) {
      memory.bytes.fill(0x5a, region.offset, region.offset + region.size);
    }
    for (const [index, { name, offset, size }] of this.#contents.entries()) {
      const kept = this.#kept.get(name);
      if (kept) {
        memory.bytes.set(kept, offset);
        continue;
      }
      const value = values[index] ?? 0;
      for (let at = 0; at < size; at++) memory.bytes[offset + at] = value * (at + 3);
    }
  }

  #bytes(): { readonly name: string; readonly bytes: Uint8Array }[] {
    const { memory } = this.#host;
    return [...this.#contents, ...this.#host.stacks.values()].map(({ name, offset, size }) => ({
      name,
      bytes: memory.bytes.slice(offset, offset + size),
    }));
  }

  #compare(
    program: XlatedProgram,
    expected: InterpreterResult,
    result: InterpreterResult,
    expectedBytes: readonly { readonly name: string; readonly bytes: Uint8Array }[],
    bytes: readonly { readonly name: string; readonly bytes: Uint8Array }[],
  ): string | undefined {
    // the budget is looked at elsewhere: who is stopped for it may have done less, or more
    if (expected.kind === 'budget' || result.kind === 'budget') return undefined;
    const listing = (): string =>
      program.functions
        .map(
          ({ name, insns }) =>
            `${name}:\n${disassemble(insns)
              .map((line) => `${line.index}: ${line.text}`)
              .join('\n')}`,
        )
        .join('\n');
    if (describeResult(expected) !== describeResult(result)) {
      return `interpreter ${describeResult(expected)}\nwasm ${describeResult(result)}\n${listing()}`;
    }
    for (const [index, { name, bytes: here }] of expectedBytes.entries()) {
      const there = bytes[index]?.bytes ?? new Uint8Array();
      const at = here.findIndex((byte, i) => byte !== there[i]);
      if (at >= 0) return `${name}+${at}: ${here[at]} and ${there[at]}\n${listing()}`;
    }
    return undefined;
  }
}
