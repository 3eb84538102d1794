/**
 * One control command on its way from the guest's ring to the device and back, step by step.
 *
 * Usage:
 *   const { steps, ack } = walkCommand(lab, 'promisc=off', { mode: 'landed' });
 *   steps[0]?.changes;
 */
import type { Leaks } from '../../vhost/leaks.js';
import type { SvqMode } from '../../vhost/queue.js';
import type { VirtioNetFeature } from '../../virtio/net-features.js';
import { VIRTIO_NET_CTRL_ANNOUNCE } from '../../virtio/device/control/commands.js';
import { controlCommand } from './commands.js';
import { RIG_FEATURES, type RigOptions, type SvqLab } from './rig.js';
import { changes, snapshot, type Change, type Snapshot } from './snapshot.js';

export interface WalkStep {
  readonly name: string;
  readonly what: string;
  readonly changes: readonly Change[];
}

export interface Walk {
  readonly mode: SvqMode;
  readonly request: Uint8Array;
  /** Before the guest does anything. */
  readonly start: Snapshot;
  readonly steps: readonly WalkStep[];
  /** `undefined`: none came. */
  readonly ack: number | undefined;
  readonly reply: Uint8Array;
  /** Why the device refused what it got. */
  readonly refusals: readonly string[];
  readonly log: readonly string[];
  readonly leaks: Leaks;
}

const GUEST = 'guest';
const ANNOUNCE = VIRTIO_NET_CTRL_ANNOUNCE;

/** None of these has state that is restored at start: the command is the first on the shadow ring. */
const FEATURES: readonly VirtioNetFeature[] = RIG_FEATURES.filter(
  (name) => !['CTRL_MAC_ADDR', 'MQ', 'RSS', 'HASH_REPORT'].includes(name),
);

/** Features that commands of a class need besides. */
const FEATURES_OF_CLASS: Readonly<Record<number, readonly VirtioNetFeature[]>> = {
  1: ['CTRL_MAC_ADDR'],
  4: ['MQ', 'RSS', 'HASH_REPORT'],
};

/** What each step is. */
const STEPS: Readonly<Record<string, string>> = {
  [GUEST]: 'the guest makes the command available and kicks',
  pop: "the VMM takes the chain off the guest's ring",
  'copy out': 'the readable part is copied into memory of the VMM',
  'map out': 'the copy is mapped for the device, read-only',
  'copy in': 'room for the writable part is allocated',
  'map in': 'the room for the answer is mapped for the device',
  add: 'the shadow ring gets the descriptors',
  device: 'the device reads the command, executes it, writes the ack',
  get_buf: 'the VMM takes the used element; the descriptors are free',
  unmap: 'the copies are unmapped, their bytes given to the guest, and freed',
  model: "the VMM's model of the device follows",
  push_elem: 'the guest gets its chain back',
  used: 'the guest gets its chain back, and a signal',
};

export function walkCommand(lab: SvqLab, word: string, options: RigOptions): Walk {
  const { request, replyBytes } = controlCommand(word);
  const steps: WalkStep[] = [];
  let watching = false;
  let before: Snapshot = new Map();
  const note = (name: string): void => {
    if (!watching) return;
    const now = snapshot(rig);
    steps.push({ name, what: STEPS[name] ?? '', changes: changes(before, now) });
    before = now;
  };
  const features = [...FEATURES, ...(FEATURES_OF_CLASS[request[0] ?? 0] ?? [])];
  const rig = lab.open({ controlSize: 8, features, ...options, onStage: note });
  // a guest announces itself when it is asked to
  if (request[0] === ANNOUNCE) rig.net.requestAnnounce();
  rig.deviceLog.length = 0;
  const start = snapshot(rig);
  before = start;
  watching = true;
  const data = request.subarray(2);
  const out = data.length > 0 ? [request.subarray(0, 2), data] : [request];
  const head = rig.control.chain(out, [1, ...(replyBytes > 0 ? [replyBytes] : [])]);
  note(GUEST);
  rig.kick();
  watching = false;
  const answer = rig.control.takeUsed().find(({ id }) => id === head);
  const walk: Walk = {
    mode: rig.net.mode,
    request,
    start,
    steps,
    ack: answer?.bytes[0],
    reply: answer?.bytes.slice(1, answer.len) ?? new Uint8Array(0),
    refusals: rig.deviceLog.flatMap(({ why }) => (why === undefined ? [] : [why])),
    log: [...rig.net.log],
    leaks: rig.net.leaks(),
  };
  rig.close();
  return walk;
}
