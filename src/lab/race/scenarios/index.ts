/** All scenarios, in the order of the list. */
import type { Scenario } from '../scenario.js';
import {
  attachFar,
  attachNear,
  farNear,
  imageExchange,
  modifyDirect,
  nearFar,
  secondDirect,
} from './direct.js';
import { directByIp } from './direct-by-ip.js';
import { fexitSleep, imageFree } from './images.js';
import { moduleUnload } from './modules.js';
import { disable, enable, list } from './ops.js';
import { pokeLong, pokeLongShort, pokeShortLong } from './poke.js';
import { traceOp } from './trace-op.js';

export const SCENARIOS: readonly Scenario[] = [
  enable,
  disable,
  list,
  traceOp,
  attachNear,
  attachFar,
  nearFar,
  farNear,
  imageExchange,
  modifyDirect,
  secondDirect,
  directByIp,
  pokeLong,
  pokeShortLong,
  pokeLongShort,
  imageFree,
  fexitSleep,
  moduleUnload,
];
