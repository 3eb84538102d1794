/**
 * A patch plan from a file: JSON with the steps, beside a text in the form of `asm/`.
 *
 *   { "name": "mine", "text": "mine.s", "call": "f", "args": [1], "result": 2,
 *     "before": [ { "store": "f-8", "value": "ftrace_nop_ops" } ],
 *     "steps": [ { "store": "f+4", "instruction": "bl hook" }, { "sync": "f+4" }, { "wait": "tasks" },
 *                { "store": "word", "value": "hook" }, { "ipi": true }, { "free": "hook", "size": 16 },
 *                { "later": [ ... ] } ],
 *     "always": ["hook"] }
 *
 * Addresses are symbols with an offset. `instruction` is nop, b X or bl X.
 */
import { branchWord } from '../../a64/immediates.js';
import { InputError } from '../../common/errors.js';
import type { Kernel } from '../../kernel/kernel.js';
import type { RcuFlavour } from '../../kernel/patch-observer.js';
import { NOP } from '../../kernel/text.js';
import { NameTable } from './names.js';
import {
  free,
  ipi,
  storeData,
  storeInstruction,
  sync,
  wait,
  type PatchPlan,
  type PlanStep,
} from './plan.js';
import { bootRace, type Race, type RaceBoot } from './scenario.js';

const FLAVOURS: readonly RcuFlavour[] = ['rcu', 'tasks', 'tasks_rude', 'tasks_trace'];

type Fields = Readonly<Record<string, unknown>>;

/**
 * @param text of the JSON file
 * @param readText reads a file that it names
 */
export async function racePlanFile(
  text: string,
  readText: (name: string) => string,
  boot: RaceBoot,
): Promise<Race> {
  const file = parseJson(text);
  const source = textOf(file, 'text');
  const kernel = await bootRace(boot, { modules: { [source]: readText(source) } });
  const reader = new PlanReader(kernel);
  return { kernel, plan: reader.plan(file), names: new NameTable(kernel), roots: reader.roots };
}

function parseJson(text: string): Fields {
  try {
    const value: unknown = JSON.parse(text);
    if (isFields(value)) return value;
  } catch {
    // said below
  }
  throw new InputError('the plan is no JSON object');
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function textOf(fields: Fields, name: string): string {
  const value = fields[name];
  if (typeof value === 'string') return value;
  throw new InputError(
    `the plan has no text for '${name}' in ${JSON.stringify(fields).slice(0, 60)}`,
  );
}

function listOf(fields: Fields, name: string): readonly unknown[] {
  const value = fields[name] ?? [];
  if (Array.isArray(value)) return value;
  throw new InputError(`'${name}' of the plan is no list`);
}

class PlanReader {
  /** Words that are loaded by their address: all that the plan stores data to. */
  readonly roots: bigint[] = [];
  readonly #kernel: Kernel;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  plan(file: Fields): PatchPlan {
    const entry = this.#address(textOf(file, 'call'));
    const body = file['body'];
    return {
      name: typeof file['name'] === 'string' ? file['name'] : 'plan',
      before: listOf(file, 'before').flatMap((each) => {
        const step = this.#step(each);
        if (step.kind !== 'store') throw new InputError("'before' of the plan takes stores only");
        return [{ address: step.address, bytes: step.bytes }];
      }),
      steps: listOf(file, 'steps').map((each) => this.#step(each)),
      call: {
        entry,
        args: listOf(file, 'args').map((value) => this.#value(value)),
        result: this.#value(file['result'] ?? 0),
        resultBits: 64,
        body: typeof body === 'string' ? this.#address(body) : entry + 8n,
      },
      always: listOf(file, 'always').map((value) => this.#value(value)),
      orderedFetches: file['orderedFetches'] !== false,
      earlyLoads: file['earlyLoads'] !== false,
    };
  }

  #step(value: unknown): PlanStep {
    if (!isFields(value)) throw new InputError(`no step: ${JSON.stringify(value)}`);
    if ('store' in value) return this.#store(value);
    if ('sync' in value) {
      const start = this.#address(textOf(value, 'sync'));
      const size = this.#value(value['size'] ?? 4);
      return sync(start, start + size, `clean and invalidate ${textOf(value, 'sync')}`);
    }
    if ('ipi' in value) return ipi();
    if ('wait' in value) {
      const flavour = FLAVOURS.find((each) => each === value['wait']);
      if (flavour) return wait(flavour);
      throw new InputError(`'wait' takes ${FLAVOURS.join(', ')}`);
    }
    if ('free' in value) {
      const what = textOf(value, 'free');
      return free(this.#address(what), Number(this.#value(value['size'] ?? 4)), `${what}, freed`);
    }
    if ('later' in value) {
      const steps = listOf(value, 'later').map((each) => this.#step(each));
      return { kind: 'later', steps, what: 'call_rcu' };
    }
    throw new InputError(`no step: ${JSON.stringify(value)} (store, sync, ipi, wait, free, later)`);
  }

  #store(fields: Fields): PlanStep {
    const place = textOf(fields, 'store');
    const address = this.#address(place);
    if ('value' in fields) {
      this.roots.push(address);
      return storeData(
        address,
        this.#value(fields['value']),
        `${place} := ${String(fields['value'])}`,
      );
    }
    const instruction = textOf(fields, 'instruction');
    return storeInstruction(
      address,
      this.#word(address, instruction),
      `${place} := ${instruction}`,
    );
  }

  #word(address: bigint, instruction: string): number {
    if (instruction === 'nop') return NOP;
    const match = /^(bl?)\s+(\S+)$/.exec(instruction);
    if (!match) throw new InputError(`'${instruction}' is not nop, b X or bl X`);
    return branchWord(address, this.#address(match[2] as string), match[1] === 'bl');
  }

  #value(value: unknown): bigint {
    if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt(value);
    if (typeof value !== 'string') throw new InputError(`no value: ${JSON.stringify(value)}`);
    return /^(0x[0-9a-f]+|\d+)$/i.test(value) ? BigInt(value) : this.#address(value);
  }

  #address(place: string): bigint {
    const match = /^([A-Za-z_][\w.]*)(?:([+-])(0x[0-9a-f]+|\d+))?$/i.exec(place);
    if (!match) throw new InputError(`'${place}' is no symbol with an offset`);
    const [, symbol = '', sign, offset = '0'] = match;
    const address = this.#kernel.symbol(symbol);
    return sign === '-' ? address - BigInt(offset) : address + BigInt(offset);
  }
}
