/**
 * BPF_PROG_TEST_RUN of tracing and struct_ops programs: calls of the functions that programs may be attached to.
 *
 * Reference: net/bpf/test_run.c: bpf_prog_test_run_tracing; net/bpf/bpf_dummy_struct_ops.c:
 * bpf_struct_ops_test_run. The program itself is not looked at: what is attached runs because it is attached.
 *
 * Usage:
 *   testRunTracing(kernel, 'fentry'); // 0: all results were right
 *   testRunTracing(kernel, 'fmod_ret'); // 0x2_0021: two side effects, results 4 + 29
 */
import type { StructOpsSpec } from '../bpf/object/struct-ops.js';
import type { SectionKind } from '../bpf/object/spec.js';
import { KernelError } from '../common/errors.js';
import type { KernelProgram } from '../kernel/bpf/program.js';
import type { KernelVersion } from '../jit/profile.js';
import type { Kernel } from '../kernel/kernel.js';

interface TestCall {
  readonly name: string;
  readonly args: readonly bigint[];
  readonly result: number;
}

/** What is called, with an address of a zero where a pointer is wanted. */
function fentryTests(version: KernelVersion, zero: bigint): readonly TestCall[] {
  return [
    { name: 'bpf_fentry_test1', args: [1n], result: 2 },
    { name: 'bpf_fentry_test2', args: [2n, 3n], result: 5 },
    { name: 'bpf_fentry_test3', args: [4n, 5n, 6n], result: 15 },
    { name: 'bpf_fentry_test4', args: [7n, 8n, 9n, 10n], result: 34 },
    { name: 'bpf_fentry_test5', args: [11n, 12n, 13n, 14n, 15n], result: 65 },
    { name: 'bpf_fentry_test6', args: [16n, 17n, 18n, 19n, 20n, 21n], result: 111 },
    { name: 'bpf_fentry_test7', args: [0n], result: 0 },
    { name: 'bpf_fentry_test8', args: [zero], result: 0 },
    { name: 'bpf_fentry_test9', args: [zero], result: 0 },
    ...(version === '7.3' ? [{ name: 'bpf_fentry_test10', args: [0n], result: 0 }] : []),
  ];
}

/** The test run's retval (u32). Throws KernelError: EFAULT for a wrong result, EINVAL for other kinds. */
export function testRunTracing(kernel: Kernel, kind: SectionKind): number {
  switch (kind) {
    case 'fentry':
    case 'fexit':
    case 'fsession':
      return runFentryTests(kernel);
    case 'fmod_ret':
      return runModifyReturn(kernel);
    default:
      throw new KernelError('EINVAL', `there is no test run for ${kind} programs`);
  }
}

function runFentryTests(kernel: Kernel): number {
  const zero = kernel.kmalloc(8);
  try {
    for (const { name, args, result } of fentryTests(kernel.bpf.profile.version, zero)) {
      const value = Number(BigInt.asIntN(32, kernel.call(name, ...args)));
      if (value !== result) throw new KernelError('EFAULT', `${name} gave ${value}, not ${result}`);
    }
    return 0;
  } finally {
    kernel.kfree(zero);
  }
}

/** (side effects << 16) | (u16)sum of the results. */
function runModifyReturn(kernel: Kernel): number {
  const b = kernel.kmalloc(8);
  const calls: (readonly [string, readonly bigint[]])[] = [['bpf_modify_return_test', [1n, b]]];
  if (kernel.bpf.profile.version !== '6.1') {
    calls.push(['bpf_modify_return_test2', [1n, b, 3n, 4n, 5n, 6n, 7n]]);
  }
  let sum = 0;
  let sideEffects = 0;
  for (const [name, args] of calls) {
    kernel.memory.write32(b, 2);
    sum += Number(BigInt.asIntN(32, kernel.call(name, ...args)));
    if (kernel.memory.read32(b) !== 2) sideEffects++;
  }
  kernel.kfree(b);
  return ((sideEffects << 16) | (sum & 0xffff)) >>> 0;
}

const DUMMY_ARGUMENTS = 5;

/**
 * Calls a member of a dummy structure with up to five arguments; the value is what the program returned (u32).
 */
export function testRunStructOps(
  kernel: Kernel,
  spec: StructOpsSpec,
  programOf: (index: number) => KernelProgram,
  member: string,
  args: readonly bigint[] = [],
): number {
  const ops = kernel.bpf.structOps.prepare(spec, programOf);
  const image = ops.images.get(member);
  const array = kernel.kmalloc(8 * DUMMY_ARGUMENTS);
  try {
    if (!image) throw new KernelError('EINVAL', `${spec.name} has no program in ${member}`);
    args.forEach((value, i) => kernel.memory.write64(array + BigInt(8 * i), value));
    const result = kernel.call('dummy_ops_call_op', image.code.base, array);
    return Number(BigInt.asUintN(32, result));
  } finally {
    kernel.kfree(array);
    ops.free();
  }
}
