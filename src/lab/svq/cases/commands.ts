/** Commands that are too long, too short, too many, or not the same twice. */
import { census } from '../../../vhost/leaks.js';
import { SHADOW_VIRTQUEUE, SVQ_VRING } from '../../../vhost/structs.js';
import {
  ALLMULTI_ON,
  bytes,
  command,
  forwardedRing,
  INDIRECT,
  PROMISC_OFF,
  rowsOf,
  SMALL,
  type Fault,
} from './fault.js';

const S = SHADOW_VIRTQUEUE.offset;

/** An address table of `unicasts` addresses, zeroed. */
function addressTable(unicasts: number): Uint8Array {
  const table = new Uint8Array(2 + 4 + 6 * unicasts + 4);
  table[0] = 1;
  new DataView(table.buffer).setUint32(2, unicasts, true);
  return table;
}

const PIECE = 2 << 20;
const GIB_PIECES = 512;

export const COMMANDS: readonly Fault[] = [
  {
    name: 'oversize-command',
    summary: 'VLAN_ADD with 5000 bytes behind it',
    options: SMALL,
    run: (rig) => void command(rig, bytes([1, 2], [1, 0], [1, 100], [5000, 0])),
  },
  {
    name: 'oversize-table',
    summary: 'an address table of 700 addresses',
    options: SMALL,
    run: (rig, notes) => {
      rig.send(PROMISC_OFF);
      command(rig, addressTable(700));
      notes['device promisc'] = rig.net.vdpa.net.control.rx.promisc;
      notes['model overflow'] = rig.net.control.macTable.uniOverflow;
    },
  },
  {
    name: 'oversize-bad-table',
    summary: 'an address table of 700 addresses that says it has 600',
    options: SMALL,
    run: (rig, notes) => {
      const table = addressTable(700);
      new DataView(table.buffer).setUint32(2, 600, true);
      command(rig, table);
      notes['model overflow'] = rig.net.control.macTable.uniOverflow;
    },
  },
  {
    name: 'oversize-gigabyte',
    summary: 'a command of 1 GiB: the same 2 MiB named 512 times',
    options: { features: INDIRECT, controlSize: 1024 },
    run: (rig) => {
      const buffer = rig.scratch(PIECE / 4096);
      const ack = rig.scratch(1);
      const pieces = Array.from({ length: GIB_PIECES }, () => [buffer, PIECE] as const);
      rig.control.rows(rowsOf(pieces, [[ack, 1]]), true);
      rig.kick();
    },
  },
  {
    name: 'short-command',
    summary: 'a command of one byte',
    options: SMALL,
    run: (rig) => void command(rig, Uint8Array.of(0)),
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
      const { ring, queue } = forwardedRing(rig, mode);
      rig.net.paused = true;
      for (let i = 0; i < 3; i++) {
        if (mode === 'copy-v8') ring.chain([PROMISC_OFF], [1], true);
        else ring.chain([bytes([32, 0]), bytes([32, 0])], [], true);
      }
      rig.kick(queue);
      const svq = rig.net.svq(queue);
      notes['taken'] = svq?.guest.queue.position ?? -1;
      notes['counted free'] = svq ? census(rig.kernel, svq).countedFree : 0;
      rig.net.paused = false;
      rig.net.pump();
    },
  },
  {
    name: 'index-wrap',
    summary: 'commands while the indexes of the rings go from 65535 to 0',
    options: SMALL,
    run: (rig, notes) => {
      const { ram } = rig.kernel.memory;
      const svq = rig.net.svq(rig.net.controlIndex)?.address ?? 0;
      // as after 65534 commands: both sides of the shadow ring agree
      const near = 65534;
      for (const field of [S.shadow_avail_idx, S.shadow_used_idx, S.last_used_idx]) {
        ram.set16(svq + field, near);
      }
      ram.set16(ram.pointer(svq + SVQ_VRING.avail) + 2, near);
      ram.set16(ram.pointer(svq + SVQ_VRING.used) + 2, near);
      rig.net.vdpa.resumeAt(rig.net.controlIndex, near);
      for (let i = 0; i < 4; i++) command(rig, Uint8Array.of(0, 0, i & 1));
      notes['last_used_idx'] = ram.u16(svq + S.last_used_idx);
    },
  },
  {
    name: 'model-refuses',
    summary: 'the device accepts what the model refuses',
    options: SMALL,
    run: (rig) => {
      rig.net.vdpa.faults.control = 'accept';
      // no such VLAN
      command(rig, Uint8Array.of(2, 0, 0, 0x10));
    },
  },
  {
    name: 'guest-rewrites',
    summary: 'the guest changes a command after it was kicked: promisc off becomes allmulti on',
    options: SMALL,
    run: (rig, notes) => {
      const head = rig.control.chain([PROMISC_OFF], [1]);
      const at = rig.control.outputOf(head);
      rig.net.vdpa.beforeWork = () => rig.kernel.memory.ram.bytes.set(ALLMULTI_ON, at);
      rig.kick();
      const [seen] = rig.deviceLog;
      notes['device saw'] = [...(seen?.request ?? [])].join(' ');
      notes['model saw'] = [...(rig.net.lastModelled ?? [])].join(' ');
    },
  },
  {
    name: 'empty-array',
    summary: 'the length of the readable copy is written through an array without elements',
    options: SMALL,
    run: (rig, notes) => {
      const svq = rig.net.svq(rig.net.controlIndex)?.address ?? 0;
      const { ram } = rig.kernel.memory;
      const at = svq + S.scratch_behind_array;
      ram.set64(at, 0x5555_5555_5555_5555n);
      command(rig, PROMISC_OFF);
      notes['behind the array'] = ram.u64(at).toString(16);
    },
  },
];
