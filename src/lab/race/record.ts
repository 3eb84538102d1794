/**
 * A real operation of the kernel as the steps of a plan: it is run once with an observer, and memory is put back.
 *
 * Usage:
 *   const { steps, names } = record(kernel, () => kernel.ftrace.register(ops));
 */
import { print } from '../../a64/print.js';
import { AARCH64_BREAK_FAULT } from '../../a64/immediates.js';
import { viewOf } from '../../common/bytes.js';
import { KernelError } from '../../common/errors.js';
import type { Kernel } from '../../kernel/kernel.js';
import type { RcuFlavour } from '../../kernel/patch-observer.js';
import { NameTable } from './names.js';
import type { PlanStep } from './plan.js';

export interface Recording {
  readonly steps: readonly PlanStep[];
  /** Why the operation was refused. */
  readonly refusal: KernelError | undefined;
}

type RawStep =
  | {
      readonly kind: 'store';
      readonly address: bigint;
      readonly old: Uint8Array;
      readonly bytes: Uint8Array;
    }
  | { readonly kind: 'sync'; readonly start: bigint; readonly end: bigint }
  | { readonly kind: 'ipi' }
  | { readonly kind: 'wait'; readonly flavour: RcuFlavour }
  | { readonly kind: 'drain'; readonly address: bigint }
  | { readonly kind: 'later'; readonly steps: RawStep[] }
  | { readonly kind: 'free'; readonly address: bigint; readonly size: number };

/** Names of grace periods by what waits for them. */
const WAITS: Readonly<Record<RcuFlavour, string>> = {
  rcu: 'RCU grace period',
  tasks: 'RCU tasks grace period',
  tasks_rude: 'RCU tasks rude grace period',
  tasks_trace: 'RCU tasks trace grace period',
};

export function record(kernel: Kernel, names: NameTable, operation: () => void): Recording {
  const { memory } = kernel;
  const raw: RawStep[] = [];
  let strand = raw;
  const deferred: { readonly steps: RawStep[]; readonly callback: () => void }[] = [];
  const before = memory.snapshot();
  const push = (step: RawStep): void => {
    names.collect();
    strand.push(step);
  };
  const stop = kernel.observePatching({
    stored: (address, bytes) => {
      // an instruction cache's alias is the same memory
      const old = memory.readBytes(address, bytes.length);
      strand.push({ kind: 'store', address, old, bytes: bytes.slice() });
    },
    synced: (start, end) => push({ kind: 'sync', start, end }),
    interrupted: () => push({ kind: 'ipi' }),
    waited: (flavour) => push({ kind: 'wait', flavour }),
    deferred: (flavour, callback) => {
      const steps: RawStep[] = [{ kind: 'wait', flavour }];
      push({ kind: 'later', steps });
      deferred.push({ steps, callback });
    },
    drained: (address) => push({ kind: 'drain', address }),
    freed: (address, size) => push({ kind: 'free', address, size }),
  });
  let refusal: KernelError | undefined;
  try {
    operation();
    for (let next = deferred.shift(); next; next = deferred.shift()) {
      strand = next.steps;
      next.callback();
    }
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    refusal = error;
  } finally {
    stop();
    names.collect();
    memory.restore(before);
  }
  const counters = new Set(drained(raw));
  return { steps: raw.map((step) => describe(kernel, names, counters, step)), refusal };
}

function drained(steps: readonly RawStep[]): bigint[] {
  return steps.flatMap((step) => {
    if (step.kind === 'later') return drained(step.steps);
    return step.kind === 'drain' ? [step.address] : [];
  });
}

function describe(
  kernel: Kernel,
  names: NameTable,
  counters: ReadonlySet<bigint>,
  step: RawStep,
): PlanStep {
  switch (step.kind) {
    case 'store':
      return describeStore(kernel, names, counters, step);
    case 'sync':
      return { ...step, what: `clean and invalidate ${names.format(step.start)}, dsb ish` };
    case 'ipi':
      return { ...step, what: 'IPI to every CPU' };
    case 'wait':
      return { ...step, what: WAITS[step.flavour] };
    case 'drain':
      return { ...step, what: `${names.variable(step.address)} is 0` };
    case 'later':
      return {
        kind: 'later',
        steps: step.steps.map((each) => describe(kernel, names, counters, each)),
        what: 'call_rcu',
      };
    case 'free':
      return { ...step, what: `${names.block(step.address)}, freed` };
  }
}

function describeStore(
  kernel: Kernel,
  names: NameTable,
  counters: ReadonlySet<bigint>,
  { address, old, bytes }: Extract<RawStep, { kind: 'store' }>,
): PlanStep {
  const view = viewOf(bytes);
  if (counters.has(address)) {
    const amount = Number(
      BigInt.asIntN(64, view.getBigUint64(0, true) - viewOf(old).getBigUint64(0, true)),
    );
    return {
      kind: 'add',
      address,
      amount,
      what: `${names.variable(address)} ${amount < 0 ? '-' : '+'} ${Math.abs(amount)}`,
    };
  }
  const isText = kernel.memory.regionAt(address)?.permissions.includes('x') ?? false;
  if (isText && bytes.length === 4) {
    const word = view.getUint32(0, true);
    const what = `${names.format(address)} := ${print(word, address, names.format)}`;
    return { kind: 'store', as: 'instruction', address, bytes, what };
  }
  if (isText && bytes.length > 8) {
    const isFill = view.getUint32(0, true) === AARCH64_BREAK_FAULT;
    const what = `${names.format(address)} := ${isFill ? 'BRK' : 'code'}, ${bytes.length / 4} words`;
    return { kind: 'store', as: 'text', address, bytes, what };
  }
  const value =
    bytes.length === 8 ? names.pointer(view.getBigUint64(0, true)) : `${bytes.length} bytes`;
  return {
    kind: 'store',
    as: 'data',
    address,
    bytes,
    what: `${names.variable(address)} := ${value}`,
  };
}
