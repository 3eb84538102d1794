/**
 * What a booted kernel's trampoline image says: which programs it calls, and the addresses that our image
 * needs to be equal to it.
 *
 * Calls are BL, or BLR of an address put into x10. Each program's stands between that of its enter and
 * that of its exit function; what is called before the first and after the last is __bpf_tramp_enter and
 * __bpf_tramp_exit, with the bpf_tramp_image in x0. x19 is the bpf_prog, and what was last stored at [sp]
 * before enter is the attach cookie.
 */
import { bits, branchTarget, Constants } from './image.js';
import { commentSymbol, type ScenarioProgram, type ScenarioTrampoline } from './scenario-file.js';

/** A call of a program as the image makes it. */
export interface CalledProgram {
  readonly name: string;
  /** Address of its struct bpf_prog. */
  readonly program: bigint;
  readonly entry: bigint;
  readonly cookie: bigint;
  readonly enter: CalledFunction;
  readonly exit: CalledFunction;
}

export interface CalledFunction {
  readonly address: bigint;
  /** Where the file names it. */
  readonly symbol: string | undefined;
}

export interface ImageReading {
  readonly calls: readonly CalledProgram[];
  readonly im: bigint;
  readonly trampEnter: bigint;
  readonly trampExit: bigint;
}

const BLR_X10 = 0xd63f0140;

interface Call extends CalledFunction {
  readonly x0: bigint;
  readonly x19: bigint;
  readonly cookie: bigint;
}

/** Calls in order, with what their registers hold. */
function callsOf({ base, words, disassembly }: ScenarioTrampoline): Call[] {
  const constants = new Constants();
  let cookie = 0n;
  return words.flatMap((word, i) => {
    constants.take(word);
    // str xt, [sp, #imm]: 1111100100 imm12 11111 Rt
    if ((word & 0xffc003e0) >>> 0 === 0xf90003e0) {
      cookie = bits(word, 0, 5) === 31 ? 0n : constants.get(bits(word, 0, 5));
    }
    const target = branchTarget(word, base + BigInt(4 * i), true);
    const address = word === BLR_X10 ? constants.get(10) : target;
    if (address === undefined) return [];
    const symbol = commentSymbol(disassembly[i]);
    return [{ address, symbol, x0: constants.get(0), x19: constants.get(19), cookie }];
  });
}

/** Undefined when it calls no program that the file has. */
export function readImage(
  trampoline: ScenarioTrampoline,
  programs: readonly ScenarioProgram[],
): ImageReading | undefined {
  const names = new Map(programs.map(({ name, addresses }) => [addresses[0], name]));
  const calls = callsOf(trampoline);
  const called = calls.flatMap((call, i): CalledProgram[] => {
    const name = names.get(call.address);
    const [enter, exit] = [calls[i - 1], calls[i + 1]];
    if (name === undefined || !enter || !exit) return [];
    const { x19: program, cookie } = enter;
    return [{ name, program, entry: call.address, cookie, enter, exit }];
  });
  const rest = calls.length - 3 * called.length;
  if (called.length === 0 || (rest !== 0 && rest !== 2)) return undefined;
  const [first, last] = [calls[0], calls.at(-1)];
  return {
    calls: called,
    im: rest === 0 ? 0n : (first?.x0 ?? 0n),
    trampEnter: rest === 0 ? 0n : (first?.address ?? 0n),
    trampExit: rest === 0 ? 0n : (last?.address ?? 0n),
  };
}
