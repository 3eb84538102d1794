/**
 * Tables of a kernel's address space and of what attaching a BPF trampoline does in it: what
 * `trampolab layout` prints.
 *
 * Usage:
 *   const survey = surveyLayout(layoutOf({ version: '6.1', kaslrSeed: 1n }));
 *   addressRows(survey).map(({ start, what }) => `${start.toString(16)} ${what}`);
 */
import type { FtracePlts, ReachModule } from '../kernel/ftrace/reach.js';
import {
  attachOutcome,
  describeOutcome,
  programOutcome,
  type AttachOutcome,
} from '../kernel/layout/outcome.js';
import {
  LAYOUT_PROFILES,
  LAYOUT_VERSIONS,
  type LayoutProfile,
  type LayoutVersion,
} from '../kernel/layout/profile.js';
import type { LayoutSurvey, Surveyed } from '../kernel/layout/survey.js';

export interface AddressRow {
  readonly start: bigint;
  readonly end: bigint;
  readonly what: string;
}

/** Regions, windows and what was placed, by address; what holds others comes before them. */
export function addressRows({ layout, image, modules }: LayoutSurvey): AddressRow[] {
  const { map, profile } = layout;
  const rows: AddressRow[] = [
    { ...map.linear, what: 'linear map' },
    { ...map.modules, what: 'module region' },
    { ...map.vmalloc, what: 'vmalloc space' },
    { ...map.vmemmap, what: 'vmemmap' },
    { start: layout.text, end: layout.end, what: 'kernel image' },
    ...layout.moduleWindows.map((window, i) => ({
      ...window,
      what: i === 0 ? 'modules are tried here first' : 'modules are tried here next',
    })),
    ...modules.map(({ entry, size }, i) => ({
      start: entry,
      end: entry + BigInt(size),
      what: `module ${i + 1}`,
    })),
    {
      start: image,
      end: image + (profile.bpf === 'packs' ? 2n << 20n : 4096n),
      what: profile.bpf === 'packs' ? 'BPF program pack' : 'BPF image',
    },
  ];
  if (map.bpfRegion) rows.push({ ...map.bpfRegion, what: 'BPF region' });
  return rows.sort((a, b) => {
    if (a.start !== b.start) return a.start < b.start ? -1 : 1;
    if (a.end === b.end) return 0;
    return a.end > b.end ? -1 : 1;
  });
}

export interface AttachRow extends Surveyed {
  readonly target: string;
}

/** What attaching to each target does. */
export function attachRows({ kernel, modules, program }: LayoutSurvey): AttachRow[] {
  return [
    { target: 'kernel function', ...kernel },
    ...modules.map((module, i) => ({ target: `function of module ${i + 1}`, ...module })),
    { target: 'BPF program', ...program },
  ];
}

export interface OutcomeRow {
  readonly profile: LayoutProfile;
  readonly near: AttachOutcome;
  readonly far: AttachOutcome;
  /** Function of a module that is out of range of the kernel and of the image. */
  readonly farModule: AttachOutcome;
  readonly program: AttachOutcome;
}

const ENTRY = 0xffff_8000_8040_0000n;
const FAR = 1n << 40n;
const CALLERS: FtracePlts = {
  ftrace_caller: 0xffff_8000_8001_0040n,
  ftrace_regs_caller: 0xffff_8000_8001_0400n,
};

/** Each version with an image in and one out of BL range. */
export function outcomeRows(versions: readonly LayoutVersion[] = LAYOUT_VERSIONS): OutcomeRow[] {
  const farEntry = ENTRY + (1n << 30n);
  const module: ReachModule = {
    name: 'module',
    plts: { ftrace_caller: farEntry + 0x1000n, ftrace_regs_caller: farEntry + 0x100cn },
    initPlts: undefined,
    inInit: () => false,
  };
  return versions.map((version) => {
    const profile = LAYOUT_PROFILES[version];
    const attach = (image: bigint, entry = ENTRY, owner?: ReachModule): AttachOutcome =>
      attachOutcome(profile, { entry, module: owner }, image, CALLERS);
    return {
      profile,
      near: attach(ENTRY + (1n << 20n)),
      far: attach(ENTRY + FAR),
      farModule: attach(farEntry + FAR, farEntry, module),
      program: programOutcome(profile, ENTRY + 4n, ENTRY + FAR),
    };
  });
}

/** The table of `outcomeRows` as cells, its heading first. */
export function outcomeCells(rows: readonly OutcomeRow[]): string[][] {
  return [
    ['kernel', 'image in range', 'out of range', 'far module', 'far program'],
    ...rows.map(({ profile, near, far, farModule, program }) => [
      profile.kernels,
      ...[near, far, farModule, program].map(describeOutcome),
    ]),
  ];
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

/** `98 MiB`, `31.5 TiB`, `-128 MiB`: three digits at most behind the point, only if they say something. */
export function sizeText(bytes: bigint): string {
  const magnitude = Number(bytes < 0n ? -bytes : bytes);
  const unit = Math.min(UNITS.length - 1, Math.floor(Math.log2(Math.max(magnitude, 1)) / 10));
  const digits = Number((magnitude / 2 ** (10 * unit)).toFixed(3));
  return `${bytes < 0n ? '-' : ''}${digits} ${UNITS[unit]}`;
}

/** Beyond so many MiB no byte decides anything. */
const EXACT_MEBIBYTES = 1024n;

/** A distance with its bytes where they may decide: `128 MiB - 4`. */
export function distanceText(distance: bigint): string {
  const mebibytes = (distance + (1n << 19n)) >> 20n;
  const rest = distance - (mebibytes << 20n);
  const magnitude = rest < 0n ? -rest : rest;
  const isExact = mebibytes >= -EXACT_MEBIBYTES && mebibytes <= EXACT_MEBIBYTES;
  if (mebibytes === 0n || !isExact || rest === 0n || magnitude > 4096n) return sizeText(distance);
  return `${sizeText(mebibytes << 20n)} ${rest < 0n ? '-' : '+'} ${magnitude}`;
}
