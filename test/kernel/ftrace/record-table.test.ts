/** The compact table of records against a plain sorted list. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { RecordTable } from '../../../src/kernel/ftrace/record-table.js';

const BASE = 0xffff800080000000n;

/** Sites from below the kernel image, where modules may be, to above it; no two of one function. */
const site = fc.record({
  ip: fc.integer({ min: -0x800_0000, max: 0x800_0000 }).map((slot) => BASE + BigInt(16 * slot)),
  lead: fc.constantFrom(1, 2),
});

it('finds every record, in address order, with the flags that it had', () => {
  const batches = fc.array(fc.uniqueArray(site, { selector: ({ ip }) => ip, maxLength: 90 }), {
    maxLength: 4,
  });
  fc.assert(
    fc.property(batches, (all) => {
      const table = new RecordTable(BASE, (address) => `fn_${address.toString(16)}`);
      const expected = new Map<bigint, { lead: number; flags: number }>();
      for (const [i, batch] of all.entries()) {
        const added = batch.filter(({ ip }) => !expected.has(ip));
        table.insert(added);
        for (const { ip, lead } of added) {
          table.flags[table.indexOf(ip)] = i + 1;
          expected.set(ip, { lead, flags: i + 1 });
        }
      }
      const sorted = [...expected].sort(([a], [b]) => (a < b ? -1 : 1));
      expect([...table.values()]).toEqual(
        sorted.map(([ip, { lead, flags }]) => ({
          ip,
          name: `fn_${(ip - BigInt(4 * lead)).toString(16)}`,
          flags,
        })),
      );
      for (const [ip, { lead }] of expected) {
        expect(table.ip(table.indexOfFunction(ip - BigInt(4 * lead)))).toBe(ip);
        expect(table.has(ip + 2n)).toBe(false);
      }
    }),
    { numRuns: 60 },
  );
});
