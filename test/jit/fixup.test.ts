import { describe, expect, it } from 'vitest';
import { print } from '../../src/a64/print.js';
import { findFixup } from '../../src/jit/fixup.js';
import { Fields } from '../../src/jit/vectors/fields.js';
import { compileProgramRecord } from '../../src/jit/vectors/program.js';
import { readRecords, SAMPLE } from './shared.js';

describe.each(['6.1', '6.12', '7.3'])('exception tables of %s', (kernel) => {
  const records = readRecords(SAMPLE, `prog-op-${kernel}.jsonl`).filter(({ tags }) => {
    return Array.isArray(tags) && tags.includes('extable');
  });

  it.each(records.map((record) => [record.name, record] as const))('%s', (name, record) => {
    const program = compileProgramRecord(new Fields(name, record));
    const [image] = program.functions;
    if (image === undefined) throw new Error('no image');
    let found = 0;
    for (const [index, word] of image.words.entries()) {
      const pc = image.base + BigInt(4 * index);
      const fixup = findFixup(program.kernel, image, pc);
      if (fixup === undefined) continue;
      found += 1;
      expect(fixup.resume).toBe(pc + 4n);
      const text = print(word, pc);
      expect(text).toMatch(/^(ldr|str|st|ld|swp|cas)/);
      // a load clears what it would have written
      const loaded = /^ldrs?[bhw]* [wx](\d+)/.exec(text);
      if (loaded) expect(fixup.clear).toBe(Number(loaded[1]));
      if (text.startsWith('str')) expect(fixup.clear).toBeUndefined();
    }
    expect(found).toBe(image.extable.length);
    expect(found).toBeGreaterThan(0);
  });

  it('has records', () => expect(records.length).toBeGreaterThan(3));
});
