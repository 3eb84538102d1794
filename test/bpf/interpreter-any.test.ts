import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/common/errors.js';
import { helperBodies, helperTable } from '../../src/bpf/helpers/table.js';
import { encodeSlots, makeSlot, type Slot } from '../../src/bpf/instruction.js';
import { createInterpreter, type InterpreterResult } from '../../src/bpf/interpreter.js';
import { createMap } from '../../src/bpf/maps/create.js';
import { OPCODES } from '../../src/bpf/opcodes.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { rawProgram } from '../../src/bpf/raw-program.js';

const host = new PlainHost({ helpers: helperBodies(), callBase: 0n, helperStride: 1 });
const map = createMap(
  { name: 'm', type: 'HASH', keySize: 4, valueSize: 8, maxEntries: 4, flags: 0 },
  host,
);
const context = host.allocate('ctx', 64).address;

const CODES = OPCODES.flatMap((opcode, code) => (opcode ? [code] : []));
const HELPERS = [...helperTable().keys()];
const small = fc.integer({ min: -4, max: 8 });
const register = fc.oneof(
  { weight: 40, arbitrary: fc.integer({ min: 0, max: 10 }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 15 }) },
);

/** Slots that are mostly valid: near jumps, small offsets, known helpers. */
const anySlot: fc.Arbitrary<Slot> = fc
  .record({
    code: fc.constantFrom(...CODES),
    dst: register,
    src: register,
    off: fc.oneof(fc.constant(0), small, fc.integer({ min: -600, max: 600 })),
    imm: fc.oneof(small, fc.constantFrom(...HELPERS, 16, 32, 64, 0x40, 0xe1, 0xf1), fc.integer()),
  })
  .map(({ code, ...fields }) => makeSlot(code, { ...fields, imm: fields.imm | 0 }));

function outcome(insns: Uint8Array): InterpreterResult | 'refused' {
  try {
    const interpreter = createInterpreter(rawProgram('any', insns), host);
    const result = interpreter.run(context, { r2: map.address, budget: 2000 });
    interpreter.close();
    return result;
  } catch (error) {
    if (error instanceof InputError) return 'refused';
    throw error;
  }
}

describe('any program', () => {
  it('made of random instructions runs, stops or is refused', () => {
    const kinds = new Map<string, number>();
    fc.assert(
      fc.property(fc.array(anySlot, { minLength: 1, maxLength: 12 }), (slots) => {
        const result = outcome(encodeSlots([...slots, makeSlot(0x95)]));
        const kind = result === 'refused' ? result : result.kind;
        kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
      }),
      { numRuns: 6000, seed: 1 },
    );
    // the generator reaches every way to end
    for (const kind of ['return', 'fault', 'budget', 'error', 'refused']) {
      expect(kinds.get(kind) ?? 0, kind).toBeGreaterThan(5);
    }
  });

  it('made of random bytes is refused or runs', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 48 }), (bytes) => {
        expect(outcome(bytes)).toBeDefined();
      }),
      { numRuns: 2000 },
    );
  });
});
