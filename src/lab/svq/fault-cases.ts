/**
 * The cases of `faults.ts`: broken guests, broken devices, maps that fail, stops at a bad moment.
 *
 * A case works on the control queue unless it needs elements that the VMM forwards without looking into them,
 * which are those of data queues (and of the control queue in modes `translate` and `copy-v8`).
 */
import {
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
} from '../../virtio/ring/split-ring.js';
import type { VirtioNetFeature } from '../../virtio/net-features.js';
import { popElement } from '../../vhost/element.js';
import { census } from '../../vhost/leaks.js';
import { SHADOW_VIRTQUEUE } from '../../vhost/structs.js';
import type { ControlFault } from '../../vhost/vdpa-device.js';
import type { SvqMode } from '../../vhost/queue.js';
import type { GuestRing } from './guest-ring.js';
import type { RigOptions, SvqRig } from './rig.js';

type Notes = Record<string, string | number | boolean>;

export interface Fault {
  readonly name: string;
  readonly summary: string;
  readonly options: Omit<RigOptions, 'mode'>;
  readonly optionsOf?: (mode: SvqMode) => Partial<RigOptions>;
  readonly run: (rig: SvqRig, notes: Notes, mode: SvqMode) => void;
}

/** No command is needed to restore the state of such a device. */
const PLAIN: readonly VirtioNetFeature[] = [
  'VERSION_1',
  'STATUS',
  'CTRL_VQ',
  'CTRL_RX',
  'CTRL_VLAN',
];
const INDIRECT: readonly VirtioNetFeature[] = [...PLAIN, 'INDIRECT_DESC'];
const SMALL = { features: PLAIN, controlSize: 8 };
const PROMISC_OFF = Uint8Array.of(0, 0, 0);
const NEXT = VRING_DESC_F_NEXT;
const WRITE = VRING_DESC_F_WRITE;

/** Descriptors of a broken chain: address, length, flags, next. */
type RawDescriptor = readonly [address: bigint, length: number, flags: number, next: number];

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
      const buffer = rig.kernel.allocPages(1);
      for (const [i, row] of descriptors(buffer).entries()) rig.control.descriptor(i, ...row);
      rig.control.publish(0);
      rig.kick();
      rig.kernel.freePages(buffer);
    },
  };
}

/** The device misbehaves with a command; another follows. */
function deviceFault(name: ControlFault, summary: string): Fault {
  return {
    name: `device-${name}`,
    summary,
    options: SMALL,
    run: (rig) => {
      rig.net.vdpa.faults.control = name;
      rig.control.chain([PROMISC_OFF], [1]);
      rig.kick();
      rig.control.chain([Uint8Array.of(0, 1, 1)], [1]);
      rig.kick();
    },
  };
}

function bytes(...parts: readonly (readonly [count: number, value: number])[]): Uint8Array {
  return Uint8Array.from(
    parts.flatMap(([count, value]) => Array.from({ length: count }, () => value)),
  );
}

/** An address table of `unicasts` addresses, zeroed. */
function addressTable(unicasts: number): Uint8Array {
  const table = new Uint8Array(2 + 4 + 6 * unicasts + 4);
  table[0] = 1;
  new DataView(table.buffer).setUint32(2, unicasts, true);
  return table;
}

/** A table of descriptors in guest memory, and the one that names it. */
function indirect(
  rig: SvqRig,
  ring: GuestRing,
  index: number,
  rows: readonly RawDescriptor[],
): void {
  const { ram } = rig.kernel.memory;
  const pages = Math.ceil((rows.length * VRING_DESC_SIZE) / 4096);
  const table = rig.kernel.allocPages(pages);
  const at = ram.virtToPhys(table);
  for (const [i, [address, length, flags, next]] of rows.entries()) {
    ram.set64(at + 16 * i, address);
    ram.set32(at + 16 * i + 8, length);
    ram.set16(at + 16 * i + 12, flags);
    ram.set16(at + 16 * i + 14, next);
  }
  ring.descriptor(index, table, rows.length * VRING_DESC_SIZE, VRING_DESC_F_INDIRECT, 0);
  ring.publish(index);
}

const PIECE = 2 << 20;
const GIB_PIECES = 512;

const BROKEN_CHAINS: readonly Fault[] = [
  {
    name: 'too-many-segments',
    summary: 'a chain of 1025 segments, by an indirect table',
    options: { features: INDIRECT, controlSize: 8 },
    run: (rig) => {
      const buffer = rig.kernel.allocPages(1);
      const rows = Array.from({ length: 1025 }, (_, i): RawDescriptor => {
        return [buffer, 1, i < 1024 ? NEXT : 0, i + 1];
      });
      indirect(rig, rig.control, 0, rows);
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
  rawChain('address-wraps', 'an address that wraps with its length', (buffer) => [
    [0xffff_ffff_ffff_f000n, 0x2000, NEXT, 1],
    [buffer, 1, WRITE, 0],
  ]),
  rawChain('unmapped', 'an address that is not guest memory', (buffer) => [
    [0x1234n, 3, NEXT, 1],
    [buffer, 1, WRITE, 0],
  ]),
  {
    name: 'crosses-map-end',
    summary: 'a writable segment over the end of its map, on a data queue',
    options: { features: PLAIN, dataSize: 8, shadow: 'all' },
    run: (rig, notes) => {
      const { kernel, net } = rig;
      const buffer = kernel.allocPages(2);
      // guest memory becomes two maps that meet in the middle of the buffer
      const map = net.tree.findTranslated(buffer, 'gpa');
      if (!map) return;
      const first = buffer + 4096n - map.translated;
      net.tree.remove(map);
      net.tree.insert({ ...map, size: first - 1n });
      net.tree.insert({
        ...map,
        iova: map.iova + first,
        translated: map.translated + first,
        size: map.size - first,
      });
      const [, tx] = rig.data;
      // another element is in flight meanwhile: the free list is no ring
      net.paused = true;
      tx?.chain([bytes([40, 0])], []);
      rig.kick(1);
      tx?.descriptor(1, buffer, 16, NEXT, 2);
      tx?.descriptor(2, buffer + 4000n, 200, WRITE, 0);
      tx?.publish(1);
      rig.kick(1);
      net.paused = false;
      net.pump();
      notes['sent'] = rig.transmitted.length;
      // the second map is nobody's: the section's end finds the first
      net.tree.remove({ iova: map.iova, size: map.size });
      net.tree.insert(map);
      kernel.freePages(buffer);
    },
  },
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

const COMMANDS: readonly Fault[] = [
  {
    name: 'oversize-command',
    summary: 'VLAN_ADD with 5000 bytes behind it',
    options: SMALL,
    run: (rig) => {
      rig.control.chain([bytes([1, 2], [1, 0], [1, 100], [5000, 0])], [1]);
      rig.kick();
    },
  },
  {
    name: 'oversize-table',
    summary: 'an address table of 700 addresses',
    options: SMALL,
    run: (rig, notes) => {
      rig.send(PROMISC_OFF);
      rig.control.chain([addressTable(700)], [1]);
      rig.kick();
      notes['device promisc'] = rig.net.vdpa.net.control.rx.promisc;
      notes['model overflow'] = rig.net.control.macTable.uniOverflow;
    },
  },
  {
    name: 'oversize-gigabyte',
    summary: 'a command of 1 GiB: the same 2 MiB named 512 times',
    options: { features: INDIRECT, controlSize: 8 },
    run: (rig) => {
      const buffer = rig.kernel.allocPages(PIECE / 4096);
      const ack = rig.kernel.allocPages(1);
      const rows = Array.from({ length: GIB_PIECES }, (_, i): RawDescriptor => {
        return [buffer, PIECE, NEXT, i + 1];
      });
      indirect(rig, rig.control, 0, [...rows, [ack, 1, WRITE, 0]]);
      rig.kick();
    },
  },
  {
    name: 'short-command',
    summary: 'a command of one byte',
    options: SMALL,
    run: (rig) => {
      rig.control.chain([Uint8Array.of(0)], [1]);
      rig.kick();
    },
  },
  {
    name: 'stale-class',
    summary: 'a command of no bytes, after an ANNOUNCE_ACK that was refused',
    options: SMALL,
    run: (rig) => {
      rig.send(Uint8Array.of(3, 0));
      rig.net.requestAnnounce();
      rig.control.chain([], [1]);
      rig.kick();
    },
  },
  {
    name: 'no-ack-byte',
    summary: 'a command without a writable descriptor',
    options: SMALL,
    run: (rig) => {
      rig.control.chain([PROMISC_OFF], []);
      rig.kick();
    },
  },
  {
    name: 'ring-full',
    summary: 'indirect chains that need more descriptors than the shadow ring has',
    options: { features: INDIRECT, controlSize: 4, dataSize: 4 },
    optionsOf: (mode) => ({ shadow: mode === 'copy-v8' ? 'cvq' : 'all' }),
    run: (rig, notes, mode) => {
      const isControl = mode === 'copy-v8';
      const ring = isControl ? rig.control : rig.data[1];
      if (!ring) return;
      const queue = isControl ? rig.net.controlIndex : 1;
      const buffer = rig.kernel.allocPages(1);
      const rows: readonly RawDescriptor[] = isControl
        ? [
            [buffer, 3, NEXT, 1],
            [buffer + 64n, 1, WRITE, 0],
          ]
        : [
            [buffer, 32, NEXT, 1],
            [buffer + 64n, 32, 0, 0],
          ];
      rig.net.paused = true;
      for (let i = 0; i < 3; i++) indirect(rig, ring, i, rows);
      rig.kick(queue);
      const svq = rig.net.svq(queue);
      notes['taken'] = svq?.guest.queue.position ?? -1;
      notes['counted free'] = svq ? census(rig.kernel, svq).countedFree : 0;
      rig.net.paused = false;
      rig.net.pump();
    },
  },
  {
    name: 'model-refuses',
    summary: 'the device accepts what the model refuses',
    options: SMALL,
    run: (rig) => {
      rig.net.vdpa.faults.control = 'accept';
      // no such VLAN
      rig.control.chain([Uint8Array.of(2, 0, 0, 0x10)], [1]);
      rig.kick();
    },
  },
  {
    name: 'guest-rewrites',
    summary: 'the guest changes a command after it was kicked: promisc off becomes allmulti on',
    options: SMALL,
    run: (rig, notes) => {
      const head = rig.control.chain([PROMISC_OFF], [1]);
      const at = rig.control.outputOf(head);
      rig.net.vdpa.beforeWork = () => rig.kernel.memory.ram.bytes.set([0, 1, 1], at);
      rig.kick();
      const [seen] = rig.deviceLog;
      notes['device saw'] = [...(seen?.request ?? [])].join(' ');
      notes['model saw'] = [...(rig.net.lastModelled ?? [])].join(' ');
    },
  },
];

const DEVICE: readonly Fault[] = [
  deviceFault('id-out-of-range', 'a used element whose id is no descriptor, before the right one'),
  deviceFault('id-not-outstanding', 'a used element that was not available, before the right one'),
  deviceFault('id-twice', 'a used element twice'),
  deviceFault('length-0', 'a used element of no bytes'),
  deviceFault('length-too-long', 'a used element longer than its buffer'),
  deviceFault('silent', 'the device never answers'),
  deviceFault('ack', 'an ack that is neither OK nor ERR'),
  deviceFault('rewrite-next', 'the device rewrites the links of the descriptor table'),
];

const RINGS_PLUS_ONE = { first: 0x1000n, last: 0x3fffn };

const MAPS: readonly Fault[] = [
  {
    name: 'map-fails-out',
    summary: 'the device refuses the first map of a command',
    options: SMALL,
    run: (rig) => {
      rig.net.vdpa.faults.map = 0;
      rig.control.chain([PROMISC_OFF], [1]);
      rig.kick();
    },
  },
  {
    name: 'map-fails-in',
    summary: 'the device refuses the second map of a command',
    options: SMALL,
    run: (rig) => {
      rig.net.vdpa.faults.map = 1;
      rig.control.chain([PROMISC_OFF], [1]);
      rig.kick();
    },
  },
  {
    name: 'iova-exhausted',
    summary: 'IOVAs for the rings and one page more',
    options: { ...SMALL, iovaRange: RINGS_PLUS_ONE },
    // guest memory needs more
    optionsOf: (mode) =>
      mode === 'translate' ? { iovaRange: { first: 0x1000n, last: 0x1fffn } } : {},
    run: (rig) => {
      rig.control.chain([PROMISC_OFF], [1]);
      rig.kick();
    },
  },
  {
    name: 'unmap-fails',
    summary: 'the device refuses the first unmap',
    options: SMALL,
    run: (rig) => {
      rig.net.vdpa.faults.unmap = 0;
      rig.control.chain([PROMISC_OFF], [1]);
      rig.kick();
    },
  },
];

const STOPS: readonly Fault[] = [
  {
    name: 'stop-in-flight',
    summary: 'a stop while two elements are with the device, then a start',
    options: { features: PLAIN, controlSize: 8, dataSize: 8 },
    optionsOf: (mode) => ({ shadow: mode === 'copy-v8' ? 'cvq' : 'all' }),
    run: (rig, notes, mode) => {
      const isControl = mode === 'copy-v8';
      const queue = isControl ? rig.net.controlIndex : 1;
      const ring = isControl ? rig.control : rig.data[1];
      rig.net.paused = true;
      for (let i = 0; i < 2; i++) {
        if (isControl) ring?.chain([PROMISC_OFF], [1]);
        else ring?.chain([bytes([40, i])], []);
      }
      rig.kick(queue);
      rig.net.stop();
      notes['position'] = rig.net.queuePosition(queue) ?? -1;
      notes['maps'] = rig.net.tree.size;
      notes['buffers'] = rig.net.vmm.live;
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
      const isControl = mode === 'copy-v8';
      const queue = isControl ? rig.net.controlIndex : 1;
      const ring = isControl ? rig.control : rig.data[1];
      if (!ring) return;
      const buffer = rig.kernel.allocPages(1);
      rig.net.paused = true;
      const svq = rig.net.svq(queue);
      if (isControl && svq) {
        // an orderly guest never fills a ring of its own size: the element is made to wait by hand
        ring.chain([PROMISC_OFF], [1]);
        const { memory } = rig.kernel;
        const at = svq.address + SHADOW_VIRTQUEUE.offset.next_guest_avail_elem;
        memory.ram.setPointer(at, popElement(rig.kernel, svq));
      } else {
        const rows: readonly RawDescriptor[] = [
          [buffer, 32, NEXT, 1],
          [buffer + 64n, 32, 0, 0],
        ];
        for (let i = 0; i < 3; i++) indirect(rig, ring, i, rows);
        rig.kick(queue);
      }
      rig.net.stop();
      notes['position'] = rig.net.queuePosition(queue) ?? -1;
      notes['maps'] = rig.net.tree.size;
      notes['buffers'] = rig.net.vmm.live;
      rig.net.paused = false;
      rig.net.start();
      notes['sent'] = rig.transmitted.length;
    },
  },
  {
    name: 'migrate-in-command',
    summary: 'a migration while the device works on a command',
    options: SMALL,
    run: (rig, notes) => {
      rig.net.vdpa.beforeWork = () => {
        try {
          rig.net.migrate();
          notes['migrated'] = true;
        } catch (error) {
          notes['migrated'] = error instanceof Error ? error.message : String(error);
        }
      };
      rig.control.chain([PROMISC_OFF], [1]);
      rig.kick();
    },
  },
];

export const FAULTS: readonly Fault[] = [
  ...BROKEN_CHAINS,
  ...COMMANDS,
  ...DEVICE,
  ...MAPS,
  ...STOPS,
];
