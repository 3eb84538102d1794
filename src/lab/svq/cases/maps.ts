/** Maps that the device refuses to make or to undo, and IOVAs that run out. */
import type { VdpaFaults } from '../../../vhost/vdpa-device.js';
import { command, PROMISC_OFF, SMALL, type Fault } from './fault.js';

function mapFault(
  name: string,
  summary: string,
  kind: Exclude<keyof VdpaFaults, 'control'>,
  which: number,
): Fault {
  return {
    name,
    summary,
    options: SMALL,
    run: (rig) => {
      rig.net.vdpa.faults[kind] = which;
      command(rig, PROMISC_OFF);
    },
  };
}

const RINGS_PLUS_ONE = { first: 0x1000n, last: 0x3fffn };

export const MAPS: readonly Fault[] = [
  mapFault('map-fails-out', 'the device refuses the first map of a command', 'map', 0),
  mapFault('map-fails-in', 'the device refuses the second map of a command', 'map', 1),
  {
    name: 'iova-exhausted',
    summary: 'IOVAs for the rings and one page more',
    options: { ...SMALL, iovaRange: RINGS_PLUS_ONE },
    run: (rig) => void command(rig, PROMISC_OFF),
  },
  mapFault('unmap-fails', 'the device refuses the first unmap', 'unmap', 0),
  mapFault('unmap-fails-second', 'the device refuses the second unmap', 'unmap', 1),
];
