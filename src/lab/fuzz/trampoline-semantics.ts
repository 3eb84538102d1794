/**
 * What a call of a traced function does, in plain TypeScript: which programs run when, what each sees, what
 * the original receives, what the caller gets.
 *
 * Reference: kernel/bpf/trampoline.c, include/linux/bpf.h (the ctx array of tracing programs); arm64's
 * procedure call standard for where arguments are. Knows nothing of code.
 */
import { hex64 } from '../../common/bytes.js';
import type { KernelVersion } from '../../jit/profile.js';
import {
  slotsOf,
  type FuzzArgument,
  type FuzzLink,
  type TrampolineCase,
} from './trampoline-case.js';

/** One line for each thing that happens. */
export type Events = readonly string[];

const ARGUMENT_REGISTERS = 8;
/** MAX_BPF_FUNC_ARGS. */
const MOST_ARGUMENTS = 12;
const LARGEST_ARGUMENT = 16;
/** Bit of the argument count that tells a session that it runs at the exit. */
const IS_RETURN = 1n << 63n;

export interface PassedArguments {
  /** x0, x1, ... */
  readonly registers: readonly bigint[];
  /** Above the caller's sp, 8 bytes each. */
  readonly stack: readonly bigint[];
  /** What a program finds in its ctx array: of a stack argument only the bytes that it has. */
  readonly context: readonly bigint[];
}

/** Where the values of a case go: once an argument does not fit into registers, all others are on the stack. */
export function passArguments({ arguments: args, values }: TrampolineCase): PassedArguments {
  const registers: bigint[] = [];
  const stack: bigint[] = [];
  const context: bigint[] = [];
  let isOnStack = false;
  for (const argument of args) {
    const slots = slotsOf(argument);
    isOnStack ||= registers.length + slots > ARGUMENT_REGISTERS;
    for (let i = 0; i < slots; i++) {
      const value = values[context.length] ?? 0n;
      (isOnStack ? stack : registers).push(value);
      const bytes = Math.min(8, argument.size - 8 * i);
      context.push(isOnStack ? BigInt.asUintN(8 * bytes, value) : value);
    }
  }
  return { registers, stack, context };
}

/** The errno with which the first attachment fails, if it does. */
function refusal(
  args: readonly FuzzArgument[],
  stack: number,
  version: KernelVersion,
): string | undefined {
  if (args.some(({ size }) => size > LARGEST_ARGUMENT)) return 'EINVAL';
  switch (version) {
    case '6.1':
      return args.some(({ struct }) => struct) || args.length > 8 ? 'ENOTSUPP' : undefined;
    case '6.12':
      return stack > 0 ? 'ENOTSUPP' : undefined;
    case '7.3':
      return args.length > MOST_ARGUMENTS ? 'ENOTSUPP' : undefined;
  }
}

/** What a program reports of one run. */
export interface Report {
  /** Number of its link. */
  readonly link: number;
  readonly when: 'entry' | 'exit';
  readonly count: bigint;
  readonly context: readonly bigint[];
  /** undefined where none is defined. */
  readonly result: bigint | undefined;
  /** `function`, where it asked and got the function's address. */
  readonly ip: string;
  readonly cookie: bigint;
}

const list = (values: readonly bigint[]): string => values.map(hex64).join(' ');

export function reportLine({ link, when, count, context, result, ip, cookie }: Report): string {
  const returned = result === undefined ? '' : `, returned ${hex64(result)}`;
  const address = ip === '' ? '' : `, ip ${ip}`;
  return `link ${link} at ${when}: ${hex64(count)} arguments ${list(context)}${returned}${address}, cookie ${hex64(cookie)}`;
}

export function originalLine(registers: readonly bigint[], stack: readonly bigint[]): string {
  return `original: ${list(registers)}${stack.length > 0 ? `, stack ${list(stack)}` : ''}`;
}

/** Most recently attached first, as they run. */
function linksOf(
  links: readonly FuzzLink[],
  ...kinds: readonly FuzzLink['kind'][]
): { readonly link: FuzzLink; readonly number: number }[] {
  return links
    .map((link, number) => ({ link, number }))
    .filter(({ link }) => kinds.includes(link.kind))
    .toReversed();
}

/** Everything that happens when the function is called with all links attached. */
export function expectedEvents(fuzzCase: TrampolineCase, version: KernelVersion): Events {
  const { links, result } = fuzzCase;
  const { registers, stack, context } = passArguments(fuzzCase);
  const errno = refusal(fuzzCase.arguments, stack.length, version);
  if (errno !== undefined) return [`attach: ${errno}`];
  const events: string[] = [];
  const sessions = links.some(({ kind }) => kind === 'fsession');
  const count = BigInt(context.length);
  const run = (
    { link, number }: { readonly link: FuzzLink; readonly number: number },
    when: Report['when'],
    returned: bigint | undefined,
  ): void => {
    const ip = link.ip ? 'function' : '';
    // sessions find out from the count when they run, and so all programs see it
    const seen = sessions && when === 'exit' ? count | IS_RETURN : count;
    const { cookie } = link;
    events.push(
      reportLine({ link: number, when, count: seen, context, result: returned, ip, cookie }),
    );
  };
  const callsOriginal = links.some(({ kind }) => kind !== 'fentry');
  for (const each of linksOf(links, 'fentry', 'fsession')) run(each, 'entry', undefined);
  let returned = 0n;
  for (const each of linksOf(links, 'fmod_ret')) {
    run(each, 'entry', returned);
    returned = each.link.result;
    if (returned !== 0n) break;
  }
  if (returned === 0n) {
    events.push(originalLine(registers, stack));
    returned = result;
  }
  if (callsOriginal) {
    for (const each of linksOf(links, 'fexit', 'fsession')) run(each, 'exit', returned);
  }
  return [...events, `returned ${hex64(returned)}`];
}
