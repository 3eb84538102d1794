/**
 * What goes wrong between a guest, a shadow virtqueue and a device, case by case, in every mode.
 *
 * Each case drives a guest ring by hand, makes a driver, a device or a map fail, and says what came of it: what
 * the guest got back, how many commands reached the device, whether the VMM ended itself, what leaked. A
 * VMM that hangs is one whose device had no turn left (`outstanding`); an allocation of 1 GiB is a number.
 *
 * Usage:
 *   const outcome = runFault(lab, findFault('unmap-fails'), 'copy-v8');
 *   outcome.guest;          // []: the guest got nothing back
 *   outcome.outstanding;    // 1
 */
import { InputError } from '../../common/errors.js';
import { VIRTIO_CONFIG_S } from '../../virtio/transport.js';
import { VmmAbort } from '../../vhost/abort.js';
import { census, type Leaks } from '../../vhost/leaks.js';
import type { SvqMode } from '../../vhost/queue.js';
import type { Fault } from './cases/fault.js';
import { FAULTS } from './fault-cases.js';
import type { SvqLab, SvqRig } from './rig.js';

export interface FaultOutcome {
  /** Chains that the guest got back: ack and length. */
  readonly guest: readonly string[];
  /** Chains that it did not get back. */
  readonly outstanding: number;
  /** Lengths of the commands that reached the device. */
  readonly device: readonly number[];
  /** What the vDPA device found wrong with what was forwarded. */
  readonly deviceError: string | undefined;
  /** The guest's device needs a reset. */
  readonly broken: boolean;
  /** The VMM ended itself. */
  readonly abort: string | undefined;
  /** The device was not started. */
  readonly refused: string | undefined;
  /** Bytes of the VMM's largest allocation. */
  readonly largestRequest: number;
  readonly leaks: Leaks;
  /** Descriptors that two chains in flight shared. */
  readonly shared: number;
  /** The same after a stop. */
  readonly afterStop: Leaks;
  readonly log: readonly string[];
  /** What else a case looks at. */
  readonly notes: Readonly<Record<string, string | number | boolean>>;
}

export function findFault(name: string): Fault {
  const fault = FAULTS.find((each) => each.name === name);
  if (fault) return fault;
  throw new InputError(`no fault '${name}' (there are ${FAULTS.map((f) => f.name).join(', ')})`);
}

export function runFault(lab: SvqLab, fault: Fault, mode: SvqMode): FaultOutcome {
  const rig = lab.open({ ...fault.options, mode, ...fault.optionsOf?.(mode) });
  const notes: Record<string, string | number | boolean> = {};
  const refused = rig.net.isRunning ? undefined : (rig.net.error ?? '');
  let abort: string | undefined;
  try {
    if (refused === undefined) fault.run(rig, notes, mode);
  } catch (error) {
    if (!(error instanceof VmmAbort)) throw error;
    abort = error.message;
  }
  const before = rig.net.leaks();
  const shared = sharedDescriptors(rig);
  const guest = guestSide(rig);
  const outstanding = [rig.control, ...rig.data].reduce((sum, ring) => sum + ring.outstanding, 0);
  if (abort === undefined) rig.net.stop();
  const outcome: FaultOutcome = {
    guest,
    outstanding,
    device: rig.deviceLog.map(({ request }) => request.length),
    deviceError: rig.net.vdpa.net.error,
    broken: (rig.net.status & VIRTIO_CONFIG_S.NEEDS_RESET) !== 0,
    abort,
    refused,
    largestRequest: rig.net.vmm.largestRequest,
    leaks: before,
    shared,
    afterStop: rig.net.leaks(),
    log: [...rig.net.log],
    notes,
  };
  rig.close();
  return outcome;
}

function sharedDescriptors(rig: SvqRig): number {
  if (!rig.net.isRunning) return 0;
  return [...rig.net.svqs.values()].reduce((sum, svq) => sum + census(rig.kernel, svq).shared, 0);
}

function guestSide(rig: SvqRig): string[] {
  const lines: string[] = [];
  for (const { len, bytes, known } of rig.control.takeUsed()) {
    const ack = bytes.length === 0 ? 'no room for an ack' : `ack ${bytes[0]}`;
    lines.push(known ? `${ack}, len ${len}` : `given back twice, len ${len}`);
  }
  for (const ring of rig.data) {
    for (const { len } of ring.takeUsed()) lines.push(`data, len ${len}`);
  }
  return lines;
}
