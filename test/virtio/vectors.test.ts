/** The receive path against what real guests of 6.12 and 6.18 did. */
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { PACKAGE_ROOT } from '../../src/node/files.js';
import { SHARED } from '../helpers/shared.js';
import { expect, test, type TestContext } from 'vitest';
import { createVirtioNet, type VirtioNetOptions } from '../../src/virtio/virtio-net.js';
import { DirectKernel } from './helpers/direct-kernel.js';
import { VERDICT, returns } from './helpers/programs.js';
import { replay, type PacketRecord } from './helpers/replay.js';

const SAMPLE = resolve(PACKAGE_ROOT, 'test/vectors/virtio/receive-6.12.jsonl');
const WHOLE = resolve(SHARED, 'vectors/virtio/results.jsonl');

/** An attach attempt at some MTU, natively. */
interface AttachRecord {
  readonly type: 'attach';
  readonly kernel_version: string;
  readonly rx_mode: string;
  readonly case: string;
  readonly mtu?: number;
  readonly frags?: boolean;
  readonly result: { readonly netlink_errno?: number; readonly extack?: string };
}

function records(path: string): readonly (PacketRecord | AttachRecord)[] {
  const lines = readFileSync(path, 'utf8').split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as PacketRecord);
}

function packets(path: string): readonly PacketRecord[] {
  return records(path).filter((record): record is PacketRecord => record.type === 'packet');
}

/** Skips a test, with a notice, where the full set of measurements is absent. */
function needShared(context: TestContext): void {
  if (existsSync(WHOLE)) return;
  console.log('notice: ../shared/vectors/virtio is absent, only the sample is compared');
  context.skip();
}

interface Tally {
  equal: number;
  readonly skipped: Record<string, number>;
  readonly different: string[];
}

function replayAll(path: string, options: VirtioNetOptions = {}): Tally {
  const tally: Tally = { equal: 0, skipped: {}, different: [] };
  for (const record of packets(path)) {
    const result = replay(record, options);
    if (result.kind === 'equal') tally.equal++;
    else if (result.kind === 'skipped') {
      tally.skipped[result.why] = (tally.skipped[result.why] ?? 0) + 1;
    } else {
      const { kernel_version, rx_mode, program, note } = record;
      const label = `${record.id} ${kernel_version} ${rx_mode} ${program} ${note}`;
      tally.different.push(`${label}: ${result.differences.join('; ')}`);
    }
  }
  return tally;
}

// the guests had split rings; what the driver makes of a packet does not depend on it
test.each([
  {},
  { ring: 'packed', eventIdx: true },
  { ring: 'packed', inOrder: true, indirect: true },
] as const)('the sample of measured packets, %o', (options) => {
  const tally = replayAll(SAMPLE, options);
  expect(tally.different).toEqual([]);
  expect(tally.skipped).toEqual({});
  expect(tally.equal).toBe(packets(SAMPLE).length);
});

test('all measured attach attempts at an MTU, 6.12 and 6.18', (context) => {
  needShared(context);
  let compared = 0;
  for (const record of records(WHOLE)) {
    if (record.type !== 'attach' || !('case' in record)) continue;
    if (record.kernel_version.startsWith('6.1.') || record.rx_mode === 'big') continue;
    const { mtu, frags, result } = record;
    if (mtu === undefined || frags === undefined || record.case.includes('skb mode')) continue;
    const kernel = new DirectKernel(4 << 20);
    const rx = record.rx_mode === 'small' ? 'small' : 'mergeable';
    const net = createVirtioNet(kernel, { rx, queueSize: 64, mtu });
    let refusal = '';
    try {
      net.attachXdp(returns(VERDICT.PASS, { hasFrags: frags }));
    } catch (error) {
      refusal = error instanceof Error ? error.message.replace('-EINVAL: ', '') : 'unknown';
    }
    expect([record.case, refusal]).toEqual([record.case, result.extack ?? '']);
    expect(result.netlink_errno).toBe(refusal === '' ? 0 : -22);
    compared++;
  }
  console.log(`${compared} attach attempts equal`);
  expect(compared).toBeGreaterThan(20);
});

test('all measured packets of 6.12 and 6.18', (context) => {
  needShared(context);
  const tally = replayAll(WHOLE);
  console.log(`${tally.equal} equal, skipped: ${JSON.stringify(tally.skipped)}`);
  expect(tally.different).toEqual([]);
  expect(tally.equal).toBeGreaterThanOrEqual(400);
});
