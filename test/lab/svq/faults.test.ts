/**
 * Every case of section 13 of the specification in every mode: v8, QEMU, what this lab requires, and the same
 * without copies. `leaks` counts descriptors/mappings/buffers. "not back" in mode copy-v8 is what hangs there; in mode
 * translate a command that the device does not answer stays with it until the stop, as there is no copy.
 */
import { describe, expect, it } from 'vitest';
import { FAULTS } from '../../../src/lab/svq/fault-cases.js';
import { findFault, runFault } from '../../../src/lab/svq/faults.js';
import { SvqLab } from '../../../src/lab/svq/rig.js';
import { SVQ_MODES, type SvqMode } from '../../../src/vhost/queue.js';
import { DirectKernel } from '../../virtio/helpers/direct-kernel.js';
import { summary } from './summary.js';

const EXPECTED: readonly (readonly [string, Readonly<Record<SvqMode, string>>])[] = [
  [
    'too-many-segments',
    {
      translate: 'guest -; device -; NEEDS_RESET',
      'copy-v8': 'guest -; device -; NEEDS_RESET',
      landed: 'guest -; device -; NEEDS_RESET',
      transactional: 'guest -; device -; NEEDS_RESET',
    },
  ],
  [
    'loop',
    {
      translate: 'guest -; device -; NEEDS_RESET',
      'copy-v8': 'guest -; device -; NEEDS_RESET',
      landed: 'guest -; device -; NEEDS_RESET',
      transactional: 'guest -; device -; NEEDS_RESET',
    },
  ],
  [
    'readable-after-writable',
    {
      translate: 'guest -; device -; NEEDS_RESET',
      'copy-v8': 'guest -; device -; NEEDS_RESET',
      landed: 'guest -; device -; NEEDS_RESET',
      transactional: 'guest -; device -; NEEDS_RESET',
    },
  ],
  [
    'zero-length',
    {
      translate: 'guest -; device -; NEEDS_RESET',
      'copy-v8': 'guest -; device -; NEEDS_RESET',
      landed: 'guest -; device -; NEEDS_RESET',
      transactional: 'guest -; device -; NEEDS_RESET',
    },
  ],
  [
    'address-wraps',
    {
      translate: 'guest -; device -; NEEDS_RESET',
      'copy-v8': 'guest -; device -; NEEDS_RESET',
      landed: 'guest -; device -; NEEDS_RESET',
      transactional: 'guest -; device -; NEEDS_RESET',
    },
  ],
  [
    'unmapped',
    {
      translate: 'guest -; device -; NEEDS_RESET',
      'copy-v8': 'guest -; device -; NEEDS_RESET',
      landed: 'guest -; device -; NEEDS_RESET',
      transactional: 'guest -; device -; NEEDS_RESET',
    },
  ],
  [
    'crosses-map-end',
    {
      translate: 'guest data, len 0; device -; NEEDS_RESET; sent 1',
      'copy-v8': 'guest data, len 0; device -; leaks 1/0/0; sent 1',
      landed: 'guest data, len 0; device -; leaks 1/0/0; sent 1',
      transactional: 'guest data, len 0; device -; NEEDS_RESET; sent 1',
    },
  ],
  [
    'no-descriptors',
    {
      translate: 'guest -; device -; result -22',
      'copy-v8': 'guest -; device -; result -22',
      landed: 'guest -; device -; result -22',
      transactional: 'guest -; device -; result -22',
    },
  ],
  [
    'oversize-command',
    {
      translate: 'guest ack 0, len 1; device 5003',
      'copy-v8': 'guest ack 0, len 1; device 5003',
      landed: 'guest ack 0, len 1; device 4096',
      transactional: 'guest ack 1, len 1; device -',
    },
  ],
  [
    'oversize-table',
    {
      translate: 'guest ack 0, len 1; device 3 4210; device promisc false; model overflow true',
      'copy-v8': 'guest ack 0, len 1; device 3 4210; device promisc false; model overflow true',
      landed: 'guest ack 0, len 1; device 3 3; device promisc true; model overflow true',
      transactional: 'guest ack 0, len 1; device 3 3; device promisc true; model overflow true',
    },
  ],
  [
    'oversize-gigabyte',
    {
      translate: 'guest -; device -; NEEDS_RESET',
      'copy-v8': 'guest -; device -; abort: allocation of 1073741824 bytes',
      landed: 'guest no ack, len 1; device 4096',
      transactional: 'guest no ack, len 1; device -',
    },
  ],
  [
    'short-command',
    {
      translate: 'guest ack 1, len 1; device -',
      'copy-v8': 'guest -; 1 not back; device -; device broken',
      landed: 'guest ack 1, len 1; device -; device broken',
      transactional: 'guest ack 1, len 1; device -',
    },
  ],
  [
    'stale-class',
    {
      translate: 'guest ack 1, len 1; device -',
      'copy-v8': 'guest -; 1 not back; device 2; device broken',
      landed: 'guest ack 1, len 1; device -',
      transactional: 'guest ack 1, len 1; device -',
    },
  ],
  [
    'no-ack-byte',
    {
      translate: 'guest -; 1 not back; device -; NEEDS_RESET',
      'copy-v8': 'guest -; 1 not back; device -; device broken',
      landed: 'guest no ack, len 0; device 3',
      transactional: 'guest -; 1 not back; device -; NEEDS_RESET',
    },
  ],
  [
    'ring-full',
    {
      translate:
        'guest data, len 0 and data, len 0 and data, len 0; device -; taken 3; counted free 0',
      'copy-v8':
        'guest no ack, len 1 and no ack, len 1; device 3 3 3; leaks 0/2/2; after stop 0/2/2; taken 3; counted free -2',
      landed:
        'guest data, len 0 and data, len 0 and data, len 0; device -; taken 3; counted free 0',
      transactional:
        'guest data, len 0 and data, len 0 and data, len 0; device -; taken 3; counted free 0',
    },
  ],
  [
    'model-refuses',
    {
      translate: 'guest ack 1, len 1; device 4',
      'copy-v8': 'guest ack 0, len 1; device 4',
      landed: 'guest ack 1, len 1; device 4',
      transactional: 'guest ack 1, len 1; device 4',
    },
  ],
  [
    'guest-rewrites',
    {
      translate: 'guest ack 0, len 1; device 3; device saw 0 1 1; model saw 0 1 1',
      'copy-v8': 'guest ack 0, len 1; device 3; device saw 0 0 0; model saw 0 1 1',
      landed: 'guest ack 0, len 1; device 3; device saw 0 0 0; model saw 0 0 0',
      transactional: 'guest ack 0, len 1; device 3; device saw 0 0 0; model saw 0 0 0',
    },
  ],
  [
    'device-id-out-of-range',
    {
      translate: 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
      'copy-v8': 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
      landed: 'guest ack 1, len 1 and ack 0, len 1; device 3 3',
      transactional: 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
    },
  ],
  [
    'device-id-not-outstanding',
    {
      translate: 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
      'copy-v8': 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
      landed: 'guest ack 1, len 1 and ack 0, len 1; device 3 3',
      transactional: 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
    },
  ],
  [
    'device-id-twice',
    {
      translate: 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
      'copy-v8': 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
      landed: 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
      transactional: 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
    },
  ],
  [
    'device-length-0',
    {
      translate: 'guest ack 1, len 1 and ack 0, len 1; device 3 3',
      'copy-v8': 'guest ack 255, len 0 and ack 0, len 1; device 3 3',
      landed: 'guest ack 1, len 1 and ack 0, len 1; device 3 3',
      transactional: 'guest ack 1, len 1 and ack 0, len 1; device 3 3',
    },
  ],
  [
    'device-length-too-long',
    {
      translate: 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
      'copy-v8': 'guest ack 0, len 65536 and ack 0, len 1; device 3 3',
      landed: 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
      transactional: 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
    },
  ],
  [
    'device-silent',
    {
      translate: 'guest ack 0, len 1; 1 not back; device 3 3',
      'copy-v8': 'guest ack 0, len 1; 1 not back; device 3 3',
      landed: 'guest ack 1, len 1 and ack 0, len 1; device 3 3',
      transactional: 'guest ack 1, len 1 and ack 0, len 1; device 3 3',
    },
  ],
  [
    'device-ack',
    {
      translate: 'guest ack 1, len 1 and ack 0, len 1; device 3 3',
      'copy-v8': 'guest ack 7, len 1 and ack 0, len 1; device 3 3',
      landed: 'guest ack 1, len 1 and ack 0, len 1; device 3 3',
      transactional: 'guest ack 1, len 1 and ack 0, len 1; device 3 3',
    },
  ],
  [
    'device-rewrite-next',
    {
      translate: 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
      'copy-v8': 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
      landed: 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
      transactional: 'guest ack 0, len 1 and ack 0, len 1; device 3 3',
    },
  ],
  [
    'map-fails-out',
    {
      translate: 'guest ack 0, len 1; device 3',
      'copy-v8':
        "guest -; 1 not back; device -; abort: vhost_svq_vring_write_descs: Assertion `r == 0' failed; leaks 0/1/1; after stop 0/1/1",
      landed: 'guest ack 0, len 1; device 3',
      transactional: 'guest ack 1, len 1; device -',
    },
  ],
  [
    'map-fails-in',
    {
      translate: 'guest ack 0, len 1; device 3',
      'copy-v8':
        "guest -; 1 not back; device -; abort: vhost_svq_vring_write_descs: Assertion `r == 0' failed; leaks 0/2/2; after stop 0/2/2",
      landed: 'guest ack 0, len 1; device 3',
      transactional: 'guest ack 1, len 1; device -',
    },
  ],
  [
    'iova-exhausted',
    {
      translate: 'guest -; device -; NEEDS_RESET; start fails',
      'copy-v8': 'guest -; 1 not back; device -; leaks 0/1/2; after stop 0/1/2',
      landed: 'guest -; device -; NEEDS_RESET; start fails',
      transactional: 'guest ack 1, len 1; device -',
    },
  ],
  [
    'unmap-fails',
    {
      translate: 'guest ack 0, len 1; device 3',
      'copy-v8': 'guest -; 1 not back; device 3; leaks 0/2/2; after stop 0/2/2',
      landed: 'guest ack 0, len 1; device 3; after stop 0/1/0',
      transactional: 'guest ack 1, len 1; device 3; leaks 0/1/1',
    },
  ],
  [
    'stop-in-flight',
    {
      translate:
        'guest data, len 0 and data, len 0; device -; position 0; maps 0; buffers 0; sent 0 1',
      'copy-v8':
        'guest ack 0, len 1 and ack 0, len 1; device 3 3; position 0; maps 0; buffers 0; sent ',
      landed:
        'guest data, len 0 and data, len 0; device -; position 0; maps 0; buffers 0; sent 0 1',
      transactional:
        'guest data, len 0 and data, len 0; device -; position 0; maps 0; buffers 0; sent 0 1',
    },
  ],
  [
    'stop-waiting',
    {
      translate:
        'guest data, len 0 and data, len 0 and data, len 0; device -; position 0; maps 0; buffers 0; sent 3',
      'copy-v8': 'guest ack 0, len 1; device 3; position 0; maps 0; buffers 0; sent 0',
      landed:
        'guest data, len 0 and data, len 0 and data, len 0; device -; position 0; maps 0; buffers 0; sent 3',
      transactional:
        'guest data, len 0 and data, len 0 and data, len 0; device -; position 0; maps 0; buffers 0; sent 3',
    },
  ],
  [
    'migrate-in-command',
    {
      translate:
        'guest ack 0, len 1; device 3; migrated migration is refused: a command is in flight',
      'copy-v8':
        'guest ack 0, len 1; device 3; migrated migration is refused: a command is in flight',
      landed: 'guest ack 0, len 1; device 3; migrated migration is refused: a command is in flight',
      transactional:
        'guest ack 0, len 1; device 3; migrated migration is refused: a command is in flight',
    },
  ],
];

const lab = new SvqLab(new DirectKernel(24 << 20));

describe.each(EXPECTED)('%s', (name, expected) => {
  it.each(SVQ_MODES)('%s', (mode) => {
    const outcome = runFault(lab, findFault(name), mode);
    expect(summary(outcome)).toBe(expected[mode]);
    if (mode === 'transactional' || mode === 'translate') {
      expect(outcome.afterStop).toEqual({ descriptors: 0, mappings: 0, buffers: 0 });
    }
  });
});

it('no case is left out', () => {
  expect(EXPECTED.map(([name]) => name)).toEqual(FAULTS.map(({ name }) => name));
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
});

it('what the proposal asks memory for is what the guest says', () => {
  const asked = (name: string): readonly number[] =>
    SVQ_MODES.map((mode) => runFault(lab, findFault(name), mode).largestRequest);
  expect(asked('oversize-gigabyte')).toEqual([4096, 2 ** 30, 4096, 4096]);
});
