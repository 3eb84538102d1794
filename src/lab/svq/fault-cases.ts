/** The cases of `faults.ts`, in the order in which they are shown. */
import { BROKEN_CHAINS } from './cases/broken-chains.js';
import { COMMANDS } from './cases/commands.js';
import { DEVICE } from './cases/device.js';
import type { Fault } from './cases/fault.js';
import { MAPS } from './cases/maps.js';
import { STOPS } from './cases/stops.js';

export const FAULTS: readonly Fault[] = [
  ...BROKEN_CHAINS,
  ...COMMANDS,
  ...DEVICE,
  ...MAPS,
  ...STOPS,
];
