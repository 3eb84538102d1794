/** PLT entries: where their three instructions get to, and which slots erratum 843419 leaves empty. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { AARCH64_BREAK_FAULT } from '../../../src/a64/immediates.js';
import { decode } from '../../../src/a64/codec.js';
import {
  PLT_ENTRY_SIZE,
  PltSection,
  isForbiddenForAdrp,
  pltEntry,
  pltSlots,
} from '../../../src/kernel/module/plt.js';

const AT = 0xffff800079e10040n;
const GiB = 1n << 30n;

it('is adrp x16, add x16, br x16', () => {
  // 0x61e4 pages on: immlo 0, immhi 0x1879
  expect(pltEntry(AT, 0xffff80007fff48f8n)).toEqual([0x90030f30, 0x9123e210, 0xd61f0200]);
});

it('gets to every address within 4 GiB', () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: -(4n * GiB) + 4096n, max: 4n * GiB - 4096n }),
      fc.integer({ min: 0, max: 0x3ff }),
      (distance, slot) => {
        const at = (AT & ~0xfffn) + BigInt(4 * slot);
        const target = (at + distance) & ~3n;
        const [adrp, add] = pltEntry(at, target).map((word) => decode(word)?.fields);
        const immediate = ((adrp?.['immhi'] ?? 0) << 2) | (adrp?.['immlo'] ?? 0);
        const pages = BigInt.asIntN(21, BigInt(immediate));
        const imm12 = add?.['imm12'] ?? 0;
        expect((at & ~0xfffn) + (pages << 12n) + BigInt(imm12)).toBe(target);
      },
    ),
  );
});

it('is a BRK in front beyond 4 GiB', () => {
  expect(pltEntry(AT, AT + 4n * GiB)[0]).toBe(AARCH64_BREAK_FAULT);
  expect(pltEntry(AT, AT - 4n * GiB - 4096n)[0]).toBe(AARCH64_BREAK_FAULT);
});

it('leaves slots empty whose ADRP would be in the last two words of a page', () => {
  const start = 0xffff800079e10ff0n - 12n;
  const section = new PltSection(start);
  const at = [1n, 2n, 3n, 1n].map((target) => section.entryFor(start + target * 4096n) - start);
  // 0xfe4, 0xff0, [0xffc], 0x1008; the first target again
  expect(at).toEqual([0n, 12n, 36n, 0n]);
  expect(section.words.slice(6, 9)).toEqual([0, 0, 0]);
});

it('reserves a slot for that in each page', () => {
  expect([0, 1, 341, 342].map(pltSlots)).toEqual([0, 2, 342, 344]);
});

it('never has an ADRP where the erratum is', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 63 }),
      fc.integer({ min: 1, max: 800 }),
      (line, count) => {
        const start = 0xffff800079e10000n + BigInt(64 * line);
        const section = new PltSection(start);
        for (let i = 0; i < count; i++) {
          const entry = section.entryFor(start + BigInt(4096 * i));
          expect(isForbiddenForAdrp(entry)).toBe(false);
        }
        expect(4 * section.words.length).toBeLessThanOrEqual(PLT_ENTRY_SIZE * pltSlots(count));
      },
    ),
    { numRuns: 30 },
  );
});
