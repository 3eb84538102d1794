/**
 * The bug museum: real bugs of the kernel, each as it was and as it was fixed.
 *
 * Usage:
 *   for (const exhibit of EXHIBITS) {
 *     const { broken, fixed, ok } = await visit(exhibit, bootLab);
 *   }
 */
import { branchRange } from './branch-range.js';
import type { Boot, Exhibit, Observation } from './exhibit.js';
import { twelveArguments, wideReturn } from './function-models.js';
import { packetBorders } from './xdp-borders.js';
import { imageOverflow, truncatedImage } from './image-address.js';
import { originalByBlr, padOfReplacement } from './landing-pads.js';
import {
  initPlt,
  pltCoherence,
  pltCompare,
  rangeCheck,
  sleepingOriginal,
  staleDirect,
  tornTarget,
} from './patching.js';
import { hashKeySize, innerHash, rssLayout, rssWithoutFeature } from './receive-hash.js';
import { severalChunks } from './several-chunks.js';
import { linearizeOverflow, postedHeadroom, trustedLength } from './receive-buffers.js';
import { flagsOfThePage, partialBeforeXdp, smallCsumStart } from './receive-checksum.js';
import { lateFlush, staleRedirect } from './redirects.js';
import { runStatistics } from './run-statistics.js';
import { signedDivision } from './signed-division.js';
import { tailCallHierarchy } from './tail-call-hierarchy.js';

/** In the order of their numbers. */
export const EXHIBITS: readonly Exhibit[] = [
  branchRange,
  originalByBlr,
  padOfReplacement,
  truncatedImage,
  imageOverflow,
  runStatistics,
  tornTarget,
  tailCallHierarchy,
  twelveArguments,
  wideReturn,
  sleepingOriginal,
  rangeCheck,
  pltCompare,
  initPlt,
  pltCoherence,
  staleDirect,
  postedHeadroom,
  linearizeOverflow,
  partialBeforeXdp,
  flagsOfThePage,
  trustedLength,
  severalChunks,
  lateFlush,
  hashKeySize,
  rssWithoutFeature,
  rssLayout,
  innerHash,
  smallCsumStart,
  staleRedirect,
  packetBorders,
  signedDivision,
];

export interface Visit {
  readonly exhibit: Exhibit;
  readonly broken: Observation;
  readonly fixed: Observation;
  /** The bug shows where it is and does not where it was fixed. */
  readonly ok: boolean;
}

export async function visit(exhibit: Exhibit, boot: Boot): Promise<Visit> {
  const broken = await exhibit.run('broken', boot);
  const fixed = await exhibit.run('fixed', boot);
  return { exhibit, broken, fixed, ok: !broken.right && fixed.right };
}
