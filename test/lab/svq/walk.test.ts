/** Commands step by step: what is refused and why, announcements, tables that are too long, the demo of a migration. */
import { expect, it } from 'vitest';
import { migrateRandom } from '../../../src/lab/svq/migration.js';
import { SvqLab } from '../../../src/lab/svq/rig.js';
import { walkCommand, type Walk } from '../../../src/lab/svq/walk.js';
import { SVQ_MODES } from '../../../src/vhost/queue.js';
import { DirectKernel } from '../../virtio/helpers/direct-kernel.js';

const lab = new SvqLab(new DirectKernel(8 << 20));

const inEach = <T>(word: string, of: (walk: Walk) => T): T[] =>
  SVQ_MODES.map((mode) => of(walkCommand(lab, word, { mode })));
const same = <T>(value: T): T[] => SVQ_MODES.map(() => value);

it.each([
  ['hash-tunnel=0x10', 'HASH_TUNNEL_SET without HASH_TUNNEL'],
  ['coal-rx=15,10', 'NOTF_COAL_RX_SET without NOTF_COAL'],
  ['stats-get=0', 'STATS_GET without DEVICE_STATS'],
  ['rss-ctx=1', 'RSS_CTX_ADD without RSS_CONTEXT'],
  ['vlan-add=4096', 'VLAN_ADD: VLAN 4096'],
])('%s is refused by the device', (word, why) => {
  expect(inEach(word, ({ ack, refusals }) => [ack, ...refusals])).toEqual(same([1, why]));
});

it('a guest announces itself when it is asked to; the proposal asks a device that knows nothing of it', () => {
  expect(inEach('announce', ({ ack }) => ack)).toEqual([0, 1, 0, 0]);
});

it('a table of more than a page becomes promiscuous mode, but in the proposal', () => {
  const device = (walk: Walk): boolean =>
    walk.steps.some(({ changes }) => changes.some(({ after }) => after?.includes(' len 3 READ')));
  expect(inEach('mac-table=700,2', device)).toEqual([true, false, true, true]);
  expect(inEach('mac-table=700,2', ({ ack }) => ack)).toEqual(same(0));
});

it.each(SVQ_MODES)('a destination does what the source did, %s', (mode) => {
  for (let seed = 1; seed < 4; seed++) {
    const { same: isSame, source, destination } = migrateRandom(lab, { mode, seed, count: 15 });
    expect([isSame, source]).toEqual([true, expect.any(String)]);
    expect(destination).not.toContain('overflown');
  }
});
