/** Stops, starts and migrations at a bad moment, or with a device that refuses what it is given. */
import { popElement } from '../../../vhost/element.js';
import { SHADOW_VIRTQUEUE } from '../../../vhost/structs.js';
import {
  bytes,
  command,
  forwardedRing,
  INDIRECT,
  noteRing,
  outcomeOf,
  PLAIN,
  PROMISC_OFF,
  SMALL,
  type Fault,
} from './fault.js';

/** With a command that every start sends. */
const WITH_MAC = { ...SMALL, features: [...PLAIN, 'CTRL_MAC_ADDR'] } as const;

export const STOPS: readonly Fault[] = [
  {
    name: 'stop-in-flight',
    summary: 'a stop while two elements are with the device, then a start',
    options: { features: PLAIN, controlSize: 8, dataSize: 8 },
    optionsOf: (mode) => ({ shadow: mode === 'copy-v8' ? 'cvq' : 'all' }),
    run: (rig, notes, mode) => {
      const { ring, queue } = forwardedRing(rig, mode);
      rig.net.paused = true;
      for (let i = 0; i < 2; i++) {
        if (mode === 'copy-v8') ring.chain([PROMISC_OFF], [1]);
        else ring.chain([bytes([40, i])], []);
      }
      rig.kick(queue);
      rig.net.stop();
      noteRing(rig, notes, queue);
      rig.net.paused = false;
      rig.net.start();
      notes['sent'] = rig.transmitted.map((each) => each.bytes[12] ?? -1).join(' ');
    },
  },
  {
    name: 'stop-waiting',
    summary: 'a stop while an element waits for room, then a start',
    options: { features: INDIRECT, controlSize: 4, dataSize: 4 },
    optionsOf: (mode) => ({ shadow: mode === 'copy-v8' ? 'cvq' : 'all' }),
    run: (rig, notes, mode) => {
      const { ring, queue } = forwardedRing(rig, mode);
      rig.net.paused = true;
      const svq = rig.net.svq(queue);
      if (mode === 'copy-v8' && svq) {
        // an orderly guest never fills a ring of its own size: the element is made to wait by hand
        ring.chain([PROMISC_OFF], [1]);
        const { memory } = rig.kernel;
        const at = svq.address + SHADOW_VIRTQUEUE.offset.next_guest_avail_elem;
        memory.ram.setPointer(at, popElement(rig.kernel, svq));
      } else {
        for (let i = 0; i < 3; i++) ring.chain([bytes([32, 0]), bytes([32, 0])], [], true);
        rig.kick(queue);
      }
      rig.net.stop();
      noteRing(rig, notes, queue);
      rig.net.paused = false;
      rig.net.start();
      notes['sent'] = rig.transmitted.length;
    },
  },
  {
    name: 'restore-refused',
    summary: 'the device refuses a command of the state that a start gives it; then another start',
    options: WITH_MAC,
    run: (rig, notes) => {
      rig.net.stop();
      rig.net.vdpa.faults.control = 'refuse';
      notes['start'] = outcomeOf(() => rig.net.start());
      noteRing(rig, notes, rig.net.controlIndex);
      notes['next start'] = outcomeOf(() => rig.net.start());
      command(rig, PROMISC_OFF);
    },
  },
  {
    name: 'migrate-refused',
    summary: 'the destination of a migration refuses the state: the guest goes on at the source',
    options: WITH_MAC,
    run: (rig, notes) => {
      const source = rig.net.vdpa;
      const refuse = (): void => {
        rig.net.migrate({
          prepare: (destination) => (destination.faults.control = 'refuse'),
        });
      };
      notes['migrated'] = outcomeOf(refuse);
      notes['at the source'] = rig.net.vdpa === source;
      command(rig, PROMISC_OFF);
    },
  },
  {
    name: 'migrate-in-command',
    summary: 'a migration while the device works on a command',
    options: SMALL,
    run: (rig, notes) => {
      rig.net.vdpa.beforeWork = () => {
        notes['migrated'] = outcomeOf(() => rig.net.migrate());
      };
      command(rig, PROMISC_OFF);
    },
  },
];
