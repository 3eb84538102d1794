/**
 * The text that the explorer adds to a kernel: C functions that read what the patcher writes, compiled by hand so
 * that each of their loads is an instruction, and functions for executing CPUs to call.
 *
 * Reference: __ftrace_ops_list_func of kernel/trace/ftrace.c (6.12): the recursion guard, then element by element
 * flags, filter, func and next. `lab_ops_test` stands for ftrace_ops_test, whose hash does not change while an ops
 * is registered; `lab_schedule` gives up the CPU. Left out: contexts other than NORMAL, RCU watching.
 */
import type { AsmSources } from '../../kernel/kernel.js';
import { FTRACE_OPS, TASK_STRUCT } from '../../kernel/offsets.js';

const STUB_BIT = 5;

export const RACE_TEXT: AsmSources = {
  'race.s': `
CODE lab_ops_test
	nop
	ret

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
	ldr x22, lab_list_head
	ldr x22, [x22]
lab_list_next:
	cbz x22, lab_list_end
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
lab_list_head:
	.quad ftrace_ops_list

// ftrace_caller without CALL_OPS (6.2), reduced to what a CPU may see of the patcher: the load of
// function_trace_op and the patched BL behind it
CODE lab_plain_caller
	hint #34
	stp x29, x9, [sp, #-96]!
	mov x29, sp
	stp x0, x1, [sp, #16]
	stp x2, x3, [sp, #32]
	stp x4, x5, [sp, #48]
	stp x6, x7, [sp, #64]
	stp x8, x30, [sp, #80]
	sub x0, x30, #4
	mov x1, x9
	mov x3, sp
	ldr x2, lab_trace_op
LABEL lab_ftrace_call
	nop
	ldp x0, x1, [sp, #16]
	ldp x2, x3, [sp, #32]
	ldp x4, x5, [sp, #48]
	ldp x6, x7, [sp, #64]
	ldp x8, x10, [sp, #80]
	ldp x29, x30, [sp], #96
	ret x10
.align 3
LABEL lab_trace_op
	.quad 0

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
