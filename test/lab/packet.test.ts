/** Packets that real guests received, through driver and stack. */
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, test, type TestContext } from 'vitest';
import { PacketLab } from '../../src/lab/check/virtio/packet.js';
import type { PacketRecord } from '../../src/lab/check/virtio/packet-record.js';
import { bootLab } from '../../src/node/boot.js';
import { SHARED } from '../helpers/shared.js';

const WHOLE = resolve(SHARED, 'vectors/virtio/results.jsonl');

test('all measured packets', async (context: TestContext) => {
  if (!existsSync(WHOLE)) {
    console.log('notice: ../shared/vectors/virtio is absent');
    context.skip();
  }
  const lab = new PacketLab(await bootLab());
  const skipped: Record<string, number> = {};
  const different: string[] = [];
  let equal = 0;
  for (const line of readFileSync(WHOLE, 'utf8').split('\n')) {
    if (line === '') continue;
    const record = JSON.parse(line) as PacketRecord;
    if (record.type !== 'packet') continue;
    const result = lab.check(record);
    if (result.kind === 'equal') equal++;
    else if (result.kind === 'skipped') skipped[result.why] = (skipped[result.why] ?? 0) + 1;
    else {
      const { id, xdp, program, kind, target, note } = record;
      different.push(
        `${[id, xdp, program, kind, target, note].join(' ')}: ${result.differences.join('; ')}`,
      );
    }
  }
  console.log(`${equal} equal, skipped: ${JSON.stringify(skipped)}`);
  expect(different).toEqual([]);
}, 120_000);
