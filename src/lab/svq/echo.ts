/**
 * Frames of random sizes in random pieces out through a shadowed transmit queue and back through a receive queue.
 *
 * Usage:
 *   echoFrames(lab, { mode: 'landed', seed: 5, count: 100 });      // [] or what was wrong
 */
import { Random } from '../../common/random.js';
import { netHeaderSize } from '../../virtio/net-features.js';
import type { SvqMode } from '../../vhost/queue.js';
import { ringProblem } from '../../vhost/leaks.js';
import { dataRing } from './cases/fault.js';
import type { SvqLab } from './rig.js';

const RING = 16;
const SMALLEST_FRAME = 60;

export interface EchoOptions {
  readonly mode: SvqMode;
  readonly seed: number;
  /** Frames each way. */
  readonly count: number;
}

export function echoFrames(lab: SvqLab, { mode, seed, count }: EchoOptions): string[] {
  const rig = lab.open({ mode, dataSize: RING, shadow: 'all' });
  const rx = dataRing(rig, 0);
  const tx = dataRing(rig, 1);
  const random = new Random(seed);
  const header = netHeaderSize(rig.net.features);
  const problems: string[] = [];
  for (let i = 0; i < count && problems.length < 10; i++) {
    const frame = randomFrame(random);
    rx.chain([], [header + random.below(40), 2000]);
    rig.kick(0);
    tx.chain([new Uint8Array(header), ...inPieces(random, frame)], []);
    rig.kick(1);
    const [sent] = rig.transmitted.splice(0);
    const result = rig.net.deliver(frame, { queue: 0 });
    const [received] = rx.takeUsed();
    const end = header + frame.length;
    const wrong = [
      sent && isSame(sent.bytes.subarray(header), frame) ? undefined : 'what left differs',
      result === 'delivered' ? undefined : result,
      received?.len === end ? undefined : `length ${received?.len}`,
      received && isSame(received.bytes.subarray(header, end), frame)
        ? undefined
        : 'what came differs',
      tx.takeUsed().length === 1 ? undefined : 'the chain sent did not come back',
      ...[...rig.net.svqs.values()].map((svq) => ringProblem(rig.kernel, svq)),
    ];
    for (const each of wrong) if (each !== undefined) problems.push(`frame ${i}: ${each}`);
  }
  rig.close();
  return problems;
}

function randomFrame(random: Random): Uint8Array {
  return Uint8Array.from({ length: SMALLEST_FRAME + random.below(900) }, () => random.below(256));
}

/** One to three pieces, none of them empty. */
function inPieces(random: Random, frame: Uint8Array): Uint8Array[] {
  const cuts = Array.from({ length: random.below(3) }, () => 1 + random.below(frame.length - 1));
  const marks = [0, ...new Set(cuts.toSorted((a, b) => a - b)), frame.length];
  return marks.slice(1).map((end, i) => frame.subarray(marks[i], end));
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
