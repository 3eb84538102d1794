/**
 * Exhibit 14: two subprograms that make tail calls, and a limit that does not hold.
 *
 * Reference: prepare_bpf_tail_call_cnt of arch/arm64/net/bpf_jit_comp.c; selftest tailcalls/
 * tailcall_bpf2bpf_hierarchy. The broken run is the 6.1 JIT, which still counts by value.
 */
import { assemble } from '../../bpf/assemble.js';
import { encodeSlots, makeSlot, readSlots } from '../../bpf/instruction.js';
import { createMap } from '../../bpf/maps/create.js';
import { ProgArray } from '../../bpf/maps/prog-array.js';
import { rawProgram } from '../../bpf/raw-program.js';
import { high32, low32 } from '../../common/bytes.js';
import { describeCall, tryCall, withKernel, type Exhibit } from './exhibit.js';

const TAIL_CALL = 0xf5;
/** MAX_TAIL_CALL_CNT, and the first run. */
const RUNS = 34n;
const BUDGET = 5_000_000;

/** Counts in *ctx and calls a subprogram twice that tail-calls entry 0 of `array`. */
function hierarchy(array: bigint): Uint8Array {
  const load = [
    makeSlot(0x18, { dst: 2, imm: low32(array) }),
    makeSlot(0x00, { imm: high32(array) }),
  ];
  const main = assemble(`
    r6 = r1
    r0 = *(u64 *)(r1 +0)
    r0 += 1
    *(u64 *)(r1 +0) = r0
    call sub
    r1 = r6
    call sub
    r0 = 0
    exit
  sub:
    r3 = 0
    r0 = 0
    exit`);
  const slots = readSlots(main);
  const [end, rest] = [slots.slice(0, -2), slots.slice(-2)];
  return encodeSlots([...end, ...load, makeSlot(TAIL_CALL), ...rest]);
}

export const tailCallHierarchy: Exhibit = {
  number: 14,
  name: 'tail_call_hierarchy',
  wing: 'jit',
  fixedIn: '6.12',
  story:
    'The number of tail calls made was a value in x26, which subprograms save and restore: what they counted was ' +
    'lost when they returned. A program whose two subprograms each tail-call the program itself runs 2^33 times ' +
    'instead of 34. Now x26 points to one count in the frame of the program that was entered first.',
  run: (variant, boot) =>
    withKernel(boot, { version: variant === 'broken' ? '6.1' : '6.12' }, (kernel) => {
      const { host } = kernel.bpf;
      const map = createMap(
        {
          name: 'jmp_table',
          type: 'PROG_ARRAY',
          keySize: 4,
          valueSize: 4,
          maxEntries: 1,
          flags: 0,
        },
        host,
      );
      const xlated = rawProgram('hierarchy', hierarchy(map.address), { stackDepth: 0 });
      const program = kernel.bpf.load(xlated);
      if (map instanceof ProgArray) map.setProgram(0, xlated, program.address);
      const context = kernel.kmalloc(8);
      kernel.executor.budget = BUDGET;
      const outcome = tryCall(kernel, program.entry, context);
      const runs = kernel.memory.read64(context);
      return {
        lines: [
          describeCall('hierarchy(ctx)', outcome),
          `the program has run ${runs} times; ${RUNS} are allowed`,
        ],
        right: outcome.kind === 'returned' && runs === RUNS,
      };
    }),
};
