/**
 * The text that the explorer adds to a kernel: C functions that read what the patcher writes, compiled by hand so
 * that each of their loads is an instruction, and functions for executing CPUs to call.
 *
 * Reference: __ftrace_ops_list_func of kernel/trace/ftrace.c (6.12): the recursion guard, then element by element
 * flags, filter, func and next. `lab_ops_test` stands for ftrace_ops_test, whose hash does not change while an ops
 * is registered; `lab_schedule` gives up the CPU. Left out: contexts other than NORMAL, RCU watching.
 */
import type { AsmSources, Kernel } from '../../kernel/kernel.js';
import { FTRACE_OPS, TASK_STRUCT } from '../../kernel/offsets.js';
import { word64 } from './plan.js';

const STUB_BIT = 5;

/** Placed with the kernel's own text: ftrace is told that this is its list function. `bindListFunc` completes it. */
export const LIST_TEXT: AsmSources = {
  'race-list.s': `
CODE lab_ops_test
	nop
	ret

CODE lab_list_func
	hint #34
	stp x29, x30, [sp, #-48]!
	mov x29, sp
	stp x19, x20, [sp, #16]
	stp x21, x22, [sp, #32]
	mrs x9, sp_el0
	ldr w10, [x9, #${TASK_STRUCT.trace_recursion}]
	cbnz w10, lab_list_out
	mov w10, #1
	str w10, [x9, #${TASK_STRUCT.trace_recursion}]
	mov x19, x0
	mov x20, x1
	mov x21, x3
	ldr x22, lab_list_func_head
	ldr x22, [x22]
lab_list_next:
	ldr x10, lab_list_func_tail
	cmp x22, x10
	b.eq lab_list_end
	ldr x10, [x22, #${FTRACE_OPS.flags}]
	tbnz x10, #${STUB_BIT}, lab_list_skip
	mov x0, x22
	mov x1, x19
	bl lab_ops_test
	cbz x0, lab_list_skip
	mov x0, x19
	mov x1, x20
	mov x2, x22
	mov x3, x21
	ldr x10, [x22, #${FTRACE_OPS.func}]
	blr x10
lab_list_skip:
	ldr x22, [x22, #${FTRACE_OPS.next}]
	b lab_list_next
lab_list_end:
	mrs x9, sp_el0
	str wzr, [x9, #${TASK_STRUCT.trace_recursion}]
lab_list_out:
	ldp x21, x22, [sp, #32]
	ldp x19, x20, [sp, #16]
	ldp x29, x30, [sp], #48
	ret
.align 3
LABEL lab_list_func_head
	.quad 0
LABEL lab_list_func_tail
	.quad 0
`,
};

export const LIST_FUNC = 'lab_list_func';

/** Says where the list is, once the kernel has one. */
export function bindListFunc(kernel: Kernel): void {
  const list = { head: kernel.ftrace.listHead, tail: kernel.symbol('ftrace_list_end') };
  for (const [name, address] of Object.entries(list)) {
    kernel.memory.pokeBytes(kernel.symbol(`${LIST_FUNC}_${name}`), word64(address));
  }
}

export const RACE_TEXT: AsmSources = {
  'race.s': `
CODE lab_schedule
	nop
	ret

CODE lab_callback_a
	hint #34
	ret

CODE lab_callback_b
	hint #34
	ret

CODE lab_direct_a
	hint #34
	mov x10, x30
	mov x30, x9
	ret x10

CODE lab_direct_b
	hint #34
	mov x10, x30
	mov x30, x9
	ret x10

FUNCTION int lab_sleeper(int a)
	stp x29, x30, [sp, #-32]!
	mov x29, sp
	str x0, [sp, #16]
	bl lab_schedule
	ldr x0, [sp, #16]
	add w0, w0, #1
	ldp x29, x30, [sp], #32
	ret
`,
};
