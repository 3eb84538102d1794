/**
 * Trampoline records (tramp, tramp-real): our trampolines, or our refusal, against the kernel's.
 */
import { KernelError } from '../../common/errors.js';
import type { StructOffsets } from '../profile.js';
import { compileTrampoline, type Trampoline } from '../trampoline.js';
import type { TrampolineLink } from '../trampoline-model.js';
import { compareValues, compareWords } from './compare.js';
import type { Fields } from './fields.js';
import { HARNESS, KERNELS, readConfig, VECTOR_OFFSETS } from './harness.js';

/** Suffixes of __bpf_prog_enter and _exit in the harness's order. */
const KINDS = ['plain', 'recur', 'sleepable', 'sleepable_recur', 'lsm_cgroup'] as const;

/** An address that a booted kernel gave, or the harness's. */
function address(record: Fields, symbol: string, harness: bigint): bigint {
  const addresses = record.optional('addr', record.object);
  return addresses === undefined ? harness : addresses.address(symbol);
}

function readLink(record: Fields, link: Fields): TrampolineLink {
  const kind = link.choice('enter_exit', KINDS);
  const suffix = kind === 'plain' ? '' : `_${kind}`;
  const harness = HARNESS.programEnter + 0x200n * BigInt(KINDS.indexOf(kind));
  return {
    kind: link.choice('kind', ['fentry', 'fmod_ret', 'fexit']),
    program: link.address('prog'),
    entry: link.address('bpf_func'),
    jited: link.flag('jited'),
    cookie: link.address('cookie'),
    enter: address(record, `__bpf_prog_enter${suffix}`, harness),
    exit: address(record, `__bpf_prog_exit${suffix}`, harness + 0x100n),
    structOps: link.text('link_type') === 'struct_ops',
    session: link.optional('fsession', link.flag) ?? false,
    sessionCookie: link.optional('session_cookie', link.flag) ?? false,
  };
}

/** Our trampoline of a record. Throws KernelError where the kernel refuses. */
export function compileTrampolineRecord(record: Fields, offsets?: StructOffsets): Trampoline {
  const model = record.object('model');
  const flags = model.numbers('arg_flags');
  const parameters = model.numbers('arg_size').map((size, index) => {
    return { size, struct: ((flags[index] ?? 0) & 1) === 1 };
  });
  const kernel = record.choice('kernel', KERNELS);
  const links = record.objects('links').map((link) => readLink(record, link));
  return compileTrampoline({ arguments: parameters }, record.number('flags'), links, {
    kernel,
    config: readConfig(record),
    offsets: offsets ?? VECTOR_OFFSETS[kernel],
    functionAddress: record.optional('func_addr', record.address) ?? 0n,
    im: record.optional('im', record.address) ?? 0n,
    enter: address(record, '__bpf_tramp_enter', HARNESS.trampEnter),
    exit: address(record, '__bpf_tramp_exit', HARNESS.trampExit),
    place: () => record.address('image_base'),
  });
}

export function checkTrampoline(record: Fields, offsets?: StructOffsets): string | undefined {
  const result = record.number('ret');
  let trampoline: Trampoline;
  try {
    trampoline = compileTrampolineRecord(record, offsets);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    return error.code === result ? undefined : `ret is ${result}, ours ${error.message}`;
  }
  if (result < 0) return `ret is ${result}, ours ${trampoline.length}`;
  const words = compareWords(record.words('words'), trampoline.words, trampoline.base);
  if (words !== undefined) {
    const { index } = words;
    const part = trampoline.listing.find(({ start, end }) => start <= index && index < end);
    return `${words.text}, in '${part?.text ?? 'nothing'}'`;
  }
  return compareValues([
    ['ret', result, trampoline.length],
    ['alloc_size', record.optional('alloc_size', record.number), trampoline.allocSize],
    [
      'ip_after_call_off',
      record.optional('ip_after_call_off', record.number),
      trampoline.ipAfterCall,
    ],
    ['ip_epilogue_off', record.optional('ip_epilogue_off', record.number), trampoline.ipEpilogue],
  ]);
}
