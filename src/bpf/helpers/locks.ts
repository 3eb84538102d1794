/**
 * Spin locks and timers in map values.
 *
 * Reference: kernel/bpf/helpers.c. One program runs at a time here, so a lock that is taken when it is
 * asked for would never be free: that ends the run as a fault. Timers run when the host says so
 * (`Timers.run`).
 */
import { MemoryAccessError } from '../../cpu/fault.js';
import { offsetOfField } from '../btf/record.js';
import type { BpfHost, RegisterPairs } from '../host.js';
import { MapBase } from '../maps/base.js';
import { HashBase } from '../maps/hash.js';
import { argument, fail, offsetOf, setResult, type Helper } from './helper.js';

const LOCKED = 1;

/** CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME */
const CLOCKS: readonly bigint[] = [0n, 1n, 7n];
/** BPF_F_TIMER_ABS, BPF_F_TIMER_CPU_PIN */
const TIMER_ABS = 1n;
const TIMER_FLAGS = 3n;

function lock(registers: RegisterPairs, { memory }: BpfHost): void {
  const at = offsetOf(memory, registers, 1, 4, 'write');
  if (memory.view.getUint32(at, true) === LOCKED) {
    const address = argument(registers, 1);
    throw new MemoryAccessError({ access: 'write', address, size: 4, reason: 'permission' });
  }
  memory.view.setUint32(at, LOCKED, true);
  setResult(registers, 0);
}

function unlock(registers: RegisterPairs, { memory }: BpfHost): void {
  memory.view.setUint32(offsetOf(memory, registers, 1, 4, 'write'), 0, true);
  setResult(registers, 0);
}

function timerInit(registers: RegisterPairs, host: BpfHost): void {
  const timer = argument(registers, 1);
  const map = host.mapAt(argument(registers, 2));
  const offset = offsetOfField(map?.spec.record, 'bpf_timer');
  if (!CLOCKS.includes(argument(registers, 3)) || !(map instanceof MapBase)) {
    fail(registers, 'EINVAL');
    return;
  }
  offsetOf(host.memory, registers, 1, 16, 'write');
  const value = timer - BigInt(offset ?? 0);
  const key = map instanceof HashBase ? map.keyOfValue(value) : 0n;
  if (host.timers.init(timer, { map: map.address, key, value })) setResult(registers, 0);
  else fail(registers, 'EBUSY');
}

function timerStart(registers: RegisterPairs, host: BpfHost): void {
  const flags = argument(registers, 3);
  const delay = argument(registers, 2);
  const expires = flags & TIMER_ABS ? delay : host.clock() + delay;
  const refused = (flags & ~TIMER_FLAGS) !== 0n;
  if (refused || !host.timers.start(argument(registers, 1), expires)) fail(registers, 'EINVAL');
  else setResult(registers, 0);
}

function timerCancel(registers: RegisterPairs, { timers }: BpfHost): void {
  const timer = argument(registers, 1);
  if (!timers.isInitialised(timer)) fail(registers, 'EINVAL');
  else if (timers.isRunning(timer)) fail(registers, 'EDEADLK');
  else setResult(registers, timers.stop(timer) ? 1 : 0);
}

export const LOCK_HELPERS: readonly Helper[] = [
  { id: 93, name: 'spin_lock', arguments: ['spin_lock'], result: 'void', body: lock },
  { id: 94, name: 'spin_unlock', arguments: ['spin_lock'], result: 'void', body: unlock },
  {
    id: 169,
    name: 'timer_init',
    arguments: ['timer', 'map', 'anything'],
    result: 'integer',
    gplOnly: true,
    body: timerInit,
  },
  {
    id: 170,
    name: 'timer_set_callback',
    arguments: ['timer', 'func'],
    result: 'integer',
    gplOnly: true,
    body: (registers, { timers }) => {
      if (timers.setCallback(argument(registers, 1), argument(registers, 2)))
        setResult(registers, 0);
      else fail(registers, 'EINVAL');
    },
  },
  {
    id: 171,
    name: 'timer_start',
    arguments: ['timer', 'anything', 'anything'],
    result: 'integer',
    gplOnly: true,
    body: timerStart,
  },
  {
    id: 172,
    name: 'timer_cancel',
    arguments: ['timer'],
    result: 'integer',
    gplOnly: true,
    body: timerCancel,
  },
];
