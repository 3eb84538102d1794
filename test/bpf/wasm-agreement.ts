/**
 * Two worlds that begin the same: the interpreter runs each program in one, the wasm tier in the other.
 *
 * Programs pass the verifier first. Nothing is reset between programs, so maps, clock, random numbers and
 * stacks carry on, and after each program everything must be the same in both: result or fault with its
 * place, the bytes of all memory (packet, xdp_buff, maps, stacks), the log.
 */
import { Random } from '../../src/common/random.js';
import type { Region } from '../../src/cpu/memory.js';
import { disassemble } from '../../src/bpf/disassemble.js';
import { helperBodies } from '../../src/bpf/helpers/table.js';
import { encodeSlots, imm64, type Slot } from '../../src/bpf/instruction.js';
import { createInterpreter } from '../../src/bpf/interpreter.js';
import { createMap } from '../../src/bpf/maps/create.js';
import type { BpfMap, MapTypeName, ProgArrayMap } from '../../src/bpf/maps/map.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import type { XlatedFunction, XlatedProgram } from '../../src/bpf/program.js';
import { describeResult, type InterpreterResult } from '../../src/bpf/result.js';
import { VerifierError } from '../../src/bpf/verifier/error.js';
import type { Reference, VerifierMap } from '../../src/bpf/verifier/input.js';
import { verify } from '../../src/bpf/verifier/verify.js';
import { createWasmBatch } from '../../src/bpf/wasm.js';
import { XdpBuff, XDP_PACKET_HEADROOM } from '../../src/bpf/xdp-buff.js';
import { verifiedProgram } from './wasm-verified.js';

/** Programs that are compiled together. */
const BATCH = 20;
const FRAME_SIZE = 1024;
const CPUS = 3;
const CPU = 2;

const MAPS: readonly (readonly [MapTypeName, number, number])[] = [
  ['ARRAY', 4, 20],
  ['ARRAY', 4, 72],
  ['PERCPU_ARRAY', 4, 8],
  ['HASH', 4, 16],
  ['HASH', 12, 24],
  ['HASH', 3, 5],
  ['HASH', 72, 8],
  ['PERCPU_HASH', 8, 8],
  ['LRU_HASH', 4, 8],
  ['LRU_PERCPU_HASH', 6, 12],
];

/** Stack frames of both engines are at the same addresses, and are there for good. */
class World extends PlainHost {
  readonly xdp: XdpBuff;
  readonly maps: readonly BpfMap[];
  readonly queue: BpfMap;
  readonly progArray: ProgArrayMap;
  readonly #frame: Region;
  readonly #stacks = new Map<string, Region>();
  readonly #shown: readonly Region[];

  constructor() {
    super({
      helpers: helperBodies(),
      callBase: 0n,
      helperStride: 1,
      memorySize: 4 << 20,
      cpuCount: CPUS,
    });
    this.setCurrentCpu(CPU);
    for (let depth = 0; depth < 8; depth++) {
      const name = `bpf_stack_${depth}`;
      this.#stacks.set(name, super.allocate(name, 512));
    }
    this.xdp = XdpBuff.create(this, { ifindex: 3, queueIndex: 1 });
    this.#frame = super.allocate('frame', FRAME_SIZE);
    const map = (type: MapTypeName, keySize: number, valueSize: number): BpfMap =>
      createMap(
        { name: `${type}-${keySize}`, type, keySize, valueSize, maxEntries: 5, flags: 0 },
        this,
      );
    this.maps = MAPS.map((row) => map(...row));
    this.queue = map('QUEUE', 0, 8);
    this.progArray = map('PROG_ARRAY', 4, 4) as ProgArrayMap;
    this.setSeed(1);
    this.#shown = [...this.memory.regions];
  }

  override allocate(name: string, size: number): Region {
    return this.#stacks.get(name) ?? super.allocate(name, size);
  }

  override release(region: Region): void {
    if (this.#stacks.get(region.name) !== region) super.release(region);
  }

  setPacket(bytes: Uint8Array): void {
    this.memory.bytes.fill(0, this.#frame.offset, this.#frame.offset + FRAME_SIZE);
    this.xdp.setFrame(this.#frame.address, FRAME_SIZE, XDP_PACKET_HEADROOM, bytes.length);
    this.memory.writeBytes(this.xdp.data, bytes);
  }

  /** Where another world differs. */
  difference(other: World): string | undefined {
    for (const { name, offset, size } of this.#shown) {
      const here = Buffer.from(this.memory.wasm.buffer, offset, size);
      const there = Buffer.from(other.memory.wasm.buffer, offset, size);
      if (here.equals(there)) continue;
      const at = here.findIndex((byte, i) => byte !== there[i]);
      return `${name}+${at}: ${here[at]} and ${there[at]}`;
    }
    const line = this.log.findIndex((text, i) => text !== other.log[i]);
    if (line < 0 && this.log.length === other.log.length) return undefined;
    return `log: ${this.log[line]} and ${other.log[line]}`;
  }
}

export interface Agreement {
  readonly ran: number;
  readonly refused: number;
  readonly kinds: Readonly<Record<InterpreterResult['kind'], number>>;
  readonly difference: string | undefined;
}

/** Generates `count` programs from `seed`, and runs those that the verifier takes. */
export function compareVerified(seed: number, count: number): Agreement {
  const random = new Random(seed);
  const [one, other] = [new World(), new World()];
  const kinds = { return: 0, fault: 0, budget: 0, error: 0 };
  let refused = 0;
  let ran = 0;
  for (let made = 0; made < count;) {
    const programs: XlatedProgram[] = [];
    for (; made < count && programs.length < BATCH; made++) {
      const program = accepted(verifiedProgram(random, one), one, made);
      if (program) programs.push(program);
      else refused++;
    }
    const wasms = createWasmBatch(programs, other, { slice: made % 3 === 0 ? 1 : 1 << 20 });
    for (const [index, program] of programs.entries()) {
      for (const world of [one, other]) {
        for (const slot of [1, 2]) {
          world.progArray.setProgram(slot, programs[(index + slot) % programs.length]);
        }
      }
      const packet = Uint8Array.from({ length: 60 + random.below(80) }, () => random.below(256));
      for (const world of [one, other]) world.setPacket(packet);
      const interpreter = createInterpreter(program, one);
      const expected = interpreter.run(one.xdp.address);
      interpreter.close();
      const result = wasms[index]?.run(other.xdp.address);
      ran++;
      kinds[expected.kind]++;
      const texts = [expected, result].map((each) => each && describeResult(each));
      const difference =
        texts[0] === texts[1] ? one.difference(other) : `${texts[0]} and ${texts[1]}`;
      if (difference === undefined) continue;
      const listing = program.functions.map(({ name, insns }) => [
        `${name}:`,
        ...disassemble(insns).map(({ index: insn, text }) => `${insn}: ${text}`),
      ]);
      return {
        ran,
        refused,
        kinds,
        difference: `seed ${seed} ${program.name}: ${difference}\n${listing.flat().join('\n')}`,
      };
    }
    for (const wasm of wasms) wasm.close();
  }
  return { ran, refused, kinds, difference: undefined };
}

/** The program as engines run it; undefined when the verifier refuses it. */
function accepted(functions: Slot[][], world: World, number: number): XlatedProgram | undefined {
  const known = new Map(
    [...world.maps, world.queue, world.progArray].map((map) => [map.address, verifierMap(map)]),
  );
  try {
    const verified = verify({
      name: `p${number}`,
      kind: 'xdp',
      xdpAttach: 'device',
      gpl: true,
      deviceBound: false,
      functions: functions.map((slots, index) => ({
        name: `f${index}`,
        slots,
        lines: [],
        references: referencesOf(slots, known),
        kfuncs: new Map(),
      })),
    });
    const [main, ...rest] = functions.map((slots, index): XlatedFunction => {
      const accesses = verified.functions[index]?.accesses;
      const insns = slots.map((slot, at) => xlated(slot, accesses?.get(at) === 'ctx'));
      return { name: `f${index}`, insns: encodeSlots(insns), stackDepth: 512 };
    });
    return main && { name: `p${number}`, type: 'xdp', functions: [main, ...rest] };
  } catch (error) {
    if (error instanceof VerifierError) return undefined;
    throw error;
  }
}

function referencesOf(
  slots: readonly Slot[],
  known: ReadonlyMap<bigint, VerifierMap>,
): ReadonlyMap<number, Reference> {
  const references = new Map<number, Reference>();
  for (const [at, slot] of slots.entries()) {
    const second = slots[at + 1];
    if (slot.code !== 0x18 || slot.src !== 0 || !second) continue;
    const map = known.get(imm64(slot, second));
    if (map) references.set(at, { kind: 'map', map });
  }
  return references;
}

function verifierMap({ spec }: BpfMap): VerifierMap {
  const { name, type, keySize, valueSize, maxEntries, flags } = spec;
  return { name, type, keySize, valueSize, maxEntries, flags, frozen: false, hasBtf: false };
}

/** What the loader makes of a slot: tail calls, and data, data_end, data_meta of the xdp_buff. */
function xlated(slot: Slot, isContext: boolean): Slot {
  if (slot.code === 0x85 && slot.src === 0 && slot.imm === 12)
    return { ...slot, code: 0xf5, imm: 0 };
  return isContext ? { ...slot, code: 0x79, off: 2 * slot.off } : slot;
}
