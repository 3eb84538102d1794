/**
 * The trace of the interpreter, without the interpreter knowing: the program is given a call of a helper
 * of our own in front of each instruction. A helper sees the register file, and leaves it as it is.
 */
import { join64 } from '../../common/bytes.js';
import type { BpfHost, HelperBody } from '../../bpf/host.js';
import { encodeSlots, makeSlot, readSlots, type Slot } from '../../bpf/instruction.js';
import { createInterpreter } from '../../bpf/interpreter.js';
import { OPCODES } from '../../bpf/opcodes.js';
import type { XlatedFunction, XlatedProgram } from '../../bpf/program.js';
import { describeResult } from '../../bpf/result.js';
import { jumpDistance } from '../../bpf/validate.js';
import type { FuzzCase } from './case.js';
import { TraceRecorder, type Trace } from './trace.js';
import type { Workbench } from './workbench.js';

const CALL = 0x85;
/** Immediates of the calls in front of instructions: no helper is so far from `callBase`. */
const FIRST_IMMEDIATE = 0x7000_0000;
const BUDGET = 4_000_000;

/** @param immediateOf the immediate of the call in front of a slot */
function instrument(fn: XlatedFunction, immediateOf: (slot: number) => number): XlatedFunction {
  const slots = readSlots(fn.insns);
  const starts: number[] = [];
  let size = 0;
  for (let index = 0; index < slots.length; index++) {
    starts[index] = size;
    size += 2;
    if (slots[index]?.code !== 0x18) continue;
    starts[++index] = size;
    size += 1;
  }
  const traced: Slot[] = [];
  for (let index = 0; index < slots.length; index++) {
    const slot = slots[index] as Slot;
    traced.push(makeSlot(CALL, { imm: immediateOf(index) }), retarget(slot, index, starts));
    const second = slots[index + 1];
    if (slot.code === 0x18 && second) {
      traced.push(second);
      index++;
    }
  }
  return { ...fn, insns: encodeSlots(traced) };
}

/** A jump with the distance that it has among the calls. */
function retarget(slot: Slot, index: number, starts: readonly number[]): Slot {
  const opcode = OPCODES[slot.code];
  const distance = opcode && jumpDistance(slot, opcode);
  if (distance === undefined) return slot;
  const target = starts[index + 1 + distance] ?? 0;
  const moved = target - (starts[index] ?? 0) - 2;
  return opcode?.kind === 'goto' && opcode.long ? { ...slot, imm: moved } : { ...slot, off: moved };
}

export function traceInterpreter(workbench: Workbench, fuzzCase: FuzzCase): Trace {
  const linked = workbench.link(fuzzCase);
  const recorder = new TraceRecorder(workbench, linked);
  const bodies: HelperBody[] = [];
  const programs = linked.programs.map((program, number): XlatedProgram => {
    const [main, ...rest] = program.functions.map((fn, index) =>
      instrument(fn, (slot) => {
        const position = { program: number, fn: index, slot, code: [] };
        bodies.push((registers) => {
          const values = Array.from({ length: 11 }, (_, r) =>
            join64(registers[2 * r] ?? 0, registers[2 * r + 1] ?? 0),
          );
          recorder.record(position, values);
        });
        return FIRST_IMMEDIATE + bodies.length - 1;
      }),
    );
    if (!main) throw new RangeError('no functions');
    return { ...program, functions: [main, ...rest] };
  });
  const host = withHelpers(workbench.host, bodies);
  const [main] = programs;
  if (!main) throw new RangeError('no program');
  workbench.reset(linked);
  workbench.fillSlots(programs);
  const interpreter = createInterpreter(main, host);
  const result = interpreter.run(workbench.context(fuzzCase), { budget: BUDGET });
  interpreter.close();
  const end = describeResult(result);
  return { steps: recorder.finish(end), code: [], end };
}

/** The host, with a body at each of the immediates. */
function withHelpers(host: BpfHost, bodies: readonly HelperBody[]): BpfHost {
  const helperAt = (address: bigint): HelperBody | undefined =>
    bodies[Number(address - host.callBase) - FIRST_IMMEDIATE] ?? host.helperAt(address);
  return new Proxy(host, {
    get(target, key) {
      if (key === 'helperAt') return helperAt;
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
