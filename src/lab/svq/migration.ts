/**
 * A live migration: state built by random commands on one device, given to another, compared.
 *
 * As in QEMU the source is restarted first with all queues shadowed (SETUP of the migration); the destination
 * shadows what the source did before.
 *
 * Usage:
 *   const { commands, restored, same } = migrateRandom(lab, { mode: 'landed', seed: 7, count: 40 });
 */
import { Random } from '../../common/random.js';
import { negotiatedOffloads } from '../../virtio/device/control/state.js';
import { describeCommand } from '../../virtio/device/control/commands.js';
import { sameState } from '../../vhost/restore.js';
import type { SvqMode } from '../../vhost/queue.js';
import { randomCommand } from './commands.js';
import type { SvqLab } from './rig.js';
import { describeState } from './snapshot.js';

export interface Migration {
  /** Commands of the guest, and how many were accepted. */
  readonly commands: number;
  readonly accepted: number;
  readonly source: string;
  readonly destination: string;
  /** Commands that the destination was sent, in words. */
  readonly restored: readonly string[];
  /** The destination does with frames what the source did. */
  readonly same: boolean;
}

const PAIRS = 4;

export function migrateRandom(
  lab: SvqLab,
  { mode, seed, count }: { readonly mode: SvqMode; readonly seed: number; readonly count: number },
): Migration {
  const rig = lab.open({ mode });
  const random = new Random(seed);
  const offloads = negotiatedOffloads(rig.net.features);
  let accepted = 0;
  for (let i = 0; i < count; i++) {
    if (rig.send(randomCommand(random, PAIRS, offloads)) === 0) accepted++;
  }
  const source = rig.net.vdpa.net.control;
  rig.net.setShadow('all');
  rig.deviceLog.length = 0;
  rig.net.migrate({ shadow: 'cvq' });
  const destination = rig.net.vdpa.net.control;
  const migration: Migration = {
    commands: count,
    accepted,
    source: describeState(source),
    destination: describeState(destination),
    restored: rig.deviceLog.map(({ request }) => describeCommand(request)),
    same: sameState(source, destination),
  };
  rig.close();
  return migration;
}
