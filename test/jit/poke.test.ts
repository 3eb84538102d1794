import { describe, expect, it } from 'vitest';
import { planTextPoke, type PokePlan } from '../../src/jit/poke.js';
import { dummyTramp } from '../../src/jit/plt.js';

const BASE = 0xffff800082000000n;
const NEAR = 0xffff800083000000n;
const FAR = 0xffff8000b0000000n;
const DUMMY = 0xffff800080030000n;
const NOP = 0xd503201f;

/** A program's entry with its PLT, poked from state to state. */
class Entry {
  word = NOP;
  pltTarget = DUMMY;
  attached = 0n;

  poke(target: bigint, expected = this.attached): PokePlan {
    const plan = planTextPoke({
      ip: BASE,
      type: 'call',
      oldAddress: expected,
      newAddress: target,
      image: { base: BASE, jitedLength: 96 },
      bti: false,
      dummyTramp: DUMMY,
      read: (address) => (address === BASE + 4n ? this.word : 0),
    });
    if (plan.pltWrite) this.pltTarget = plan.pltWrite.target;
    if (plan.patch) this.word = plan.patch.word;
    if (plan.result === 0) this.attached = target;
    return plan;
  }
}

describe('entry of a program', () => {
  const toNear = 0x943fffff;
  const toPlt = 0x94000015;

  it.each([
    ['none, near, none', [NEAR, 0n], NOP, DUMMY],
    ['near', [NEAR], toNear, DUMMY],
    ['far', [FAR], toPlt, FAR],
    ['far, other far', [FAR, FAR + 0x1000n], toPlt, FAR + 0x1000n],
    ['far, near', [FAR, NEAR], toNear, DUMMY],
    ['far, none', [FAR, 0n], NOP, DUMMY],
    ['near, far', [NEAR, FAR], toPlt, FAR],
  ])('%s', (_, targets, word, target) => {
    const entry = new Entry();
    for (const each of targets) expect(entry.poke(each).result).toBe(0);
    expect(entry).toMatchObject({ word, pltTarget: target });
  });

  it('far to far rewrites the PLT alone', () => {
    const entry = new Entry();
    entry.poke(FAR);
    expect(entry.poke(FAR + 4n)).toMatchObject({
      patch: undefined,
      pltWrite: { target: FAR + 4n },
    });
  });

  it('a target that is no instruction address is -EFAULT, with nothing written', () => {
    const entry = new Entry();
    expect(entry.poke(NEAR + 2n)).toEqual({ result: -14, patch: undefined, pltWrite: undefined });
  });

  it('another word than expected is -EFAULT, after the PLT was written', () => {
    const entry = new Entry();
    expect(entry.poke(FAR, NEAR)).toEqual({
      result: -14,
      patch: undefined,
      pltWrite: { address: BASE + 96n, target: FAR },
    });
  });
});

it('dummy_tramp returns into the program with the caller in x30', () => {
  // mov x10, x30 ; mov x30, x9 ; ret x10
  expect(dummyTramp({ pac: true, bti: false })).toEqual([0xaa1e03ea, 0xaa0903fe, 0xd65f0140]);
  expect(dummyTramp({ pac: true, bti: true })).toHaveLength(4);
});
