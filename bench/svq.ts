/**
 * Control commands per second through a shadow virtqueue, and bytes copied for each, by mode.
 *
 * The same commands in the same run: promiscuous mode on and off, and an address table of 40 entries. Speeds are
 * per second of processor time; the ratio is to mode `translate`, which copies nothing.
 */
import { controlCommand } from '../src/lab/svq/commands.js';
import { SvqLab } from '../src/lab/svq/rig.js';
import { bootLab } from '../src/node/boot.js';
import { SVQ_MODES } from '../src/vhost/queue.js';
import type { BenchRow } from './row.js';

const MICROSECONDS = 400_000;
const WORDS = ['promisc=off', 'promisc=on', 'mac-table=20,20'] as const;
const WARM_UP = 1000;
/** Passes between two looks at the clock. */
const BATCH = 50;

export async function benchSvq(): Promise<readonly BenchRow[]> {
  const lab = new SvqLab(await bootLab());
  const requests = WORDS.map((word) => controlCommand(word).request);
  const rows: BenchRow[] = [];
  let base: number | undefined;
  for (const mode of SVQ_MODES) {
    const rig = lab.open({ mode });
    const pass = (): void => {
      for (const request of requests) {
        if (rig.send(request) !== 0) throw new Error(`${mode}: a command was refused`);
      }
    };
    for (let i = 0; i < WARM_UP; i++) pass();
    const copiedBefore = rig.net.vmm.copied;
    const before = process.cpuUsage();
    let commands = 0;
    let used = 0;
    while (used < MICROSECONDS) {
      for (let i = 0; i < BATCH; i++) pass();
      commands += BATCH * requests.length;
      const { user, system } = process.cpuUsage(before);
      used = user + system;
    }
    const rate = (commands * 1e6) / used;
    base ??= rate;
    rows.push(
      { name: mode, value: rate / 1000, unit: 'k commands/s', ratio: rate / base },
      {
        name: `${mode}, copied`,
        value: (rig.net.vmm.copied - copiedBefore) / commands,
        unit: 'bytes/command',
      },
    );
    rig.close();
  }
  return rows;
}
