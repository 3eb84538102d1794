/**
 * The file in which a user describes a strategy of his own: JSON, and A64 text beside it.
 *
 *   {
 *     "name": "literal-call",
 *     "title": "a literal and a jump in front of every function",
 *     "text": ["literal-call.s"],
 *     "site": { "before": 4, "after": 2 },
 *     "boot":   [{ "at": "F-8", "word": "ldr x16, F-16" }, ...],
 *     "near":   [{ "at": "F+4", "word": "bl image" }],
 *     "far":    [{ "at": "F-16", "quad": "image" }, { "at": "F+4", "word": "bl F-8" }],
 *     "detach": [{ "at": "F+4", "word": "nop" }]
 *   }
 *
 * `site` is how functions are compiled: NOPs before and after the symbol F, which is 8-byte aligned.
 * `boot`, `near`, `far`, `detach` are patch plans: stores in their order, each of an instruction (`word`) or of
 * eight bytes (`quad`); `{"sync": "ipi"}` and `{"wait": "tasks"}` are what a kernel waits for between two. Names in
 * them: F, image (the trampoline), symbols of the texts and of the kernel, each with `+N` or `-N`.
 *
 * Or, in place of `site` and the plans, `"ops": { "callback": "my_callback" }`: an ftrace ops with this callback in
 * `text`, whose ops->private is the image. See docs/strategies.md.
 */
import { InputError } from '../../common/errors.js';

export type OwnStep =
  | { readonly kind: 'word'; readonly at: string; readonly word: string }
  | { readonly kind: 'quad'; readonly at: string; readonly quad: string }
  | { readonly kind: 'sync' }
  | { readonly kind: 'wait'; readonly flavour: OwnWait };

export const OWN_WAITS = ['rcu', 'tasks', 'tasks_rude', 'tasks_trace'] as const;
export type OwnWait = (typeof OWN_WAITS)[number];

/** Patches sites that ftrace does not know. */
export interface OwnPlan {
  readonly kind: 'plan';
  readonly before: number;
  readonly after: number;
  /** Once, before anybody can execute the function. */
  readonly boot: readonly OwnStep[];
  /** The image is in BL range of every instruction that the plan stores. */
  readonly near: readonly OwnStep[];
  /** undefined: refused. */
  readonly far: readonly OwnStep[] | undefined;
  readonly detach: readonly OwnStep[];
}

export interface OwnOps {
  readonly kind: 'ops';
  readonly callback: string;
}

export interface OwnStrategy {
  readonly name: string;
  readonly title: string;
  /** Texts beside the file. */
  readonly text: readonly string[];
  readonly way: OwnPlan | OwnOps;
}

/** @param file for messages */
export function parseOwnStrategy(file: string, json: string): OwnStrategy {
  const root = new Reader(file, parse(file, json));
  const name = root.text('name');
  if (!/^[a-z][a-z0-9-]*$/.test(name)) {
    throw root.error('name', 'is a word of small letters, digits and -');
  }
  const title = root.optional('title')?.asText() ?? name;
  const text =
    root
      .optional('text')
      ?.list()
      .map((each) => each.asText()) ?? [];
  const ops = root.optional('ops');
  if (ops) {
    root.only(['name', 'title', 'text', 'ops']);
    ops.only(['callback']);
    return { name, title, text, way: { kind: 'ops', callback: ops.text('callback') } };
  }
  root.only(['name', 'title', 'text', 'site', 'boot', 'near', 'far', 'detach']);
  const site = root.member('site');
  site.only(['before', 'after']);
  const steps = (key: string): OwnStep[] | undefined => root.optional(key)?.list().map(readStep);
  const near = steps('near');
  const detach = steps('detach');
  if (!near || !detach) throw root.error(near ? 'detach' : 'near', 'is missing');
  return {
    name,
    title,
    text,
    way: {
      kind: 'plan',
      before: site.count('before', 32),
      after: site.count('after', 32),
      boot: steps('boot') ?? [],
      near,
      far: steps('far'),
      detach,
    },
  };
}

function parse(file: string, json: string): unknown {
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new InputError(`${file}: ${error instanceof Error ? error.message : 'no JSON'}`);
  }
}

function readStep(step: Reader): OwnStep {
  if (step.optional('sync')) {
    step.only(['sync']);
    step.choice('sync', ['ipi']);
    return { kind: 'sync' };
  }
  if (step.optional('wait')) {
    step.only(['wait']);
    return { kind: 'wait', flavour: step.choice('wait', OWN_WAITS) };
  }
  const at = step.text('at');
  if (step.optional('quad')) {
    step.only(['at', 'quad']);
    return { kind: 'quad', at, quad: step.text('quad') };
  }
  step.only(['at', 'word']);
  return { kind: 'word', at, word: step.text('word') };
}

/** A value of the file and where it stands. */
class Reader {
  readonly #where: string;
  readonly #value: unknown;

  constructor(where: string, value: unknown) {
    this.#where = where;
    this.#value = value;
  }

  error(key: string, why: string): InputError {
    return new InputError(`${this.#where}: ${key} ${why}`);
  }

  asText(): string {
    if (typeof this.#value === 'string') return this.#value;
    throw new InputError(`${this.#where} is no text`);
  }

  list(): Reader[] {
    const value = this.#value;
    if (!Array.isArray(value)) throw new InputError(`${this.#where} is no list`);
    return value.map((each, i) => new Reader(`${this.#where}[${i}]`, each));
  }

  optional(key: string): Reader | undefined {
    const value = this.#members()[key];
    return value === undefined ? undefined : new Reader(`${this.#where}: ${key}`, value);
  }

  member(key: string): Reader {
    const value = this.optional(key);
    if (!value) throw this.error(key, 'is missing');
    return value;
  }

  text(key: string): string {
    return this.member(key).asText();
  }

  count(key: string, most: number): number {
    const value = this.member(key).#value;
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most) {
      return value;
    }
    throw this.error(key, `is no whole number from 0 to ${most}`);
  }

  choice<T extends string>(key: string, choices: readonly T[]): T {
    const value = this.text(key);
    const found = choices.find((choice) => choice === value);
    if (found === undefined) throw this.error(key, `is none of ${choices.join(', ')}`);
    return found;
  }

  only(keys: readonly string[]): void {
    const extra = Object.keys(this.#members()).find((key) => !keys.includes(key));
    if (extra !== undefined) throw this.error(extra, `is unknown (known: ${keys.join(', ')})`);
  }

  #members(): Record<string, unknown> {
    const value = this.#value;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new InputError(`${this.#where} is no object`);
    }
    return value as Record<string, unknown>;
  }
}
