/** Devices that complete what is not theirs, lie about lengths, answer late or never. */
import { SVQ_VRING } from '../../../vhost/structs.js';
import type { ControlFault } from '../../../vhost/vdpa-device.js';
import type { SvqRig } from '../rig.js';
import {
  ALLMULTI_ON,
  bytes,
  command,
  dataRing,
  INDIRECT,
  PLAIN,
  PROMISC_OFF,
  rowsOf,
  SMALL,
  type Fault,
} from './fault.js';

/** The device misbehaves with a command; another follows. */
function controlFault(name: ControlFault, summary: string): Fault {
  return {
    name: `device-${name}`,
    summary,
    options: SMALL,
    run: (rig) => {
      rig.net.vdpa.faults.control = name;
      command(rig, PROMISC_OFF);
      command(rig, ALLMULTI_ON);
    },
  };
}

const DATA = { features: PLAIN, controlSize: 8, dataSize: 8, shadow: 'all' } as const;
const RX_BUFFER = 100;

/** The device gets one frame in, and what it says of it is changed before the VMM looks; another frame follows. */
function dataFault(
  name: string,
  summary: string,
  change: (rig: SvqRig, usedElement: number) => void,
): Fault {
  return {
    name: `data-${name}`,
    summary,
    options: DATA,
    run: (rig) => {
      const { net, kernel } = rig;
      const rx = dataRing(rig, 0);
      for (let i = 0; i < 2; i++) rx.chain([], [RX_BUFFER]);
      rig.kick(0);
      net.paused = true;
      net.deliver(bytes([60, 0]), { queue: 0 });
      const svq = net.svq(0)?.address ?? 0;
      change(rig, kernel.memory.ram.pointer(svq + SVQ_VRING.used) + 4);
      net.paused = false;
      net.pump();
      net.deliver(bytes([50, 0]), { queue: 0 });
    },
  };
}

/** Where the guest keeps a command in `device-late`, and its ack. */
const ACK_AT = 64;
const REUSED = 0x55;

export const DEVICE: readonly Fault[] = [
  controlFault('id-out-of-range', 'a used element whose id is no descriptor, before the right one'),
  controlFault('id-not-outstanding', 'a used element that was not available, before the right one'),
  controlFault('id-twice', 'a used element twice'),
  controlFault('length-0', 'a used element of no bytes'),
  controlFault('length-too-long', 'a used element longer than its buffer'),
  controlFault('silent', 'the device never answers'),
  controlFault('ack', 'an ack that is neither OK nor ERR'),
  controlFault('rewrite-next', 'the device rewrites the links of the descriptor table'),
  {
    name: 'device-late',
    summary: 'the device answers a command after ten seconds, the next at once',
    options: { ...SMALL, pollBudget: 10 },
    run: (rig, notes) => {
      const { ram } = rig.kernel.memory;
      const buffer = rig.scratch(1);
      const at = ram.virtToPhys(buffer);
      ram.bytes.set(PROMISC_OFF, at);
      ram.set8(at + ACK_AT, 0xff);
      rig.net.paused = true;
      rig.control.rows(rowsOf([[buffer, PROMISC_OFF.length]], [[buffer + BigInt(ACK_AT), 1]]));
      rig.kick();
      const [inTime] = rig.control.takeUsed();
      notes['ack in time'] = inTime?.bytes[0] ?? 'none';
      // what came back is the guest's again, who uses it for something else
      if (inTime) ram.bytes.fill(REUSED, at, at + ACK_AT + 1);
      rig.net.paused = false;
      command(rig, ALLMULTI_ON);
      if (inTime)
        notes['memory used again'] = ram.u8(at + ACK_AT) === REUSED ? 'kept' : 'overwritten';
      notes['device saw'] = rig.deviceLog.map(({ request }) => [...request].join(' ')).join(', ');
      const { rx } = rig.net.vdpa.net.control;
      notes['model follows'] =
        rx.promisc === rig.net.control.rx.promisc && rx.allmulti === rig.net.control.rx.allmulti;
    },
  },
  {
    name: 'device-late-ring-full',
    summary: 'commands that the device does not answer fill the shadow ring; then it answers',
    options: { features: INDIRECT, controlSize: 4, pollBudget: 10 },
    run: (rig, notes) => {
      rig.net.paused = true;
      for (const request of [PROMISC_OFF, ALLMULTI_ON, Uint8Array.of(2, 0, 100, 0)]) {
        rig.control.chain([request], [1], true);
        rig.kick();
      }
      notes['back in time'] = rig.kernel.memory.ram.u16(rig.control.used + 2);
      rig.net.paused = false;
      rig.net.pump();
    },
  },
  dataFault('length-too-long', 'a received frame longer than its buffer', (rig, element) =>
    rig.kernel.memory.ram.set32(element + 4, 0x10000),
  ),
  dataFault('id-out-of-range', 'a received frame in no buffer', (rig, element) =>
    rig.kernel.memory.ram.set32(element, DATA.dataSize),
  ),
];
