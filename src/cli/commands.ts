/** The nouns of the command line, in the order of the overview. */
import { bench } from './bench.js';
import { check } from './check.js';
import type { Command } from './command.js';
import { conformancePlugin } from './conformance-plugin.js';
import { csum } from './csum.js';
import { dump } from './dump.js';
import { ftrace } from './ftrace.js';
import { fuzz } from './fuzz.js';
import { layout } from './layout.js';
import { map } from './map.js';
import { museum } from './museum.js';
import { race } from './race.js';
import { rss } from './rss.js';
import { run } from './run.js';
import { smc } from './smc.js';
import { strategies } from './strategies.js';
import { svq } from './svq.js';
import { tour } from './tour.js';
import { trace } from './trace.js';
import { verify } from './verify.js';
import { xdp } from './xdp.js';

export const COMMANDS: readonly Command[] = [
  tour,
  run,
  dump,
  map,
  check,
  trace,
  strategies,
  ftrace,
  layout,
  xdp,
  csum,
  rss,
  smc,
  svq,
  fuzz,
  verify,
  race,
  museum,
  bench,
  conformancePlugin,
];
