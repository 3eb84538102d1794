import { expect, test } from 'vitest';
import { BodyTable } from '../../src/kernel/body-table.js';
import type { KernelFunction } from '../../src/kernel/function.js';

const fn = (name: string): KernelFunction => ({
  name,
  prototype: `void ${name}(void)`,
  parameters: 0,
  body: () => undefined,
});

test('addresses that share a half are apart', () => {
  const table = new BodyTable();
  const rows = [
    [0xffff_8000_0800_0010n, fn('a')],
    [0xffff_8001_0800_0010n, fn('b')],
    [0xffff_8000_8800_0010n, fn('c')],
  ] as const;
  for (const [address, body] of rows) table.set(address, body);
  for (const [address, body] of rows) expect(table.get(address)).toBe(body);
  expect(table.at(0xffff_8001 | 0, 0x0800_0010)).toBe(rows[1][1]);
  expect(table.size).toBe(3);
  table.set(rows[0][0], rows[1][1]);
  expect(table.size).toBe(3);
  table.delete(rows[0][0]);
  table.delete(rows[0][0]);
  expect(table.get(rows[0][0])).toBeUndefined();
  expect(table.size).toBe(2);
});
