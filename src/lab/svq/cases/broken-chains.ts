/** Guests that break their ring, or name memory that is not all there. */
import {
  bytes,
  dataRing,
  INDIRECT,
  NEXT,
  PLAIN,
  rowsOf,
  SMALL,
  WRITE,
  type Fault,
} from './fault.js';
import type { RawDescriptor } from '../guest-ring.js';

function rawChain(
  name: string,
  summary: string,
  descriptors: (buffer: bigint) => readonly RawDescriptor[],
): Fault {
  return {
    name,
    summary,
    options: SMALL,
    run: (rig) => {
      const buffer = rig.scratch(1);
      for (const [i, row] of descriptors(buffer).entries()) rig.control.descriptor(i, ...row);
      rig.control.publish(0);
      rig.kick();
    },
  };
}

/**
 * Guest memory becomes two maps that meet in the middle of a buffer of two pages, or one that ends there; an element
 * has its readable part before that, and 200 writable bytes at `offset`.
 */
function writablePart(name: string, summary: string, offset: number, hasSecondMap: boolean): Fault {
  return {
    name,
    summary,
    options: { features: PLAIN, dataSize: 8, shadow: 'all' },
    run: (rig, notes) => {
      const { net } = rig;
      const buffer = rig.scratch(2);
      const map = net.tree.findTranslated(buffer, 'gpa');
      if (!map) throw new RangeError('guest memory has no IOVA');
      const first = buffer + 4096n - map.translated;
      net.tree.remove(map);
      net.tree.insert({ ...map, size: first - 1n });
      if (hasSecondMap) {
        net.tree.insert({
          ...map,
          iova: map.iova + first,
          translated: map.translated + first,
          size: map.size - first,
        });
      }
      const tx = dataRing(rig, 1);
      // another element is in flight meanwhile: the free list is no ring
      net.paused = true;
      tx.chain([bytes([40, 0])], []);
      rig.kick(1);
      tx.descriptor(1, buffer, 16, NEXT, 2);
      tx.descriptor(2, buffer + BigInt(offset), 200, WRITE, 0);
      tx.publish(1);
      rig.kick(1);
      net.paused = false;
      net.pump();
      notes['sent'] = rig.transmitted.length;
      // what was cut is nobody's to give back
      net.tree.remove({ iova: map.iova, size: map.size });
      net.tree.insert(map);
    },
  };
}

const MAX_SEGMENTS = 1024;

export const BROKEN_CHAINS: readonly Fault[] = [
  {
    name: 'too-many-segments',
    summary: 'a chain of 1025 segments, by an indirect table',
    options: { features: INDIRECT, controlSize: 8 },
    run: (rig) => {
      const buffer = rig.scratch(1);
      const segments = Array.from({ length: MAX_SEGMENTS + 1 }, () => [buffer, 1] as const);
      rig.control.rows(rowsOf(segments, []), true);
      rig.kick();
    },
  },
  rawChain('loop', 'the last descriptor of a chain names the first', (buffer) => [
    [buffer, 3, NEXT, 1],
    [buffer, 1, NEXT, 0],
  ]),
  rawChain('readable-after-writable', 'a readable descriptor behind a writable one', (buffer) => [
    [buffer, 1, WRITE | NEXT, 1],
    [buffer, 3, 0, 0],
  ]),
  rawChain('zero-length', 'a descriptor of no bytes', (buffer) => [
    [buffer, 0, NEXT, 1],
    [buffer, 1, WRITE, 0],
  ]),
  {
    name: 'zero-length-allowed',
    summary: 'the same between others, where the VMM takes it as the standard does',
    options: { ...SMALL, zeroLength: 'allow' },
    run: (rig) => {
      rig.control.chain([Uint8Array.of(0, 0), new Uint8Array(0), Uint8Array.of(0)], [1]);
      rig.kick();
    },
  },
  rawChain('address-wraps', 'an address that wraps with its length', (buffer) => [
    [0xffff_ffff_ffff_f000n, 0x2000, NEXT, 1],
    [buffer, 1, WRITE, 0],
  ]),
  rawChain('unmapped', 'an address that is not guest memory', (buffer) => [
    [0x1234n, 3, NEXT, 1],
    [buffer, 1, WRITE, 0],
  ]),
  writablePart(
    'crosses-map-end',
    'a writable segment over the end of its map, on a data queue',
    4000,
    true,
  ),
  writablePart(
    'not-in-a-map',
    'a writable segment that has no IOVA behind a readable one that has, on a data queue',
    4096,
    false,
  ),
  {
    name: 'no-descriptors',
    summary: 'a buffer with no segments at all, from the VMM',
    options: SMALL,
    run: (rig, notes) => {
      const svq = rig.net.svq(rig.net.controlIndex)?.address ?? 0;
      notes['result'] = rig.kernel.invoke('vhost_svq_add', svq, 0, 0, 0, 0, 0, 0, 0);
    },
  },
];
