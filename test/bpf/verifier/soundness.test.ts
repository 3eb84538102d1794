import { expect, it } from 'vitest';
import { Random } from '../../../src/common/random.js';
import { assemble } from '../../../src/bpf/assemble.js';
import { helperBodies } from '../../../src/bpf/helpers/table.js';
import { createInterpreter, describeResult } from '../../../src/bpf/interpreter.js';
import { load } from '../../../src/bpf/object/load.js';
import type { ObjectSpec } from '../../../src/bpf/object/spec.js';
import { PlainHost } from '../../../src/bpf/plain-host.js';
import { VerifierError } from '../../../src/bpf/verifier/error.js';
import { XdpBuff } from '../../../src/bpf/xdp-buff.js';

const VALUE_SIZE = 64;
const PACKET = 64;

/** R6 ctx, R7 packet with 34 bytes, R8 map value, R9 unknown number; others are played with. */
const PROLOGUE = `
  r6 = r1
  r7 = *(u32 *)(r1 +0)
  r2 = *(u32 *)(r1 +4)
  r3 = r7
  r3 += 34
  if r3 > r2 goto out
  *(u32 *)(r10 -4) = 0
  r2 = r10
  r2 += -4
  r1 = 1 ll
  call 1
  if r0 == 0 goto out
  r8 = r0
  call 7
  r9 = r0
  r0 = 0
  r1 = *(u8 *)(r7 +3)
  r2 = *(u32 *)(r8 +4)
  r3 = 5
  r4 = r9
  r5 = r10
  goto body
out:
  r0 = 2
  exit
body:
`;
const RELOCATED = 9;

/** A program of random arithmetic, comparisons and accesses; most are refused, many are not. */
function randomProgram(random: Random): string {
  const numbers = ['r0', 'r1', 'r2', 'r3', 'r4', 'r9'];
  const bases = ['r7', 'r8', 'r10', 'r5'];
  const lines: string[] = [];
  const count = 6 + random.below(20);
  const constant = (): number =>
    random.pick([0, 1, 3, 7, 8, 15, 31, 40, 63, 255, -1, -8, 0x7fffffff]);
  for (let i = 0; i < count; i++) {
    const a = random.pick(numbers);
    const b = random.pick(numbers);
    const width = random.pick(['r', 'w']);
    const [x, y] = [a.replace('r', width), b.replace('r', width)];
    const right = random.below(2) === 0 ? y : `${constant()}`;
    switch (random.below(12)) {
      case 0:
      case 1:
        lines.push(
          `${x} ${random.pick(['+=', '-=', '*=', '|=', '&=', '^=', '/=', '%='])} ${right === '0' ? y : right}`,
        );
        break;
      case 2:
        lines.push(`${x} &= ${random.pick([1, 3, 7, 15, 31, 63])}`);
        break;
      case 3:
        lines.push(`${x} ${random.pick(['<<=', '>>=', 's>>='])} ${random.below(32)}`);
        break;
      case 4:
        lines.push(`${x} = ${right}`);
        break;
      case 5:
        lines.push(`${a} = (s${random.pick([8, 16, 32])})${b}`);
        break;
      case 6:
      case 7: {
        const to = i + 1 + random.below(count - i);
        const op = random.pick(['==', '!=', '<', '<=', '>', '>=', 's<', 's<=', 's>', 's>=', '&']);
        lines.push(`if ${x} ${op} ${right} goto l${to}`);
        break;
      }
      case 8:
        lines.push(`r5 = ${random.pick(['r7', 'r8', 'r10'])}\nr5 += ${a}`);
        break;
      case 9: {
        const off = 8 * random.below(4) - random.pick([0, 16, 32]);
        lines.push(
          `*(u${random.pick([8, 32, 64])} *)(${random.pick(bases)} ${off < 0 ? off : `+${off}`}) = ${a}`,
        );
        break;
      }
      case 10: {
        const off = random.below(40) - random.pick([0, 40]);
        lines.push(
          `${a} = *(u${random.pick([8, 16, 32, 64])} *)(${random.pick(bases)} ${off < 0 ? off : `+${off}`})`,
        );
        break;
      }
      default:
        lines.push(`*(u64 *)(r10 -8) = ${random.pick([a, 'r5', 'r8'])}\nr5 = *(u64 *)(r10 -8)`);
    }
    lines[i] = `l${i}: ${lines[i] ?? ''}`;
  }
  return `${PROLOGUE}${lines.join('\n')}\nl${count}: r0 = 1\nexit`;
}

function objectOf(insns: Uint8Array): ObjectSpec {
  const base = { keyType: 0, valueType: 0, initialValues: [], flags: 0 };
  return {
    name: 'random',
    license: 'GPL',
    externs: [],
    programs: [
      {
        name: 'main',
        section: 'xdp',
        kind: 'xdp',
        frags: false,
        sleepable: false,
        xdpAttach: 'device',
        functionIndex: 0,
      },
    ],
    functions: [
      {
        name: 'main',
        section: 'xdp',
        offset: 0,
        insns,
        relocations: [{ kind: 'map', slot: RELOCATED, map: 'values' }],
        lines: [],
        coreRelocations: [],
        isStatic: false,
        btfId: 0,
      },
    ],
    maps: [{ name: 'values', type: 2, keySize: 4, valueSize: VALUE_SIZE, maxEntries: 1, ...base }],
    notes: [],
  };
}

it('programs that pass never fault', () => {
  const random = new Random(20);
  let accepted = 0;
  for (let round = 0; round < 3000; round++) {
    const text = randomProgram(random);
    const host = new PlainHost({ helpers: helperBodies(), memorySize: 1 << 17, seed: round + 1 });
    let object;
    try {
      object = load(objectOf(assemble(text)), host);
    } catch (error) {
      if (error instanceof VerifierError) continue;
      throw error;
    }
    accepted++;
    const xdp = XdpBuff.create(host, { ifindex: 1, queueIndex: 0 });
    const frame = host.allocate('frame', 256 + PACKET);
    const interpreter = createInterpreter(object.program('main').xlated, host);
    for (let run = 0; run < 4; run++) {
      const bytes = Uint8Array.from({ length: PACKET }, () => random.below(256));
      host.memory.writeBytes(frame.address + 256n, bytes);
      const value = Uint8Array.from({ length: VALUE_SIZE }, () => random.pick([0, 1, 7, 255]));
      object.maps.get('values')?.set(new Uint8Array(4), value);
      // the frame ends with what the program has proved: a byte more faults
      xdp.setFrame(frame.address, 256 + PACKET, 256 + PACKET - 34, 34);
      const result = interpreter.run(xdp.address);
      expect(result.kind === 'return' ? '' : `${describeResult(result)}\n${text}`).toBe('');
    }
  }
  expect(accepted).toBeGreaterThan(250);
});
