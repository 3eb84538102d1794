/** A machine of two CPUs brought back to an earlier moment. */
import { describe, expect, it } from 'vitest';
import { encode } from '../../src/a64/codec.js';
import { Memory } from '../../src/cpu/memory.js';
import { restoreSnapshot, takeSnapshot } from '../../src/cpu/snapshot.js';
import { factories } from '../helpers/cpus.js';

const TEXT = 0xffff_8000_0800_0000n;
const DATA = 0xffff_8000_0900_0000n;

describe.each(factories)('snapshot on $name', (factory) => {
  it('brings back memory, text, regions and registers', () => {
    const memory = new Memory(1 << 20);
    memory.map({ name: 'text', address: TEXT, size: 4096, permissions: 'rx' });
    const data = memory.map({ name: 'data', address: DATA, size: 4096, permissions: 'rw' });
    const cpus = [factory.create(memory), factory.create(memory)];
    const poke = (add: number): void => {
      const words = Uint32Array.of(
        encode('ADD_immediate', { sf: 1, sh: 0, imm12: add, Rn: 0, Rd: 0 }),
        encode('STR_unsigned', { sf: 1, imm12: 0, Rn: 1, Rt: 0 }),
        encode('B', { imm26: -2 }),
      );
      memory.pokeBytes(TEXT, new Uint8Array(words.buffer));
      for (const cpu of cpus) cpu.sync(TEXT, TEXT + 12n);
    };
    const state = (): unknown => [
      cpus.map((cpu) => cpu.saveRegisters()),
      memory.regions.map(({ name, permissions }) => `${name} ${permissions}`),
      memory.regionAt(DATA) && memory.read64(DATA),
    ];
    poke(3);
    for (const cpu of cpus) {
      cpu.pc = TEXT;
      cpu.setX(1, DATA);
      cpu.run({ budget: 7 });
    }
    const moment = takeSnapshot(memory, cpus);
    const before = state();
    for (const cpu of cpus) cpu.run({ budget: 100 });
    const after = state();
    expect(after).not.toEqual(before);

    poke(5);
    for (const cpu of cpus) cpu.run({ budget: 10 });
    memory.unmap(data);
    memory.map({ name: 'other', address: DATA, size: 64, permissions: 'r' });
    restoreSnapshot(moment, memory, cpus);
    expect(state()).toEqual(before);
    for (const cpu of cpus) cpu.run({ budget: 100 });
    expect(state()).toEqual(after);
    expect(() => restoreSnapshot(moment, memory, cpus.slice(1))).toThrow(RangeError);
    for (const cpu of cpus) cpu.close();
  });
});
