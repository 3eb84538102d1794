/**
 * Exhibits 20 and 21: what a trampoline could not pass on, in and out.
 *
 * Reference: prepare_trampoline and arch_prepare_bpf_trampoline of arch/arm64/net/bpf_jit_comp.c; AAPCS64 6.8.2
 * (arguments), 6.9 (results). The first is the difference between two versions. That the second is refused
 * with ENOTSUPP is how the others of its kind are refused; no source says so.
 */
import { describeCall, refusalOf, tryCall, withKernel, type Exhibit } from './exhibit.js';
import { loadNothing, loadText } from './programs.js';

/** lab_twelve adds twelve arguments, four of which come on the stack. */
const TWELVE = `
FUNCTION u64 lab_twelve(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g, u64 h, u64 i, u64 j, u64 k, u64 l)
	add x0, x0, x1
	add x0, x0, x2
	add x0, x0, x3
	add x0, x0, x4
	add x0, x0, x5
	add x0, x0, x6
	add x0, x0, x7
	ldp x1, x2, [sp]
	ldp x3, x4, [sp, #16]
	add x0, x0, x1
	add x0, x0, x2
	add x0, x0, x3
	add x0, x0, x4
	ret

CODE lab_call_twelve
	stp x29, x30, [sp, #-16]!
	mov x29, sp
	sub sp, sp, #32
	mov x0, #9
	mov x1, #10
	stp x0, x1, [sp]
	mov x0, #11
	mov x1, #12
	stp x0, x1, [sp, #16]
	mov x0, #1
	mov x1, #2
	mov x2, #3
	mov x3, #4
	mov x4, #5
	mov x5, #6
	mov x6, #7
	mov x7, #8
	bl lab_twelve
	add sp, sp, #32
	ldp x29, x30, [sp], #16
	ret
`;

export const twelveArguments: Exhibit = {
  number: 20,
  name: 'twelve_arguments',
  wing: 'jit',
  fixedIn: '6.16',
  story:
    'A function with arguments on the stack could not be traced: the trampoline knew x0 to x7 only and refused ' +
    'the rest. Now up to twelve arguments are copied for the programs, and copied again for the original.',
  run: (variant, boot) =>
    withKernel(
      boot,
      { version: variant === 'broken' ? '6.12' : '7.3', texts: { 'twelve.s': TWELVE } },
      (kernel) => {
        const cell = kernel.kmalloc(8);
        const program = loadText(
          kernel,
          'sees_last',
          `r1 = *(u64 *)(r1 +88)\nr2 = 0x${cell.toString(16)} ll\n*(u64 *)(r2 +0) = r1\nr0 = 0\nexit`,
        );
        const refusal = refusalOf(() => kernel.bpf.attach(program, 'fexit', 'lab_twelve'));
        const outcome = tryCall(kernel, 'lab_call_twelve');
        const seen = kernel.memory.read64(cell);
        return {
          lines: [
            `attach: ${refusal ?? 'done'}`,
            describeCall('lab_twelve(1, 2, .. 12)', outcome),
            `the program saw ${seen === 0n ? 'nothing' : `${seen} as the last argument`}`,
          ],
          right:
            refusal === undefined &&
            outcome.kind === 'returned' &&
            outcome.value === 78n &&
            seen === 12n,
        };
      },
    ),
};

/** lab_wide returns 16 bytes: x0 its argument and one, x1 seven. */
const WIDE = `
FUNCTION __int128 lab_wide(u64 a)
	add x0, x0, #1
	mov x1, #7
	ret

CODE lab_high_half
	stp x29, x30, [sp, #-16]!
	mov x29, sp
	bl lab_wide
	mov x0, x1
	ldp x29, x30, [sp], #16
	ret
`;

export const wideReturn: Exhibit = {
  number: 21,
  name: 'wide_return',
  wing: 'jit',
  fixedIn: '6.12.115',
  story:
    'A trampoline that reads the return value keeps x0 only. Of a function that returns 16 bytes in x0 and x1 ' +
    'the caller got the second half from whatever ran last. Now such a function is refused.',
  run: (variant, boot) =>
    withKernel(
      boot,
      {
        texts: { 'wide.s': WIDE },
        codegen: {
          trampoline: { wideReturn: variant === 'broken' ? 'first register' : 'refused' },
        },
      },
      (kernel) => {
        const program = loadNothing(kernel, 'watcher');
        const refusal = refusalOf(() => kernel.bpf.attach(program, 'fexit', 'lab_wide'));
        const outcome = tryCall(kernel, 'lab_high_half', 1n);
        return {
          lines: [
            `attach of fexit: ${refusal ?? 'done'}`,
            describeCall('upper half of lab_wide(1), which is 7,', outcome),
          ],
          right: outcome.kind === 'returned' && outcome.value === 7n,
        };
      },
    ),
};
