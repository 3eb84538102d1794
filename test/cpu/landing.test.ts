/** Branch target identification of the embedded engine: Arm ARM D8.4.5, table of PSTATE.BTYPE. */
import { describe, expect, it } from 'vitest';
import { encode } from '../../src/a64/codec.js';
import { EmbeddedCpu } from '../../src/cpu/embedded/cpu.js';
import { Memory } from '../../src/cpu/memory.js';
import { NOP, OTHER, RET, TEXT, poke } from './embedded-machine.js';

const br = (Rn: number): number => encode('BR', { Rn });
const blr = (Rn: number): number => encode('BLR', { Rn });
const bti = (targets: number): number => encode('BTI', { targets });
const BRANCHES = { 'br x16': br(16), 'br x10': br(10), 'blr x10': blr(10), 'ret x10': 0 };
BRANCHES['ret x10'] = encode('RET', { Rn: 10 });
const PADS = {
  nop: NOP,
  bti: bti(0),
  'bti c': bti(1),
  'bti j': bti(2),
  'bti jc': bti(3),
  paciasp: encode('PACIASP', {}),
  brk: encode('BRK', { imm16: 1 }),
};
type Branch = keyof typeof BRANCHES;
type Pad = keyof typeof PADS;

/** Branches to the pad at `target`; what came of the instruction there. */
function land(branch: Branch, pad: Pad, guarded: { from: boolean; to: boolean }, target: bigint) {
  const memory = new Memory(1 << 20);
  const text = (name: string, address: bigint, on: boolean): void => {
    memory.map({ name, address, size: 4096, permissions: 'rx', guarded: on });
  };
  text('from', TEXT, guarded.from);
  text('to', OTHER, guarded.to);
  poke(memory, TEXT, [BRANCHES[branch]]);
  poke(memory, target, [PADS[pad], RET]);
  const cpu = new EmbeddedCpu(memory);
  cpu.pc = TEXT;
  cpu.setX(10, target);
  cpu.setX(16, target);
  const stop = cpu.run({ budget: 2 });
  if (stop.kind === 'fault') {
    expect(stop.fault).toEqual({
      access: 'fetch',
      address: target,
      size: 4,
      reason: 'landing pad',
    });
    expect(cpu.pc).toBe(target);
    expect(cpu.executed).toBe(1);
    return 'fault';
  }
  return 'lands';
}

describe('in guarded text', () => {
  it.each<[Branch, readonly Pad[]]>([
    ['br x16', ['bti c', 'bti j', 'bti jc', 'paciasp', 'brk']],
    ['br x10', ['bti j', 'bti jc', 'brk']],
    ['blr x10', ['bti c', 'bti jc', 'paciasp', 'brk']],
    ['ret x10', Object.keys(PADS) as Pad[]],
  ])('%s lands on %j only', (branch, accepted) => {
    for (const pad of Object.keys(PADS) as Pad[]) {
      const expected = accepted.includes(pad) ? 'lands' : 'fault';
      for (const target of [OTHER + 8n, TEXT + 64n]) {
        expect(`${pad} ${land(branch, pad, { from: true, to: true }, target)}`).toBe(
          `${pad} ${expected}`,
        );
      }
    }
  });

  it('BR from text that is not guarded counts as one of a PLT', () => {
    expect(land('br x10', 'bti c', { from: false, to: true }, OTHER)).toBe('lands');
    expect(land('br x10', 'nop', { from: false, to: true }, OTHER)).toBe('fault');
  });
});

it.each(Object.keys(BRANCHES) as Branch[])('%s lands anywhere in other text', (branch) => {
  expect(land(branch, 'nop', { from: true, to: false }, OTHER)).toBe('lands');
  expect(land(branch, 'nop', { from: false, to: false }, TEXT + 64n)).toBe('lands');
});
