/**
 * Every case of section 13 of the specification in every mode: v8, QEMU, what this lab requires, and the same
 * without copies. `leaks` counts descriptors/mappings/buffers; "not back" is what hangs or is lost.
 */
import { describe, expect, it } from 'vitest';
import { FAULTS } from '../../../src/lab/svq/fault-cases.js';
import { findFault, runFault } from '../../../src/lab/svq/faults.js';
import { SvqLab } from '../../../src/lab/svq/rig.js';
import { SVQ_MODES, type SvqMode } from '../../../src/vhost/queue.js';
import { DirectKernel } from '../../virtio/helpers/direct-kernel.js';
import { summary } from './summary.js';

type Expected = Readonly<Record<SvqMode, string>>;

const all = (text: string): Expected => ({
  translate: text,
  'copy-v8': text,
  landed: text,
  transactional: text,
});
/** v8, QEMU, Model, and `translate` as Model. */
const columns = (v8: string, landed: string, model: string, translate = model): Expected => ({
  translate,
  'copy-v8': v8,
  landed,
  transactional: model,
});

const BROKEN = all('guest -; device -; NEEDS_RESET');
const OK = 'ack 0, len 1';
const ERR = 'ack 1, len 1';
const BOTH = `guest ${OK} and ${OK}; device 3 3`;
const FIRST_REFUSED = `guest ${ERR} and ${OK}; device 3 3`;
const SENT_THREE = 'guest data, len 0 and data, len 0 and data, len 0; device -';
const ASSERTION = "abort: vhost_svq_vring_write_descs: Assertion `r == 0' failed";
const STOPPED = 'position 0; maps 0; buffers 0';
const KEPT_PATTERN = 'behind the array 5555555555555555';

const EXPECTED: Readonly<Record<string, Expected>> = {
  // broken rings and memory
  'too-many-segments': all('guest -; 1 not back; device -; NEEDS_RESET'),
  loop: BROKEN,
  'readable-after-writable': BROKEN,
  'zero-length': BROKEN,
  'zero-length-allowed': all(`guest ${OK}; device 3`),
  'address-wraps': BROKEN,
  unmapped: BROKEN,
  'crosses-map-end': columns(
    'guest data, len 0; device -; leaks 1/0/0; sent 1',
    'guest data, len 0; device -; leaks 1/0/0; sent 1',
    'guest data, len 0; device -; NEEDS_RESET; sent 1',
  ),
  'not-in-a-map': columns(
    'guest data, len 0; device -; leaks 1/0/0; sent 1',
    'guest data, len 0; device -; leaks 1/0/0; sent 1',
    'guest data, len 0; device -; NEEDS_RESET; sent 1',
  ),
  'no-descriptors': all('guest -; device -; result -22'),

  // commands
  'oversize-command': columns(
    `guest ${OK}; device 5003`,
    `guest ${OK}; device 4096`,
    `guest ${ERR}; device -`,
  ),
  'oversize-table': columns(
    `guest ${OK}; device 3 4210; device promisc false; model overflow true`,
    `guest ${OK}; device 3 3; device promisc true; model overflow true`,
    `guest ${OK}; device 3 3; device promisc true; model overflow true`,
  ),
  'oversize-bad-table': columns(
    `guest ${ERR}; device 4210; model overflow false`,
    `guest ${ERR}; device -; model overflow false`,
    `guest ${ERR}; device -; model overflow false`,
  ),
  'oversize-gigabyte': columns(
    'guest -; 1 not back; device -; abort: allocation of 1073741824 bytes',
    `guest ${OK}; device 4096`,
    `guest ${ERR}; device -`,
  ),
  'short-command': columns(
    'guest -; 1 not back; device -; device broken',
    `guest ${ERR}; device -; device broken`,
    `guest ${ERR}; device -`,
  ),
  'stale-class': columns(
    'guest -; 1 not back; device 2; device broken',
    `guest ${ERR}; device -`,
    `guest ${ERR}; device -`,
  ),
  'no-ack-byte': columns(
    'guest -; 1 not back; device -; device broken',
    'guest no room for an ack, len 0; device 3',
    'guest -; 1 not back; device -; NEEDS_RESET',
  ),
  'ring-full': columns(
    `guest ${OK} and ${OK}; 1 not back; device 3 3 3; leaks 0/2/2; after stop 0/2/2; taken 3; counted free -2`,
    `${SENT_THREE}; taken 3; counted free 0`,
    `${SENT_THREE}; taken 3; counted free 0`,
  ),
  'index-wrap': all(`guest ${OK} and ${OK} and ${OK} and ${OK}; device 3 3 3 3; last_used_idx 2`),
  'model-refuses': columns(
    `guest ${OK}; device 4`,
    `guest ${ERR}; device 4`,
    `guest ${ERR}; device 4`,
  ),
  'guest-rewrites': columns(
    `guest ${OK}; device 3; device saw 0 0 0; model saw 0 1 1`,
    `guest ${OK}; device 3; device saw 0 0 0; model saw 0 0 0`,
    `guest ${OK}; device 3; device saw 0 0 0; model saw 0 0 0`,
    // about copies, of which there are none
    `guest ${OK}; device 3; device saw 0 1 1; model saw 0 1 1`,
  ),
  'empty-array': columns(
    `guest ${OK}; device 3; behind the array 3`,
    `guest ${OK}; device 3; ${KEPT_PATTERN}`,
    `guest ${OK}; device 3; ${KEPT_PATTERN}`,
  ),

  // devices
  'device-id-out-of-range': columns(BOTH, FIRST_REFUSED, BOTH),
  'device-id-not-outstanding': columns(BOTH, FIRST_REFUSED, BOTH),
  'device-id-twice': all(BOTH),
  'device-length-0': columns(
    `guest ack 255, len 0 and ${OK}; device 3 3`,
    FIRST_REFUSED,
    FIRST_REFUSED,
  ),
  'device-length-too-long': columns(`guest ack 0, len 65536 and ${OK}; device 3 3`, BOTH, BOTH),
  'device-silent': columns(`guest ${OK}; 1 not back; device 3 3`, FIRST_REFUSED, FIRST_REFUSED),
  'device-ack': columns(`guest ack 7, len 1 and ${OK}; device 3 3`, FIRST_REFUSED, FIRST_REFUSED),
  'device-rewrite-next': all(BOTH),
  'device-late': columns(
    `${BOTH}; ack in time none; device saw 0 0 0, 0 1 1; model follows true`,
    // the buffer is used for the next command before the device has read the first
    `guest ${OK}; device 3 3; ack in time 1; memory used again kept; device saw 0 1 1, 0 1 1; model follows true`,
    `guest ${OK}; device 3 3; ack in time 1; memory used again kept; device saw 0 0 0, 0 1 1; model follows true`,
    `guest ${OK}; device 3 3; ack in time 1; memory used again overwritten; device saw 85 85 85, 0 1 1; model follows true`,
  ),
  'device-late-ring-full': columns(
    `guest ${OK} and ${OK}; 1 not back; device 4 3 4; leaks 0/2/2; after stop 0/2/2; back in time 0`,
    `guest ${ERR} and ${ERR} and ${OK} and given back twice, len 1; device 3 3 4; back in time 3`,
    `guest ${ERR} and ${ERR} and ${OK}; device 3 3 4; back in time 2`,
    // the acks of the first two came late, where the ERR stood
    `guest ${OK} and ${OK} and ${OK}; device 3 3 4; back in time 2`,
  ),
  'data-length-too-long': columns(
    'guest data, len 65536 and data, len 62; device -',
    'guest data, len 65536 and data, len 62; device -',
    'guest data, len 100 and data, len 62; device -',
  ),
  'data-id-out-of-range': all('guest data, len 62; 1 not back; device -'),

  // maps
  'map-fails-out': columns(
    `guest -; 1 not back; device -; ${ASSERTION}; leaks 0/1/1; after stop 0/1/1`,
    `guest ${OK}; device 3`,
    `guest ${ERR}; device -`,
    `guest ${OK}; device 3`,
  ),
  'map-fails-in': columns(
    `guest -; 1 not back; device -; ${ASSERTION}; leaks 0/2/2; after stop 0/2/2`,
    `guest ${OK}; device 3`,
    `guest ${ERR}; device -`,
    `guest ${OK}; device 3`,
  ),
  'iova-exhausted': columns(
    'guest -; 1 not back; device -; leaks 0/1/2; after stop 0/1/2',
    'guest -; device -; NEEDS_RESET; start fails',
    `guest ${ERR}; device -`,
    // guest memory needs more
    'guest -; device -; NEEDS_RESET; start fails',
  ),
  'unmap-fails': columns(
    'guest -; 1 not back; device 3; leaks 0/2/2; after stop 0/2/2',
    `guest ${OK}; device 3; after stop 0/1/0`,
    `guest ${ERR}; device 3`,
    `guest ${OK}; device 3`,
  ),
  'unmap-fails-second': columns(
    'guest -; 1 not back; device 3; leaks 0/1/1; after stop 0/1/1',
    `guest ${OK}; device 3; after stop 0/1/0`,
    `guest ${ERR}; device 3`,
    `guest ${OK}; device 3`,
  ),

  // stops, starts, migrations
  'stop-in-flight': columns(
    `${BOTH}; ${STOPPED}; sent `,
    `guest data, len 0 and data, len 0; device -; ${STOPPED}; sent 0 1`,
    `guest data, len 0 and data, len 0; device -; ${STOPPED}; sent 0 1`,
  ),
  'stop-waiting': columns(
    `guest ${OK}; device 3; ${STOPPED}; sent 0`,
    `${SENT_THREE}; ${STOPPED}; sent 3`,
    `${SENT_THREE}; ${STOPPED}; sent 3`,
  ),
  'restore-refused': all(
    `guest ${OK}; device 8 8 8 3; start restore: -EIO: command 1 of class 1 refused; ${STOPPED}; next start done`,
  ),
  'migrate-refused': all(
    `guest ${OK}; device 8 8 8 3; migrated restore: -EIO: command 1 of class 1 refused; at the source true`,
  ),
  'migrate-in-command': all(
    `guest ${OK}; device 3; migrated migration is refused: a command is in flight`,
  ),
};

const NONE = { descriptors: 0, mappings: 0, buffers: 0 };
const kernel = new DirectKernel(24 << 20);
const lab = new SvqLab(kernel);

describe.each(FAULTS)('$name', (fault) => {
  it.each(SVQ_MODES)('%s', (mode) => {
    const before = kernel.allocated;
    const outcome = runFault(lab, fault, mode);
    expect(summary(outcome)).toBe(EXPECTED[fault.name]?.[mode]);
    if (mode !== 'transactional' && mode !== 'translate') return;
    expect([outcome.leaks, outcome.afterStop, outcome.shared]).toEqual([NONE, NONE, 0]);
    expect(kernel.allocated).toEqual(before);
  });
});

it('the VMM says what happened', () => {
  const log = (name: string, mode: SvqMode): readonly string[] =>
    runFault(lab, findFault(name), mode).log;
  expect(log('device-id-out-of-range', 'transactional')).toEqual(['Device index 8 out of range']);
  expect(log('device-id-twice', 'landed')).toEqual([
    'Device says index 0 is used, but it was not available',
  ]);
  expect(log('crosses-map-end', 'transactional')).toEqual(['Guest buffer expands over iova range']);
  expect(log('stop-waiting', 'copy-v8')[0]).toContain('Cannot locate expected map');
  expect(log('model-refuses', 'transactional')[0]).toContain('Bad CVQ processing in model');
  expect(log('no-ack-byte', 'landed')).toEqual(['Bad device CVQ written length']);
  expect(log('unmap-fails', 'transactional')).toEqual(['Device cannot unmap: -5']);
});

it('what the proposal asks memory for is what the guest says', () => {
  const asked = (name: string): readonly number[] =>
    SVQ_MODES.map((mode) => runFault(lab, findFault(name), mode).largestRequest);
  // the driver area of a ring of 1024
  expect(asked('oversize-gigabyte')).toEqual([20480, 2 ** 30, 20480, 20480]);
});

it('in a copy, each command costs the device two maps and two unmaps', () => {
  const calls = SVQ_MODES.map((mode) => {
    const rig = lab.open({ mode });
    const { maps, unmaps } = rig.net.vdpa.counters;
    rig.send(Uint8Array.of(0, 0, 0));
    const now = { ...rig.net.vdpa.counters };
    rig.close();
    return [now.maps - maps, now.unmaps - unmaps];
  });
  expect(calls).toEqual([
    [0, 0],
    [2, 2],
    [0, 0],
    [2, 2],
  ]);
});
