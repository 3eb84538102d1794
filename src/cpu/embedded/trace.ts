/**
 * The record of executed instructions, written inside the hot loop.
 *
 * Entries are four Int32: [number of the decoded word, slot, low, high], slot -1 when nothing
 * changed. An instruction that changed more registers is followed by entries numbered 0. A shadow
 * of the registers tells what changed. Chunks are kept for the next trace, so that a warm one
 * allocates nothing. Entries become `TraceEntry` objects only when recording ends.
 */
import { join64 } from '../../common/bytes.js';
import { NZCV, type RegisterChange, type TraceEntry } from '../cpu.js';
import { NZCV_SLOT, SINK_SLOT, SLOTS, type Core } from './core.js';
import { FIRST_WIDE, OP } from './operations.js';

const CHUNK = 1 << 18;
/** Entries that one instruction takes at most, in Int32. */
const MOST = 8 * 4;
/** A chunk with less than this used has room for one more instruction. */
export const ROOM = CHUNK - MOST;

export class TraceLog {
  readonly #chunks: Int32Array[] = [];
  readonly #lengths: number[] = [];
  /** The chunk being filled and the Int32 used in it. There is none before the first `clear`. */
  chunk: Int32Array = new Int32Array(0);
  used = 0;
  readonly lo = new Int32Array(SLOTS);
  readonly hi = new Int32Array(SLOTS);

  clear(): void {
    this.#lengths.length = 0;
    this.#startChunk();
  }

  /** Takes the registers as they are, before instructions change them. */
  follow(core: Core): void {
    this.lo.set(core.lo);
    this.hi.set(core.hi);
  }

  /** Makes room for the entries of one instruction. */
  reserve(): void {
    if (this.used < ROOM) return;
    this.#lengths.push(this.used);
    this.#startChunk();
  }

  #startChunk(): void {
    const index = this.#lengths.length;
    this.chunk = this.#chunks[index] ??= new Int32Array(CHUNK);
    this.used = 0;
  }

  #change(core: Core, slot: number): void {
    const lo = core.lo[slot] as number;
    const hi = core.hi[slot] as number;
    if (slot === SINK_SLOT || (this.lo[slot] === lo && this.hi[slot] === hi)) return;
    this.lo[slot] = lo;
    this.hi[slot] = hi;
    const { chunk, used } = this;
    chunk[used] = 0;
    chunk[used + 1] = slot;
    chunk[used + 2] = lo;
    chunk[used + 3] = hi;
    this.used = used + 4;
  }

  /** Records an executed instruction that may have changed d, n, m and NZCV. */
  add(core: Core, records: Int32Array, at: number): void {
    this.reserve();
    const head = records[at] as number;
    const op = head & 255;
    const d = (head >>> 8) & 63;
    const first = this.used;
    this.#change(core, d);
    if (op >= FIRST_WIDE) {
      this.#change(core, (head >>> 16) & 63);
      this.#change(core, head >>> 24);
      if (op === OP.SWAP_PAIR && d < 30) this.#change(core, d + 1);
    }
    this.#change(core, NZCV_SLOT);
    if (this.used === first) {
      this.chunk[first + 1] = -1;
      this.used = first + 4;
    }
    this.chunk[first] = records[at + 3] as number;
  }

  entries(words: Core['words']): TraceEntry[] {
    const entries: TraceEntry[] = [];
    let changes: RegisterChange[] = [];
    const lengths = [...this.#lengths, this.used];
    for (const [index, length] of lengths.entries()) {
      const chunk = this.#chunks[index] as Int32Array;
      for (let at = 0; at < length; at += 4) {
        const decoded = words[chunk[at] as number];
        const slot = chunk[at + 1] as number;
        if (decoded && chunk[at] !== 0) {
          changes = [];
          entries.push({ pc: join64(decoded.lo, decoded.hi), word: decoded.word >>> 0, changes });
        }
        if (slot < 0) continue;
        const register = slot === NZCV_SLOT ? NZCV : slot;
        changes.push({ register, value: join64(chunk[at + 2] as number, chunk[at + 3] as number) });
        if (changes.length > 1) changes.sort((one, other) => one.register - other.register);
      }
    }
    return entries;
  }
}
