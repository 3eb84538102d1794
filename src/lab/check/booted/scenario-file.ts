/**
 * `vectors/kernel/V/scen.*.json`: what a booted kernel's patch sites, ftrace_ops, trampolines and programs
 * were in the states of one scenario.
 *
 * One object: scenario, states[] (words at a function, its 8-byte literal, live trampoline images), progs by
 * name, traces[] (calls whose instructions are in trace.*.txt), notes[] of those who took it. Left out: runs,
 * stack snapshots but the first.
 */
import { hexToBytes } from '../../../common/bytes.js';
import { readSlots } from '../../../bpf/instruction.js';
import { VectorRecord } from '../record.js';
import { splitXlated } from './corpus-file.js';
import type { DumpedProgram } from './corpus-images.js';
import { wordsOf } from './image.js';

export interface ScenarioProgram extends DumpedProgram {
  /** enum bpf_attach_type: BPF_TRACE_FENTRY 24, BPF_TRACE_FEXIT 25, BPF_MODIFY_RETURN 26, BPF_LSM_MAC 27. */
  readonly attachType: number;
  /** The kernel function that it is made for. */
  readonly target: string | undefined;
}

export interface ScenarioTrampoline {
  readonly name: string;
  readonly base: bigint;
  readonly words: readonly number[];
  /** One line per word; a branch's ends with `; symbol+0x0`. */
  readonly disassembly: readonly string[];
}

export interface ScenarioState {
  readonly label: string;
  /** Name and address of the function that is looked at. */
  readonly fn: string;
  readonly address: bigint;
  /** Words from the function's first on, with their disassembly. */
  readonly words: readonly number[];
  readonly disassembly: readonly string[];
  /** The literal before the function, where there are such. */
  readonly literal: ScenarioLiteral | undefined;
  /** Lines of tracefs' enabled_functions about it. */
  readonly enabled: readonly string[];
  readonly trampolines: readonly ScenarioTrampoline[];
}

/** What the 8-byte literal points to. */
export interface ScenarioLiteral {
  /** `ftrace_nop_ops+0x0`; empty for ops that are no variable of the kernel's. */
  readonly symbol: string;
  /** Address and symbol: `0xffff8000801fa948 call_direct_funcs+0x0`. */
  readonly func: string;
  readonly savedFunc: string;
  readonly trampoline: string;
  readonly flags: number;
  readonly directCall: bigint;
}

/** A call that was traced instruction by instruction. */
export interface ScenarioTrace {
  readonly label: string;
  /** Where the first instruction lies: `bpf_fentry_test1`, `prog:target`. */
  readonly entry: string;
  /** X0..X30 and SP before it. */
  readonly registers: readonly bigint[];
  /** The stack from SP upward before it. */
  readonly stack: readonly bigint[];
  /** Executed instructions by symbol. */
  readonly counts: ReadonlyMap<string, number>;
}

export interface Scenario {
  readonly name: string;
  readonly record: VectorRecord;
  readonly states: readonly ScenarioState[];
  readonly traces: readonly ScenarioTrace[];
  readonly programs: readonly ScenarioProgram[];
  readonly notes: readonly string[];
}

/** Whether parsed JSON is such a file. */
export function isScenario(json: unknown): boolean {
  if (typeof json !== 'object' || json === null) return false;
  return ['scenario', 'states', 'progs'].every((field) => field in json);
}

/** Throws InputError for a malformed file. */
export function readScenario(name: string, json: unknown): Scenario {
  const record = new VectorRecord(name, json as Readonly<Record<string, unknown>>);
  return {
    name: record.text('scenario'),
    record,
    states: record.records('states').map(readState),
    traces: record.has('traces') ? record.records('traces').map(readTrace) : [],
    programs: record.entries('progs').map(([key, value]) => {
      return readProgram(key, new VectorRecord(`${name} progs.${key}`, value as object as never));
    }),
    notes: record.texts('notes'),
  };
}

function readProgram(name: string, record: VectorRecord): ScenarioProgram {
  const words = wordsOf(record.text('jited'));
  let at = 0;
  return {
    name,
    functions: splitXlated(readSlots(hexToBytes(record.text('xlated')))),
    images: record.numbers('func_lens').map((length) => words.slice(at, (at += length / 4))),
    addresses: record.texts('ksyms').map(BigInt),
    attachType: record.number('eat'),
    target: record.has('fn') ? record.text('fn') : undefined,
  };
}

function readState(record: VectorRecord): ScenarioState {
  return {
    label: record.text('label'),
    fn: record.text('fn'),
    address: BigInt(record.text('addr')),
    words: record.texts('words').map((word) => parseInt(word, 16)),
    disassembly: record.texts('disasm'),
    literal: record.has('literal_ops') ? readLiteral(record) : undefined,
    enabled: record.texts('enabled_functions'),
    trampolines: record.records('trampolines').map((each) => ({
      name: each.text('name'),
      base: BigInt(each.text('addr')),
      words: wordsOf(each.text('image')),
      disassembly: each.texts('disasm'),
    })),
  };
}

function readTrace(record: VectorRecord): ScenarioTrace {
  const [first] = record.has('snaps') ? record.records('snaps') : [];
  return {
    label: record.text('label'),
    entry: record.text('entry').replace(/\+0x0$/, ''),
    registers: record.texts('entry_regs').map(BigInt),
    stack: first?.texts('stack').map(BigInt) ?? [],
    counts: new Map(record.entries('by_symbol').map(([name, count]) => [name, Number(count)])),
  };
}

function readLiteral(record: VectorRecord): ScenarioLiteral {
  const ops = new Map(record.entries('literal_ops'));
  const [direct = '0'] = String(ops.get('direct_call') ?? '0').split(' ');
  return {
    symbol: record.text('literal_sym'),
    func: String(ops.get('func') ?? ''),
    savedFunc: String(ops.get('saved_func') ?? ''),
    trampoline: String(ops.get('trampoline') ?? ''),
    flags: Number(ops.get('flags') ?? 0),
    directCall: BigInt(direct),
  };
}

/** The symbol that a line of a disassembly names: `; ftrace_caller+0x0`. */
export function commentSymbol(line: string | undefined): string | undefined {
  return /; ([\w:.]+)\+0x0$/.exec(line ?? '')?.[1];
}
