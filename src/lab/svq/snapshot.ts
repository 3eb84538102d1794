/**
 * Everything that one command touches, as named lines: rings, descriptors, IOVA map, buffers, counters, state.
 *
 * Usage:
 *   const before = snapshot(rig);
 *   const after = snapshot(rig);
 *   changes(before, after);      // [{ name: 'shadow avail', before: 'idx 0', after: 'idx 1 ring 0' }, ...]
 */
import { bytesToHex } from '../../common/bytes.js';
import type { ControlState } from '../../virtio/device/control/state.js';
import {
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
} from '../../virtio/ring/split-ring.js';
import { SHADOW_VIRTQUEUE, SVQ_VRING } from '../../vhost/structs.js';
import type { Ram } from '../../cpu/ram.js';
import type { SvqRig } from './rig.js';

/** By name, in the order in which they are shown. */
export type Snapshot = ReadonlyMap<string, string>;

export interface Change {
  readonly name: string;
  /** `undefined`: it was not there. */
  readonly before: string | undefined;
  readonly after: string | undefined;
}

const S = SHADOW_VIRTQUEUE.offset;
const R = SVQ_VRING;
/** Bytes of a buffer that are shown. */
const SHOWN = 32;
/** The buffers' own pages are longer than what is in them. */
const shownBytes = (ram: Ram, at: number, size: number): string => {
  const hex = bytesToHex(ram.slice(at, Math.min(size, SHOWN)));
  return size > SHOWN ? `${hex}... (${size} bytes)` : hex;
};

export function snapshot(rig: SvqRig): Snapshot {
  const { kernel, net, control } = rig;
  const { ram } = kernel.memory;
  const lines = new Map<string, string>();
  const { num } = control;
  ring(lines, ram, 'guest', num, control.desc, control.avail, control.used);
  const svq = net.svq(net.controlIndex)?.address;
  if (svq !== undefined && net.isRunning) {
    const [desc, avail, used] = [R.desc, R.avail, R.used].map((field) => ram.pointer(svq + field));
    ring(lines, ram, 'shadow', num, desc ?? 0, avail ?? 0, used ?? 0);
    lines.set(
      'shadow queue',
      `last_avail_idx ${net.queuePosition(net.controlIndex) ?? 0}, ` +
        `free_head ${ram.u32(svq + S.free_head)}, num_free ${ram.s32(svq + S.num_free)}, ` +
        `shadow_avail_idx ${ram.u16(svq + S.shadow_avail_idx)}, ` +
        `last_used_idx ${ram.u16(svq + S.last_used_idx)}`,
    );
  }
  for (const { iova, size, perm, kind } of net.tree.maps) {
    const name = `IOVA ${iova.toString(16)}`;
    const what = kind === 'gpa' ? 'guest memory' : 'VMM memory';
    const asid = net.vdpa.spaces.find((space) => space.entries.some((e) => e.iova === iova))?.asid;
    const where = asid === undefined ? 'not in the device' : `ASID ${asid}`;
    lines.set(name, `${size + 1n} bytes ${perm}, ${what}, ${where}`);
  }
  for (const [at, asked] of net.vmm.buffers) {
    if (isRing(ram, svq, at)) continue;
    const map = net.tree.findTranslated(ram.physToVirt(at), 'hva');
    const used = contents(ram, at, asked);
    lines.set(
      map ? `buffer ${map.iova.toString(16)}` : 'buffer, not mapped',
      shownBytes(ram, at, Math.max(used, Math.min(asked, 16))),
    );
  }
  lines.set('device state', describeState(net.vdpa.net.control));
  lines.set('model state', describeState(net.control));
  return lines;
}

/** What differs, in the order of `after`; what is gone comes last. */
export function changes(before: Snapshot, after: Snapshot): Change[] {
  const changed: Change[] = [];
  for (const [name, line] of after) {
    const was = before.get(name);
    if (was !== line) changed.push({ name, before: was, after: line });
  }
  for (const [name, line] of before) {
    if (!after.has(name)) changed.push({ name, before: line, after: undefined });
  }
  return changed;
}

function isRing(ram: Ram, svq: number | undefined, at: number): boolean {
  return svq !== undefined && [R.desc, R.used].some((field) => ram.pointer(svq + field) === at);
}

/** Bytes up to the last that is not 0. */
function contents(ram: Ram, at: number, size: number): number {
  for (let end = size; end > 0; end--) if (ram.u8(at + end - 1) !== 0) return end;
  return 0;
}

function ring(
  lines: Map<string, string>,
  ram: Ram,
  side: string,
  num: number,
  desc: number,
  avail: number,
  used: number,
): void {
  for (let i = 0; i < num; i++) {
    const at = desc + VRING_DESC_SIZE * i;
    const length = ram.u32(at + 8);
    if (length === 0) continue;
    const flags = ram.u16(at + 12);
    const names = [
      (flags & VRING_DESC_F_WRITE) !== 0 ? 'WRITE' : 'READ',
      ...((flags & VRING_DESC_F_NEXT) !== 0 ? [`NEXT ${ram.u16(at + 14)}`] : []),
    ];
    lines.set(
      `${side} desc[${i}]`,
      `addr ${ram.u64(at).toString(16)} len ${length} ${names.join(' ')}`,
    );
  }
  const heads = entries(ram.u16(avail + 2), num).map((i) => ram.u16(avail + 4 + 2 * i));
  lines.set(
    `${side} avail`,
    `idx ${ram.u16(avail + 2)}${heads.length > 0 ? ` ring ${heads.join(' ')}` : ''}`,
  );
  const elements = entries(ram.u16(used + 2), num).map(
    (i) => `{${ram.u32(used + 4 + 8 * i)},${ram.u32(used + 8 + 8 * i)}}`,
  );
  const shown = elements.length > 0 ? ` ring ${elements.join(' ')}` : '';
  lines.set(`${side} used`, `idx ${ram.u16(used + 2)}${shown}`);
}

/** Slots of a ring that were written. */
function entries(idx: number, num: number): number[] {
  return Array.from({ length: Math.min(idx, num) }, (_, i) => i);
}

/** One line, what is as after a reset left out. */
export function describeState(state: ControlState): string {
  const { rx, macTable, vlans, rss, coalescing } = state;
  const modes = Object.entries(rx).filter(([, on]) => on);
  const parts = [
    `rx ${modes.map(([name]) => name).join('+') || 'none'}`,
    `mac ${bytesToHex(state.mac)}`,
    `table ${macTable.unicast.length}+${macTable.multicast.length}`,
    `pairs ${rss.queuePairs}`,
    `offloads 0x${state.offloads.toString(16)}`,
  ];
  if (macTable.uniOverflow || macTable.multiOverflow) parts.push('table overflown');
  if (vlans !== 'all') parts.push(`vlans ${vlans.size}`);
  if (rss.mode !== 'automatic') parts.push(`${rss.mode} 0x${rss.config.hashTypes.toString(16)}`);
  if (state.announce) parts.push('announcement wanted');
  if (coalescing.size > 0) parts.push(`coalescing ${coalescing.size}`);
  return parts.join(', ');
}
