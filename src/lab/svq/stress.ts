/**
 * A shadowed device under random commands, frames, faults, stops and migrations, looked at after every step.
 *
 * Every frame that the guest sends carries a number; it must leave the device once, and its chain must come
 * back once. Every command's chain comes back once. After each step each descriptor of each shadow ring is either
 * free or in one chain, and the queue counts as many free ones as there are.
 *
 * Usage:
 *   const stress = new SvqStress(lab, 'transactional', 7);
 *   for (let i = 0; i < 1000; i++) stress.step();
 *   stress.finish();           // [] or what was wrong
 */
import { InputError } from '../../common/errors.js';
import { Random } from '../../common/random.js';
import { negotiatedOffloads } from '../../virtio/device/control/state.js';
import { SHADOW_VIRTQUEUE } from '../../vhost/structs.js';
import { ringProblem } from '../../vhost/leaks.js';
import type { SvqMode } from '../../vhost/queue.js';
import type { ControlFault } from '../../vhost/vdpa-device.js';
import { randomCommand } from './commands.js';
import type { GuestRing } from './guest-ring.js';
import type { SvqLab, SvqRig } from './rig.js';

const HEADER = 12;
const DATA_SIZE = 16;
const CONTROL_SIZE = 16;
/** Few, because each restart gives the device all of them. */
const VLANS = 16;

const FAULTS: readonly ControlFault[] = [
  'id-out-of-range',
  'id-not-outstanding',
  'id-twice',
  'length-0',
  'length-too-long',
  'silent',
  'ack',
  'refuse',
  'rewrite-next',
];

export class SvqStress {
  readonly problems: string[] = [];
  /** What was done, by kind. */
  readonly counts = {
    sent: 0,
    delivered: 0,
    received: 0,
    commands: 0,
    stops: 0,
    switches: 0,
    migrations: 0,
    failedStarts: 0,
    faults: 0,
  };
  readonly #rig: SvqRig;
  readonly #random: Random;
  readonly #rx: GuestRing;
  readonly #tx: GuestRing;
  #nextFrame = 0;
  #seenFrames = 0;
  #steps = 0;

  /** Modes that keep what they promise are the strict ones; others are here to be looked at. */
  constructor(lab: SvqLab, mode: SvqMode, seed: number) {
    this.#random = new Random(seed);
    this.#rig = lab.open({
      mode,
      shadow: 'all',
      dataSize: DATA_SIZE,
      controlSize: CONTROL_SIZE,
      pollBudget: 3,
    });
    const [rx, tx] = this.#rig.data;
    if (!rx || !tx) throw new InputError('no data queues');
    this.#rx = rx;
    this.#tx = tx;
  }

  step(): void {
    this.#steps++;
    // never for long: without the device nothing happens
    if (this.#rig.net.paused && this.#random.below(3) === 0) this.#togglePause();
    const kind = this.#random.below(100);
    if (kind < 30) this.#send();
    else if (kind < 45) this.#post();
    else if (kind < 60) this.#deliver();
    else if (kind < 85) this.#command();
    else if (kind < 93) this.#togglePause();
    else if (kind < 96) this.#restart();
    else if (kind < 97) this.#switch();
    else if (kind < 98) this.#migrate();
    else this.#fault();
    this.#collect();
    this.#check();
  }

  /** Lets everything come back; all that was wrong. */
  finish(): readonly string[] {
    const { net } = this.#rig;
    net.vdpa.faults.control = undefined;
    net.paused = false;
    // an unanswered command keeps its descriptors until the stop
    this.#restart();
    net.pump();
    this.#collect();
    if (this.#seenFrames !== this.#nextFrame) {
      this.#wrong(`${this.#nextFrame} frames were sent, ${this.#seenFrames} left`);
    }
    const left = this.#tx.outstanding + this.#rig.control.outstanding;
    if (left > 0) this.#wrong(`${left} chains did not come back`);
    net.stop();
    this.#checkLeaks();
    this.#rig.close();
    return this.problems;
  }

  #wrong(what: string): void {
    this.problems.push(`step ${this.#steps}: ${what}`);
  }

  /** A frame in one to three pieces. */
  #send(): void {
    const pieces = 1 + this.#random.below(3);
    if (this.#tx.freeDescriptors < pieces) return;
    const frame = new Uint8Array(HEADER + 20 + this.#random.below(200));
    new DataView(frame.buffer).setUint32(HEADER + 16, this.#nextFrame++, true);
    const cuts = Array.from({ length: pieces - 1 }, () => 1 + this.#random.below(frame.length - 1));
    const marks = [0, ...new Set(cuts.toSorted((a, b) => a - b)), frame.length];
    const parts = marks.slice(1).map((end, i) => frame.subarray(marks[i], end));
    this.#tx.chain(parts, []);
    this.counts.sent++;
    this.#rig.kick(1);
  }

  #post(): void {
    const size = 64 + this.#random.below(400);
    const split = 1 + this.#random.below(size - 1);
    if (this.#rx.freeDescriptors < 2) return;
    this.#rx.chain([], [split, size - split]);
    this.#rig.kick(0);
  }

  #deliver(): void {
    const { net } = this.#rig;
    if (!net.isRunning || net.paused) return;
    const frame = new Uint8Array(14 + this.#random.below(300));
    if (net.deliver(frame, { queue: 0 }) === 'delivered') this.counts.delivered++;
  }

  #command(): void {
    const { control, net } = this.#rig;
    // in mode translate a device that answers late writes into what is other memory then
    if (control.freeDescriptors < 3 || (net.paused && net.mode === 'translate')) return;
    const request = randomCommand(this.#random, 4, negotiatedOffloads(net.features), VLANS);
    if (this.#random.below(8) === 0) {
      net.vdpa.faults.control = this.#random.pick(FAULTS);
      this.counts.faults++;
    }
    control.chain([request.subarray(0, 2), request.subarray(2)], [1]);
    this.counts.commands++;
    this.#rig.kick();
    net.vdpa.faults.control = undefined;
  }

  #togglePause(): void {
    const { net } = this.#rig;
    net.paused = !net.paused;
    net.pump();
  }

  #restart(): void {
    const { net } = this.#rig;
    this.counts.stops++;
    net.stop();
    this.#start(() => net.start());
  }

  /** What live migration does before and after: data queues are shadowed, or not. */
  #switch(): void {
    this.counts.switches++;
    this.#start(() => this.#rig.net.setShadow(this.#random.pick(['all', 'cvq'])));
  }

  #migrate(): void {
    this.counts.migrations++;
    this.#start(() => void this.#rig.net.migrate());
  }

  /** A start may fail when a map does; then it is tried again. */
  #start(action: () => void): void {
    const { net } = this.#rig;
    const wasPaused = net.paused;
    net.paused = false;
    try {
      action();
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      net.vdpa.faults.map = undefined;
      net.vdpa.faults.unmap = undefined;
      this.counts.failedStarts++;
      if (!net.isRunning) this.#checkLeaks();
      net.start();
    }
    net.paused = wasPaused;
  }

  /** The next maps or unmaps fail, now or some calls later. */
  #fault(): void {
    this.counts.faults++;
    const kind = this.#random.below(2) === 0 ? 'map' : 'unmap';
    this.#rig.net.vdpa.faults[kind] = this.#random.below(6);
  }

  #collect(): void {
    const { control, transmitted } = this.#rig;
    for (const ring of [this.#rx, this.#tx, control]) {
      for (const { id, known, len, bytes } of ring.takeUsed()) {
        if (!known) this.#wrong(`chain ${id} came back twice`);
        if (len > bytes.length) this.#wrong(`chain ${id}: ${len} bytes in ${bytes.length}`);
        if (ring === this.#rx) this.counts.received++;
      }
    }
    for (const { bytes } of transmitted.splice(0)) {
      const frame = new DataView(bytes.buffer, bytes.byteOffset).getUint32(HEADER + 16, true);
      if (frame !== this.#seenFrames) this.#wrong(`frame ${frame} left, not ${this.#seenFrames}`);
      this.#seenFrames = frame + 1;
    }
  }

  #checkLeaks(): void {
    const { descriptors, mappings, buffers } = this.#rig.net.leaks();
    if (descriptors !== 0 || mappings !== 0 || buffers !== 0) {
      this.#wrong(`leaks ${descriptors}/${mappings}/${buffers}`);
    }
  }

  #check(): void {
    this.#checkLeaks();
    const { kernel, net } = this.#rig;
    for (const [index, svq] of net.svqs) {
      if (kernel.memory.ram.u8(svq.address + SHADOW_VIRTQUEUE.offset.scratch_running) === 0)
        continue;
      const problem = ringProblem(kernel, svq);
      if (problem !== undefined) this.#wrong(`queue ${index}: ${problem}`);
    }
  }
}
