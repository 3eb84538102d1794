/**
 * The helpers that run vectors call. Each kind of record has its own table; the numbers are not those
 * of the kernel.
 *
 * Reference: helper numbers and meanings of the uBPF and bpf_conformance test suites.
 */
import { join64 } from '../../common/bytes.js';
import { ProgramExit, withIntrinsic, type HelperBody } from '../../bpf/host.js';
import { offsetOf, setResult } from '../../bpf/helpers/helper.js';

/** Returns R1; 0 ends the program with 0. */
const unwind: HelperBody = (registers) => {
  registers[0] = registers[2];
  registers[1] = registers[3];
  if (registers[0] === 0 && registers[1] === 0) throw new ProgramExit(0n);
};

const returnZero = withIntrinsic({ kind: 'constant', value: 0 }, (registers) =>
  setResult(registers, 0),
);

/** The low bytes of R1..R5 as a 40-bit number, R1 highest. */
const gatherBytes: HelperBody = (registers) => {
  const byte = (n: number): number => registers[2 * n] & 0xff;
  registers[0] = (byte(2) << 24) | (byte(3) << 16) | (byte(4) << 8) | byte(5);
  registers[1] = byte(1);
};

/** Flips bits 1, 3 and 5 of R2 bytes at R1 and returns R1. */
const memfrob: HelperBody = (registers, { memory }) => {
  const size = registers[4] >>> 0;
  if (size > 0) {
    const at = offsetOf(memory, registers, 1, size, 'write');
    for (let i = 0; i < size; i++) memory.bytes[at + i] ^= 42;
  }
  registers[0] = registers[2];
  registers[1] = registers[3];
};

/** The integer square root of R1. */
const squareRoot: HelperBody = (registers) => {
  const value = join64(registers[2], registers[3]);
  let root = BigInt(Math.floor(Math.sqrt(Number(value))));
  while (root * root > value) root--;
  while ((root + 1n) * (root + 1n) <= value) root++;
  registers[0] = Number(BigInt.asIntN(32, root));
  registers[1] = Number(root >> 32n);
};

/** strcmp of the strings at R1 and R2. */
const strcmp: HelperBody = (registers, { memory }) => {
  const byteAt = (n: number, i: number): number =>
    memory.bytes[offsetOf(memory, registers, n, 1, 'read', i)];
  let i = 0;
  while (byteAt(1, i) !== 0 && byteAt(1, i) === byteAt(2, i)) i++;
  setResult(registers, byteAt(1, i) - byteAt(2, i));
};

export const CONFORMANCE_HELPERS: ReadonlyMap<number, HelperBody> = new Map([[5, unwind]]);

export const UBPF_HELPERS: ReadonlyMap<number, HelperBody> = new Map([
  [0, gatherBytes],
  [1, memfrob],
  [2, returnZero],
  [3, squareRoot],
  [4, strcmp],
  [5, unwind],
]);

export const BENCH_HELPERS: ReadonlyMap<number, HelperBody> = new Map([[2, returnZero]]);

export const NO_HELPERS: ReadonlyMap<number, HelperBody> = new Map();
