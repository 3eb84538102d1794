/**
 * Where cases run: a host, the memory of a case and its maps, made once and cleared from case to case.
 *
 * Engines on one host share a workbench, and so the program with its addresses filled in. Beside
 * the host's own helpers it knows those of `helpers.ts`.
 */
import { bytesToHex, high32, low32, viewOf } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import type { Region } from '../../cpu/memory.js';
import { callDistance, callImmediate } from '../../bpf/call-immediate.js';
import type { BpfHost } from '../../bpf/host.js';
import { createMap } from '../../bpf/maps/create.js';
import { ArrayMap } from '../../bpf/maps/array.js';
import { isProgArray, type BpfMap, type MapSpec } from '../../bpf/maps/map.js';
import { PSEUDO } from '../../bpf/opcodes.js';
import type { XlatedFunction, XlatedProgram } from '../../bpf/program.js';
import type { FuzzCase, FuzzOutcome, FuzzProgram, MapContents } from './case.js';

const LD_IMM64 = 0x18;
const CALL = 0x85;
/** Bytes of a case at most. */
const MEMORY_ROOM = 1 << 17;

/** A case with the addresses of a host in it. */
export interface LinkedCase {
  readonly programs: readonly [XlatedProgram, ...XlatedProgram[]];
  readonly usesMaps: boolean;
  readonly fuzzCase: FuzzCase;
}

export class Workbench {
  readonly host: BpfHost;
  /** struct bpf_prog of the program in slot i of the prog array, for JITed tail calls. */
  programAddresses: readonly bigint[] = [];
  readonly #helpers: ReadonlyMap<number, bigint>;
  readonly #room: Region;
  #specs: readonly MapSpec[] = [];
  #specText = '';
  #maps: readonly BpfMap[] = [];
  #linked = new WeakMap<FuzzCase, LinkedCase>();

  /** @param helpers entry addresses by number, beside those that the host knows */
  constructor(host: BpfHost, helpers: ReadonlyMap<number, bigint> = new Map()) {
    this.host = host;
    this.#helpers = helpers;
    this.#room = host.allocate('case', MEMORY_ROOM);
  }

  /** What R1 is: the memory ends where the pages end. */
  context({ memory }: FuzzCase): bigint {
    return this.#room.address + BigInt(MEMORY_ROOM - memory.length);
  }

  /** Throws InputError when the case names a map or helper that there is not. */
  link(fuzzCase: FuzzCase): LinkedCase {
    const known = this.#linked.get(fuzzCase);
    if (known) return known;
    if (fuzzCase.memory.length > MEMORY_ROOM) {
      throw new InputError(`case with ${fuzzCase.memory.length} bytes of memory`);
    }
    this.#useMaps(fuzzCase.maps);
    const usage = { maps: false };
    const [main, ...targets] = fuzzCase.programs.map((program, i) =>
      this.#linkProgram(program, i, usage),
    );
    if (!main) throw new InputError('case without a program');
    const linked: LinkedCase = { programs: [main, ...targets], usesMaps: usage.maps, fuzzCase };
    this.#linked.set(fuzzCase, linked);
    return linked;
  }

  /** Memory and maps as the case wants them. */
  reset({ fuzzCase, programs, usesMaps }: LinkedCase): void {
    const { memory } = fuzzCase;
    this.host.memory.bytes.set(memory, this.#room.offset + MEMORY_ROOM - memory.length);
    if (!usesMaps) return;
    this.#useMaps(fuzzCase.maps);
    for (const map of this.#maps) if (!isProgArray(map)) clear(map, this.host.memory.bytes);
    this.fillSlots(programs);
  }

  /** Puts all but the first into the prog arrays. */
  fillSlots(programs: readonly XlatedProgram[]): void {
    for (const map of this.#maps) {
      if (!isProgArray(map)) continue;
      for (let slot = 0; slot < map.spec.maxEntries; slot++) {
        map.setProgram(slot, programs[slot + 1], this.programAddresses[slot]);
      }
    }
  }

  /** What is there after a run that ended with `end`. */
  outcome({ fuzzCase, usesMaps }: LinkedCase, end: string): FuzzOutcome {
    const from = this.#room.offset + MEMORY_ROOM - fuzzCase.memory.length;
    const memory = this.host.memory.bytes.slice(from, from + fuzzCase.memory.length);
    const maps = usesMaps ? this.#maps.flatMap((map) => contents(map, this.host.memory.bytes)) : [];
    return { end, memory, maps };
  }

  close(): void {
    for (const map of this.#maps) map.free();
    this.host.release(this.#room);
  }

  #useMaps(specs: readonly MapSpec[]): void {
    if (specs === this.#specs) return;
    const text = JSON.stringify(specs);
    this.#specs = specs;
    if (text === this.#specText) return;
    this.#specText = text;
    for (const map of this.#maps) map.free();
    this.#maps = specs.map((spec) => createMap(spec, this.host));
    this.#linked = new WeakMap();
  }

  #linkProgram(program: FuzzProgram, index: number, usage: { maps: boolean }): XlatedProgram {
    const name = index === 0 ? 'case' : `case_tail_${index}`;
    const [main, ...rest] = program.map(({ insns, stackDepth }, i): XlatedFunction => {
      return {
        name: i === 0 ? name : `${name}_sub_${i}`,
        insns: this.#resolve(insns, usage),
        stackDepth,
      };
    });
    if (!main) throw new InputError(`${name} has no functions`);
    return { name, type: 'raw', functions: [main, ...rest] };
  }

  #resolve(insns: Uint8Array, usage: { maps: boolean }): Uint8Array {
    const resolved = insns.slice();
    const view = viewOf(resolved);
    for (let at = 0; at < resolved.length; at += 8) {
      const code = resolved[at];
      const source = (resolved[at + 1] as number) >> 4;
      if (code === CALL && source === 0) {
        view.setInt32(at + 4, this.#helperImmediate(view.getInt32(at + 4, true)), true);
      } else if (code === LD_IMM64) {
        if (source === PSEUDO.MAP_IDX) {
          usage.maps = true;
          const index = view.getInt32(at + 4, true);
          const address = this.#maps[index]?.address;
          if (address === undefined) throw new InputError(`insn ${at / 8}: no map ${index}`);
          view.setUint8(at + 1, (resolved[at + 1] as number) & 15);
          view.setInt32(at + 4, low32(address), true);
          view.setInt32(at + 12, high32(address), true);
        }
        at += 8;
      }
    }
    return resolved;
  }

  #helperImmediate(id: number): number {
    const own = this.#helpers.get(id);
    if (own !== undefined) return callDistance(`helper ${id}`, own, this.host);
    const immediate = callImmediate(this.host, id);
    if (immediate === undefined) throw new InputError(`no helper ${id}`);
    return immediate;
  }
}

function clear(map: BpfMap, memory: Uint8Array): void {
  if (map instanceof ArrayMap) {
    const { offset } = map.firstValue(0);
    memory.fill(0, offset, offset + map.stride * map.spec.maxEntries);
  } else {
    for (const { key } of map.entries()) map.remove(key);
  }
}

function contents(map: BpfMap, memory: Uint8Array): MapContents[] {
  const { name, keySize, valueSize } = map.spec;
  if (isProgArray(map)) return [];
  if (map instanceof ArrayMap) {
    return [{ name, keySize, valueSize, bytes: arrayContents(map, memory) }];
  }
  const entries = [...map.entries()];
  entries.sort((a, b) => (bytesToHex(a.key) < bytesToHex(b.key) ? -1 : 1));
  const bytes = new Uint8Array(entries.length * (keySize + valueSize));
  let at = 0;
  for (const { key, values } of entries) {
    bytes.set(key, at);
    bytes.set(values[0] ?? new Uint8Array(), at + keySize);
    at += keySize + valueSize;
  }
  return [{ name, keySize, valueSize, bytes }];
}

/** Index and value of each element, without an object for each. */
function arrayContents(map: ArrayMap, memory: Uint8Array): Uint8Array {
  const { maxEntries, keySize, valueSize } = map.spec;
  const { offset } = map.firstValue(0);
  const bytes = new Uint8Array(maxEntries * (keySize + valueSize));
  const view = viewOf(bytes);
  for (let index = 0, at = 0; index < maxEntries; index++, at += keySize + valueSize) {
    view.setUint32(at, index, true);
    const from = offset + index * map.stride;
    bytes.set(memory.subarray(from, from + valueSize), at + keySize);
  }
  return bytes;
}
