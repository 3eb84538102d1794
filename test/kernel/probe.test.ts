/**
 * Accesses of JIT images that may fault: the exception table lets the program go on, with the register
 * that the load would have written cleared. Each kind of access, on a good and on a bad address.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { assemble } from '../../src/bpf/assemble.js';
import { encodeSlots, makeSlot, type Slot } from '../../src/bpf/instruction.js';
import type { XlatedProgram } from '../../src/bpf/program.js';
import { rawProgram } from '../../src/bpf/raw-program.js';
import { KernelArena } from '../../src/kernel/bpf/arena.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { bootLab } from '../../src/node/boot.js';
import { factories } from '../helpers/cpus.js';

const engines = factories.map(({ name }) => name);

/** What memory holds at each good address. */
const VALUE = 0xfedc_ba98_7654_3281n;
/** R3 before the access. */
const BEFORE = 0x77;
const BAD = 0x10n;

interface Row {
  readonly name: string;
  readonly slot: Slot;
  readonly since: '6.1' | '6.12' | '7.3';
  /** R3 afterwards, on a good and on a bad address (7.3 first where 6.12 differs). */
  readonly good: bigint;
  readonly bad: bigint | { readonly '6.12': bigint; readonly '7.3': bigint };
  /** The memory afterwards. */
  readonly memory?: bigint;
}

const load = (code: number): Slot => makeSlot(code, { dst: 3, src: 2 });
const keep = BigInt(BEFORE);
const low = (bits: number, value: bigint): bigint => value & ((1n << BigInt(bits)) - 1n);

const PROBE_MEM: readonly Row[] = [
  { name: 'u8', slot: load(0x31), since: '6.1', good: 0x81n, bad: 0n },
  { name: 'u16', slot: load(0x29), since: '6.1', good: 0x3281n, bad: 0n },
  { name: 'u32', slot: load(0x21), since: '6.1', good: 0x7654_3281n, bad: 0n },
  { name: 'u64', slot: load(0x39), since: '6.1', good: VALUE, bad: 0n },
  { name: 's8', slot: load(0x51), since: '6.12', good: 0xffff_ffff_ffff_ff81n, bad: 0n },
  { name: 's16', slot: load(0x49), since: '6.12', good: 0x3281n, bad: 0n },
  { name: 's32', slot: load(0x41), since: '6.12', good: 0x7654_3281n, bad: 0n },
];

const store = { good: keep, bad: keep };
const ADDED = VALUE + keep;
const ARENA: readonly Row[] = [
  { name: 'arena u8', slot: load(0xb1), since: '6.12', good: 0x81n, bad: 0n },
  { name: 'arena u64', slot: load(0xb9), since: '6.12', good: VALUE, bad: 0n },
  { name: 'arena s8', slot: load(0xd1), since: '7.3', good: 0xffff_ffff_ffff_ff81n, bad: 0n },
  {
    name: 'arena store of a register',
    slot: makeSlot(0xbb, { dst: 2, src: 3 }),
    since: '6.12',
    memory: keep,
    ...store,
  },
  {
    name: 'arena store of a number',
    slot: makeSlot(0xa2, { dst: 2, imm: 5 }),
    since: '6.12',
    memory: (VALUE & ~0xffff_ffffn) | 5n,
    ...store,
  },
  {
    name: 'arena atomic add',
    slot: makeSlot(0xfb, { dst: 2, src: 3, imm: 0x00 }),
    since: '6.12',
    memory: ADDED,
    ...store,
  },
  {
    name: 'arena atomic fetch and add',
    slot: makeSlot(0xfb, { dst: 2, src: 3, imm: 0x01 }),
    since: '6.12',
    memory: ADDED,
    good: VALUE,
    bad: { '6.12': keep, '7.3': 0n },
  },
  {
    name: 'arena atomic exchange',
    slot: makeSlot(0xe3, { dst: 2, src: 3, imm: 0xe1 }),
    since: '6.12',
    memory: (VALUE & ~0xffff_ffffn) | keep,
    good: low(32, VALUE),
    bad: { '6.12': keep, '7.3': 0n },
  },
  {
    name: 'arena load-acquire',
    slot: makeSlot(0xfb, { dst: 3, src: 2, imm: 0x100 }),
    since: '7.3',
    good: VALUE,
    bad: 0n,
  },
  {
    name: 'arena store-release',
    slot: makeSlot(0xfb, { dst: 2, src: 3, imm: 0x110 }),
    since: '7.3',
    memory: keep,
    ...store,
  },
];

/** R2 = `address`, R3 = BEFORE, the access, R0 = R3. */
function accessing(address: bigint, slots: readonly Slot[]): XlatedProgram {
  const insns = encodeSlots([
    makeSlot(0x18, { dst: 2, imm: Number(BigInt.asIntN(32, address)) }),
    makeSlot(0, { imm: Number(BigInt.asIntN(32, address >> 32n)) }),
    makeSlot(0xb7, { dst: 3, imm: BEFORE }),
    ...slots,
    makeSlot(0xbf, { dst: 0, src: 3 }),
    makeSlot(0x95),
  ]);
  return { name: 'probe', type: 'raw', functions: [{ name: 'probe', insns, stackDepth: 0 }] };
}

describe.each(engines)('accesses that may fault on %s', (engine) => {
  describe.each(['6.1', '6.12', '7.3'] as const)('%s', (version) => {
    let kernel: Kernel;
    let arena: KernelArena;
    beforeAll(async () => {
      kernel = await bootLab({ engine, version });
      arena = new KernelArena(kernel, { userVmStart: 0x7f12_3000_0000n });
    });
    afterAll(() => kernel.close());

    const run = (program: XlatedProgram): bigint => {
      const loaded = kernel.bpf.load(program);
      try {
        return kernel.call(loaded.entry);
      } finally {
        loaded.free();
      }
    };
    const here = (rows: readonly Row[]): readonly Row[] =>
      rows.filter(({ since }) => Number(since) <= Number(version));
    const expectedBad = ({ bad }: Row): bigint =>
      typeof bad === 'bigint' ? bad : bad[version === '7.3' ? '7.3' : '6.12'];

    it.each(here(PROBE_MEM))('$name', (row) => {
      const { address } = kernel.bpf.host.allocate('probed', 8);
      kernel.memory.write64(address, VALUE);
      expect(run(accessing(address, [row.slot]))).toBe(row.good);
      expect(run(accessing(BAD, [row.slot]))).toBe(expectedBad(row));
      // behind the last byte of a region, and an address that no register extension makes canonical
      expect(run(accessing(address + 8n, [row.slot]))).toBe(expectedBad(row));
      expect(run(accessing(0x1234_5678_9abc_def0n, [row.slot]))).toBe(expectedBad(row));
    });

    it('a chain of pointers in a tracing program, whole and broken', () => {
      const { host } = kernel.bpf;
      const seen = host.allocate('seen', 8).address;
      // arg -> *arg -> **arg, each link a load that may fault
      const xlated = rawProgram(
        'chain',
        assemble(`r1 = *(u64 *)(r1 + 0)
          r1 = probe *(u64 *)(r1 + 0)
          r1 = probe *(u64 *)(r1 + 8)
          r1 = probe *(u64 *)(r1 + 16)
          r2 = 0x${seen.toString(16)} ll
          *(u64 *)(r2 + 0) = r1
          r0 = 0
          exit`),
      );
      const tracer = kernel.bpf.load({ ...xlated, type: 'tracing' });
      const traced = kernel.bpf.load({
        ...rawProgram('traced', assemble('r0 = 5\nexit')),
        type: 'xdp',
      });
      const attached = kernel.bpf.attach(tracer, 'fentry', { program: traced });
      const [first, second, third] = [1, 2, 3].map((n) => host.allocate(`link ${n}`, 24).address);
      if (!first || !second || !third) throw new Error('no memory');
      kernel.memory.write64(first, second);
      kernel.memory.write64(second + 8n, third);
      kernel.memory.write64(third + 16n, VALUE);
      const follow = (from: bigint): bigint => {
        kernel.memory.write64(seen, 1n);
        expect(kernel.call(traced.entry, from)).toBe(5n);
        return kernel.memory.read64(seen);
      };
      expect(follow(first)).toBe(VALUE);
      kernel.memory.write64(second + 8n, BAD);
      expect(follow(first)).toBe(0n);
      expect(follow(0n)).toBe(0n);
      attached.detach();
    });

    const arenaRows = here(ARENA);
    it.runIf(arenaRows.length > 0).each(arenaRows)('$name', (row) => {
      const user = arena.allocPages(1);
      kernel.memory.write64(arena.kernelAddress(user), VALUE);
      const program = accessing(BigInt.asUintN(32, user), [row.slot]);
      expect(run({ ...program, arena })).toBe(row.good);
      expect(kernel.memory.read64(arena.kernelAddress(user))).toBe(row.memory ?? VALUE);
      arena.freePage(user);
      expect(run({ ...program, arena })).toBe(expectedBad(row));
    });

    it.skipIf(version === '6.1')('a cast gives what user space knows, NULL stays NULL', () => {
      const user = arena.allocPages(1);
      const cast = makeSlot(0xbf, { dst: 3, src: 2, off: 1, imm: 1 << 16 });
      expect(run({ ...accessing(BigInt.asUintN(32, user), [cast]), arena })).toBe(user);
      expect(run({ ...accessing(0n, [cast]), arena })).toBe(0n);
    });

    it.skipIf(version === '6.1')('a store of a number far from its base', () => {
      const user = arena.allocPages(1);
      const slot = makeSlot(0xba, { dst: 2, off: 0x101, imm: 9 });
      expect(run({ ...accessing(BigInt.asUintN(32, user), [slot]), arena })).toBe(keep);
      // 6.12 loads the offset over its own base; the fault is passed over
      const stored = kernel.memory.read64(arena.kernelAddress(user) + 0x101n);
      expect(stored).toBe(version === '7.3' ? 9n : 0n);
    });

    it('an access without an entry is an oops', () => {
      expect(() => run(accessing(BAD, [load(0x79)]))).toThrow(/bpf_prog_probe/);
    });
  });
});
