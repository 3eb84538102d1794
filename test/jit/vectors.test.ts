import { describe, expect, it } from 'vitest';
import { InputError, KernelError } from '../../src/common/errors.js';
import { checkJitRecord, isJitRecord } from '../../src/jit/vectors.js';
import { readRecords, SAMPLE, sampleRecord, vectorFiles } from './shared.js';

/** Names and differences of the records that are not equal. */
function differences(folder: string, file: string): string[] {
  return readRecords(folder, file).flatMap((record) => {
    try {
      const difference = checkJitRecord(record);
      return difference === undefined ? [] : [`${record.name}: ${difference}`];
    } catch (error) {
      if (error instanceof KernelError) return [`${record.name}: ${error.message}`];
      throw error;
    }
  });
}

describe('sample of what kernels emitted', () => {
  const files = vectorFiles(SAMPLE);
  it('has every kind of file for the three kernels', () => expect(files).toHaveLength(23));
  it.each(files)('%s: all equal', (file) => expect(differences(SAMPLE, file)).toEqual([]));
});

describe('checkJitRecord', () => {
  const program = sampleRecord('prog-op-6.12.jsonl', 'alu64_add_k_r1_7');
  const trampoline = sampleRecord('tramp-6.12.jsonl', 'tramp_e1_a0_ip0_near');

  /** A copy of a record with one word of `words` (of its first function) replaced. */
  function withWord(record: typeof program, index: number, word: string): unknown {
    const copy = structuredClone(record) as { funcs?: [{ words: string[] }]; words?: string[] };
    const words = copy.funcs?.[0].words ?? copy.words;
    if (words === undefined) throw new Error('no words');
    words[index] = word;
    return copy;
  }

  it('names the word, both instructions and the BPF instruction', () => {
    expect(checkJitRecord(withWord(program, 6, '91002000'))).toBe(
      'word 6 is 91002000 (add x0, x0, #8), ours 91001c00 (add x0, x0, #7), ' +
        'in insn 0 (r1 += 7)',
    );
  });

  it('names the part of a trampoline', () => {
    expect(checkJitRecord(withWord(trampoline, 17, 'd503201f'))).toMatch(
      /^word 17 is d503201f \(nop\), ours b4000060 .* in 'fentry 0: skip if not entered'$/,
    );
  });

  it.each([
    ['jited_len', 60],
    ['alloc_size', 68],
    ['insn_off', [24, 28, 32]],
    ['plt_target', '0x1234'],
  ])('sees a different %s', (field, value) => {
    const copy = structuredClone(program) as { funcs?: Record<string, unknown>[] };
    const fn = copy.funcs?.[0] ?? {};
    fn[field] = value;
    expect(checkJitRecord(copy)).toContain(field === 'insn_off' ? 'offset of insn 2' : field);
  });

  it('knows its records', () => {
    expect(isJitRecord(program)).toBe(true);
    expect(isJitRecord({ cat: 'op' })).toBe(false);
    expect(isJitRecord({ cat: 'toString', kernel: '6.12' })).toBe(false);
    expect(isJitRecord(null)).toBe(false);
  });

  it.each([
    [{ ...program, kernel: '5.15' }, /kernel is not one of 6.1, 6.12, 7.3/],
    [{ ...program, funcs: 7 }, /funcs is not a list/],
    [{ ...trampoline, links: [{}] }, /links\[0\]: enter_exit is not/],
    [{ ...trampoline, words: ['xyz'] }, /words\[0\]: 'xyz' is not a word/],
  ])('refuses a malformed record %#', (record, message) => {
    expect(() => checkJitRecord(record)).toThrow(message);
    expect(() => checkJitRecord(record)).toThrow(InputError);
  });
});
