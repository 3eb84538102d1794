/**
 * bpf_iter_bits: the numbers of the bits that are set in some 64-bit words.
 *
 * A `struct bpf_iter_bits` on the stack holds one word itself, or the address of a copy of several, then the
 * number of bits and the bit it is at, an int each; next gives the address of the latter. What cannot be read,
 * is none or too much makes an iterator that gives nothing. Reference: kernel/bpf/helpers.c bpf_iter_bits_new and kin, struct
 * bpf_iter_bits_kern.
 */
import { MemoryAccessError } from '../../cpu/fault.js';
import { argument, argument32, fail, offsetOf, setResult, setResult64 } from '../helpers/helper.js';
import type { BpfHost, RegisterPairs } from '../host.js';
import type { KfuncRow } from './kfunc.js';

/** Byte offsets in `struct bpf_iter_bits_kern`. */
const BITS = 0;
const NR_BITS = 8;
const BIT = 12;
const ITER_SIZE = 16;
const WORD = 8;
const BITS_PER_WORD = 64;
/** BITS_ITER_NR_WORDS_MAX: what the allocator gives at once. */
const MAX_WORDS = 511;

function iterator({ memory }: BpfHost, registers: RegisterPairs): number {
  return offsetOf(memory, registers, 1, ITER_SIZE, 'write');
}

/** The words at `address`; undefined where they cannot be read. */
function readWords({ memory }: BpfHost, address: bigint, count: number): Uint8Array | undefined {
  try {
    return memory.readBytes(address, WORD * count);
  } catch (error) {
    if (error instanceof MemoryAccessError) return undefined;
    throw error;
  }
}

/** The first bit from `from` on that is set in the words at `address`; `count` if there is none. */
function nextBit({ memory }: BpfHost, address: bigint, from: number, count: number): number {
  for (let bit = from; bit < count;) {
    const word = memory.read64(address + BigInt(WORD * Math.trunc(bit / BITS_PER_WORD)));
    let left = word >> BigInt(bit % BITS_PER_WORD);
    if (left === 0n) {
      bit += BITS_PER_WORD - (bit % BITS_PER_WORD);
      continue;
    }
    for (; (left & 1n) === 0n; left >>= 1n) bit++;
    return bit;
  }
  return count;
}

export const ITER_BITS_KFUNCS: readonly KfuncRow[] = [
  {
    prototype:
      'int bpf_iter_bits_new(struct bpf_iter_bits *it, const u64 *unsafe_ptr__ign, u32 nr_words)',
    flags: ['KF_ITER_NEW'],
    body: (registers, host) => {
      const { view } = host.memory;
      const at = iterator(host, registers);
      const source = argument(registers, 2);
      const words = argument32(registers, 3) >>> 0;
      view.setBigUint64(at + BITS, 0n, true);
      view.setInt32(at + NR_BITS, 0, true);
      view.setInt32(at + BIT, -1, true);
      if (source === 0n || words === 0) return fail(registers, 'EINVAL');
      if (words > MAX_WORDS) return fail(registers, 'E2BIG');
      const bytes = readWords(host, source, words);
      if (!bytes) return fail(registers, 'EFAULT');
      if (words === 1) host.memory.bytes.set(bytes, at + BITS);
      else {
        const copy = host.kmalloc(bytes.length);
        host.memory.writeBytes(copy, bytes);
        view.setBigUint64(at + BITS, copy, true);
      }
      view.setInt32(at + NR_BITS, BITS_PER_WORD * words, true);
      setResult(registers, 0);
    },
  },
  {
    prototype: 'int *bpf_iter_bits_next(struct bpf_iter_bits *it)',
    flags: ['KF_ITER_NEXT', 'KF_RET_NULL'],
    body: (registers, host) => {
      const { view } = host.memory;
      const at = iterator(host, registers);
      const self = argument(registers, 1);
      const count = view.getInt32(at + NR_BITS, true);
      const from = view.getInt32(at + BIT, true);
      if (from >= count) return setResult64(registers, 0n);
      const address = count === BITS_PER_WORD ? self : view.getBigUint64(at + BITS, true);
      const bit = nextBit(host, address, from + 1, count);
      view.setInt32(at + BIT, bit, true);
      setResult64(registers, bit >= count ? 0n : self + BigInt(BIT));
    },
  },
  {
    prototype: 'void bpf_iter_bits_destroy(struct bpf_iter_bits *it)',
    flags: ['KF_ITER_DESTROY'],
    body: (registers, host) => {
      const at = iterator(host, registers);
      if (host.memory.view.getInt32(at + NR_BITS, true) <= BITS_PER_WORD) return;
      host.kfree(host.memory.view.getBigUint64(at + BITS, true));
    },
  },
];
