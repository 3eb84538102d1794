/** What a stopped CPU prints. */
import { describe, expect, it } from 'vitest';
import { encode } from '../../src/a64/codec.js';
import type { Cpu } from '../../src/cpu/cpu.js';
import { Memory } from '../../src/cpu/memory.js';
import { captureOops, isOops, printOops, unwind } from '../../src/cpu/oops.js';
import type { SymbolLookup } from '../../src/cpu/symbols.js';
import { factories } from '../helpers/cpus.js';

const TEXT = 0xffff_8000_0800_0000n;
const STACK = 0xffff_8000_1000_0000n;
const STACK_END = STACK + 4096n;

const FUNCTIONS = [
  { name: 'outer', start: TEXT, size: 24 },
  { name: 'inner', start: TEXT + 24n, size: 20 },
];
const symbols: SymbolLookup = {
  lookup(address) {
    const found = FUNCTIONS.find(
      ({ start, size }) => address >= start && address < start + BigInt(size),
    );
    return found && { name: found.name, offset: Number(address - found.start), size: found.size };
  },
};

const stpPre = encode('STP_pre', { sf: 1, imm7: -2, Rt2: 30, Rn: 31, Rt: 29 });
const movFp = encode('ADD_immediate', { sf: 1, sh: 0, imm12: 0, Rn: 31, Rd: 29 });
const bl = (words: number): number => encode('BL', { imm26: words });
const strX0X1 = encode('STR_unsigned', { sf: 1, imm12: 1, Rn: 1, Rt: 0 });
const NOP = 0xd503201f;
/** outer: the call of inner is its last instruction, so its return address belongs to inner. */
const WORDS = [NOP, NOP, NOP, stpPre, movFp, bl(1), stpPre, movFp, NOP, strX0X1, NOP];

function crash(cpu: Cpu, memory: Memory): string {
  WORDS.forEach((word, index) => {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, word, true);
    memory.pokeBytes(TEXT + BigInt(4 * index), bytes);
  });
  cpu.sync(TEXT, TEXT + 4096n);
  for (let i = 0; i < 30; i++) cpu.setX(i, BigInt(i));
  cpu.setX(29, 0n);
  cpu.setX(30, 0xdead_0000n);
  cpu.sp = STACK_END;
  cpu.nzcv = 0b0110;
  cpu.pc = TEXT;
  const stop = cpu.run();
  if (!isOops(stop)) throw new Error(`stopped with ${stop.kind}`);
  return printOops(captureOops(cpu, stop, { symbols, cpu: 1, task: 'swapper' }));
}

describe.each(factories)('oops on $name', (factory) => {
  it('prints like the kernel', () => {
    const memory = new Memory(1 << 20);
    memory.map({ name: 'text', address: TEXT, size: 4096, permissions: 'rx' });
    memory.map({ name: 'stack', address: STACK, size: 4096, permissions: 'rw' });
    const cpu = factory.create(memory);
    expect(crash(cpu, memory).split('\n')).toEqual([
      'Unable to handle kernel NULL pointer dereference at virtual address 0000000000000009',
      'Mem abort info: write of 8 bytes at 0x0000000000000009: no memory there',
      'CPU: 1 Comm: swapper',
      'pstate: 60000005 (nZCv)',
      'pc : inner+0xc/0x14',
      'lr : outer+0x18/0x18',
      'sp : ffff800010000fe0',
      'x29: ffff800010000fe0 x28: 000000000000001c x27: 000000000000001b',
      'x26: 000000000000001a x25: 0000000000000019 x24: 0000000000000018',
      'x23: 0000000000000017 x22: 0000000000000016 x21: 0000000000000015',
      'x20: 0000000000000014 x19: 0000000000000013 x18: 0000000000000012',
      'x17: 0000000000000011 x16: 0000000000000010 x15: 000000000000000f',
      'x14: 000000000000000e x13: 000000000000000d x12: 000000000000000c',
      'x11: 000000000000000b x10: 000000000000000a x9 : 0000000000000009',
      'x8 : 0000000000000008 x7 : 0000000000000007 x6 : 0000000000000006',
      'x5 : 0000000000000005 x4 : 0000000000000004 x3 : 0000000000000003',
      'x2 : 0000000000000002 x1 : 0000000000000001 x0 : 0000000000000000',
      'Call trace:',
      ' inner+0xc/0x14',
      ' outer+0x18/0x18',
      ' 0x00000000dead0000',
      'Code: 94000001 a9bf7bfd 910003fd d503201f (f9000420)',
      '      str x0, [x1, #8]',
    ]);
    cpu.close();
  });

  it.each([
    ['paging request', 'read', 0x5000n, 'unmapped'],
    ['write to read-only memory', 'write', TEXT, 'permission'],
    ['execute from non-executable memory', 'fetch', STACK, 'permission'],
    ['unaligned access', 'read', 0x5001n, 'alignment'],
  ] as const)('names a %s', (text, access, address, reason) => {
    const cpu = factory.create(new Memory(65536));
    const stop = { kind: 'fault', fault: { access, address, size: 8, reason } } as const;
    expect(captureOops(cpu, stop).title).toBe(
      `Unable to handle kernel ${text} at virtual address ${address.toString(16).padStart(16, '0')}`,
    );
    cpu.close();
  });

  it('tells what cannot be read', () => {
    const cpu = factory.create(new Memory(65536));
    cpu.pc = 0x1000n;
    const oops = captureOops(cpu, { kind: 'trap', instruction: 'brk', immediate: 0x800 });
    expect(oops.title).toBe('Unexpected kernel BRK exception at EL1 (0x800)');
    expect(oops.instruction).toBeUndefined();
    expect(printOops(oops)).toContain('Code: ???????? ???????? ???????? ???????? (????????)');
    const undefinedWord = captureOops(cpu, { kind: 'undefined', word: 0xdead });
    expect(undefinedWord.title).toMatch(/Undefined instruction: 0000dead/);
    cpu.close();
  });
});

describe('unwind', () => {
  const memory = new Memory(65536);
  memory.map({ name: 'stack', address: STACK, size: 4096, permissions: 'rw' });
  const record = (at: bigint, previous: bigint, lr: bigint): void => {
    memory.write64(at, previous);
    memory.write64(at + 8n, lr);
  };

  it('stops at 0, at a record that does not rise, and outside memory', () => {
    record(STACK, STACK + 32n, 1n);
    record(STACK + 32n, 0n, 2n);
    expect(unwind(memory, STACK)).toEqual([1n, 2n]);
    record(STACK + 32n, STACK, 2n);
    expect(unwind(memory, STACK)).toEqual([1n, 2n]);
    record(STACK + 32n, STACK_END - 8n, 2n);
    expect(unwind(memory, STACK)).toEqual([1n, 2n]);
    expect(unwind(memory, STACK + 4n)).toEqual([]);
    expect(unwind(memory, 0n)).toEqual([]);
  });

  it('ends', () => {
    for (let i = 0n; i < 128n; i++) record(STACK + i * 16n, STACK + (i + 1n) * 16n, i);
    expect(unwind(memory, STACK).length).toBe(64);
  });
});
