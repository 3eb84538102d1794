/**
 * Scenario files of booted kernels (`scen.*.json`): which programs a trampoline image calls, with the addresses
 * that the booted kernel had, read out of its words; and what stood on the stack when programs began.
 */
import { hexToBytes } from '../../src/common/bytes.js';

export interface ScenarioProgram {
  readonly xlated: string;
  readonly ksyms: readonly string[];
  /** BPF_TRACE_FENTRY 24, BPF_TRACE_FEXIT 25, BPF_MODIFY_RETURN 26, BPF_LSM_MAC 27. */
  readonly eat: number;
  readonly fn: string | null;
}

export interface ScenarioTrampoline {
  readonly name: string;
  readonly addr: string;
  readonly image: string;
  readonly disasm: readonly string[];
}

export interface Snapshot {
  readonly at_step: number;
  readonly pc: string;
  readonly sym: string;
  readonly sp: string;
  readonly stack: readonly string[];
  readonly regs: readonly string[];
}

export interface ScenarioFile {
  readonly scenario: string;
  readonly notes?: readonly string[];
  readonly states: readonly {
    readonly label: string;
    readonly fn?: string;
    readonly addr?: string;
    readonly trampolines: readonly ScenarioTrampoline[];
  }[];
  readonly traces: readonly {
    readonly label: string;
    readonly entry: string;
    readonly snaps: readonly Snapshot[];
  }[];
  readonly progs: Readonly<Record<string, ScenarioProgram>>;
}

/** A call of a program as the image makes it. */
export interface CalledProgram {
  readonly name: string;
  readonly program: bigint;
  readonly entry: bigint;
  readonly cookie: bigint;
  /** Symbols and addresses. */
  readonly enter: readonly [string, bigint];
  readonly exit: readonly [string, bigint];
}

export interface ScenarioImage {
  readonly base: bigint;
  readonly words: readonly number[];
  readonly calls: readonly CalledProgram[];
  readonly im: bigint;
  readonly trampEnter: bigint;
  readonly trampExit: bigint;
}

const field = (word: number, low: number, bits: number): number => (word >>> low) & (2 ** bits - 1);

/** Constants that MOVZ, MOVN and MOVK have put into registers so far. */
class Constants {
  readonly #values = new Map<number, bigint>();

  take(word: number): void {
    const kind = field(word, 29, 2);
    if (field(word, 23, 6) !== 0b100101 || kind === 1) return;
    const rd = field(word, 0, 5);
    const shift = BigInt(16 * field(word, 21, 2));
    const part = BigInt(field(word, 5, 16)) << shift;
    if (kind === 0) this.#values.set(rd, BigInt.asUintN(64, ~part));
    else if (kind === 2) this.#values.set(rd, part);
    else this.#values.set(rd, (this.get(rd) & ~(0xffffn << shift)) | part);
  }

  get(register: number): bigint {
    return this.#values.get(register) ?? 0n;
  }
}

/** Reads a trampoline image; undefined when it calls a program that the file does not have. */
export function readImage(
  trampoline: ScenarioTrampoline,
  programs: ScenarioFile['progs'],
): ScenarioImage | undefined {
  const bytes = hexToBytes(trampoline.image);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const words = Array.from({ length: bytes.length / 4 }, (_, i) => view.getUint32(4 * i, true));
  const base = BigInt(trampoline.addr);
  const names = new Map(
    Object.entries(programs).map(([name, { ksyms }]) => [BigInt(ksyms[0] ?? 0), name]),
  );
  const constants = new Constants();
  const calls: CalledProgram[] = [];
  let pending: Partial<CalledProgram> = {};
  let cookie = 0n;
  let [im, trampEnter, trampExit] = [0n, 0n, 0n];
  for (const [i, word] of words.entries()) {
    constants.take(word);
    // str xt, [sp, #n]: the last one before enter is the cookie's
    if ((word & 0xffc003e0) >>> 0 === 0xf90003e0) {
      cookie = field(word, 0, 5) === 31 ? 0n : constants.get(field(word, 0, 5));
    }
    if (word >>> 26 !== 0b100101) continue;
    const target = base + BigInt(4 * i) + 4n * BigInt.asIntN(26, BigInt(word & 0x3ffffff));
    const symbol = /; (\w+)\+0x0$/.exec(trampoline.disasm[i] ?? '')?.[1] ?? '';
    const program = names.get(target);
    if (symbol === '__bpf_tramp_enter') [im, trampEnter] = [constants.get(0), target];
    else if (symbol === '__bpf_tramp_exit') trampExit = target;
    else if (symbol.startsWith('__bpf_prog_enter')) {
      pending = { enter: [symbol, target], program: constants.get(19), cookie };
    } else if (symbol.startsWith('__bpf_prog_exit')) {
      calls.push({ ...(pending as CalledProgram), exit: [symbol, target] });
    } else if (program !== undefined) pending = { ...pending, name: program, entry: target };
    else return undefined;
  }
  return { base, words, calls, im, trampEnter, trampExit };
}
