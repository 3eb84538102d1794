/**
 * The trace of a libunicorn CPU: a hook before every instruction compares the registers with those before
 * the last one.
 *
 * Entries are kept as Int32: pc (lo, hi), word, number of changes, then per change register, lo, hi.
 * An instruction is complete when the next one is about to start or the run has ended; one that
 * was hooked but did not execute (a fault, a stop address) is taken back by `endRun`.
 */
import { join64 } from '../../common/bytes.js';
import { NZCV, type RegisterChange, type TraceEntry } from '../cpu.js';

/** X0..X30 and SP. */
const GENERAL = 32;

export class TraceLog {
  #data = new Int32Array(4096);
  #length = 0;
  #starts: number[] = [];
  readonly #before = new Int32Array(2 * GENERAL);
  #nzcv = 0;
  #open = false;

  /** Registers as they are now: halves of X0..X30, SP, and NZCV. */
  beginRun(registers: Int32Array, nzcv: number): void {
    this.#before.set(registers.subarray(0, 2 * GENERAL));
    this.#nzcv = nzcv;
    this.#open = false;
  }

  /** An instruction is about to execute. */
  instruction(lo: number, hi: number, word: number, registers: Int32Array, nzcv: number): void {
    if (this.#open) this.#close(registers, nzcv);
    this.#reserve();
    this.#starts.push(this.#length);
    this.#data[this.#length] = lo;
    this.#data[this.#length + 1] = hi;
    this.#data[this.#length + 2] = word;
    this.#data[this.#length + 3] = 0;
    this.#length += 4;
    this.#open = true;
  }

  get count(): number {
    return this.#starts.length;
  }

  /** Entries beyond `count` did not execute. */
  endRun(count: number, registers: Int32Array, nzcv: number): void {
    if (this.#starts.length > count) {
      this.#length = this.#starts[count] as number;
      this.#starts.length = count;
    } else if (this.#open) {
      this.#close(registers, nzcv);
    }
    this.#open = false;
  }

  entries(): TraceEntry[] {
    return this.#starts.map((start) => {
      const data = this.#data;
      const changes: RegisterChange[] = [];
      const count = data[start + 3] as number;
      for (let at = start + 4; at < start + 4 + 3 * count; at += 3) {
        const value = join64(data[at + 1] as number, data[at + 2] as number);
        changes.push({ register: data[at] as number, value });
      }
      return {
        pc: join64(data[start] as number, data[start + 1] as number),
        word: (data[start + 2] as number) >>> 0,
        changes,
      };
    });
  }

  #close(registers: Int32Array, nzcv: number): void {
    const before = this.#before;
    const data = this.#data;
    const start = this.#starts.at(-1) as number;
    for (let i = 0; i < GENERAL; i++) {
      const lo = registers[2 * i] as number;
      const hi = registers[2 * i + 1] as number;
      if (lo !== before[2 * i] || hi !== before[2 * i + 1]) {
        this.#change(i, lo, hi);
        before[2 * i] = lo;
        before[2 * i + 1] = hi;
      }
    }
    if (nzcv !== this.#nzcv) {
      this.#change(NZCV, nzcv, 0);
      this.#nzcv = nzcv;
    }
    data[start + 3] = (this.#length - start - 4) / 3;
  }

  #change(register: number, lo: number, hi: number): void {
    this.#data[this.#length] = register;
    this.#data[this.#length + 1] = lo;
    this.#data[this.#length + 2] = hi;
    this.#length += 3;
  }

  /** Room for one entry that changes everything. */
  #reserve(): void {
    if (this.#length + 4 + 3 * (GENERAL + 1) <= this.#data.length) return;
    const larger = new Int32Array(2 * this.#data.length);
    larger.set(this.#data);
    this.#data = larger;
  }
}
