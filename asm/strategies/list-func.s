// The lab's rendering of arch_ftrace_ops_list_func (kernel/trace/ftrace.c) as arm64 text, so that walking
// the list of ops costs instructions here too. Linux has it as compiled C, in which the same work takes
// other instructions; the data it goes through is the same: ops->next, ops->flags, ops->func_hash and
// its two hashes, of one bucket each.
//
// void lab_list_func(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op, void *fregs)

CODE lab_list_func
	hint #34				// bti c
	stp x29, x30, [sp, #-80]!
	mov x29, sp
	stp x19, x20, [sp, #16]
	stp x21, x22, [sp, #32]
	stp x23, x24, [sp, #48]
	str x25, [sp, #64]
	mov x20, x0				// ip
	mov x21, x1				// parent_ip
	mov x22, x3				// fregs

	// trace_test_and_set_recursion: the context that preempt_count names has a bit, a transition one more;
	// bits 5 to 9 of the word. Preemption is off while one is held.
	mrs x23, sp_el0
	ldr w9, [x23, #TASK_TRACE_RECURSION]
	ldr w10, [x23, #TASK_PREEMPT_COUNT]
	mov w11, #8				// NORMAL
	tst w10, #0xff00
	cset w12, ne
	sub w11, w11, w12			// SOFTIRQ
	tst w10, #0xf0000
	mov w13, #6				// IRQ
	csel w11, w13, w11, ne
	tst w10, #0xf00000
	mov w13, #5				// NMI
	csel w11, w13, w11, ne
	mov w24, #1
	lsl w24, w24, w11
	tst w9, w24
	b.eq lab_list_func_enter
	mov w24, #(1 << 9)			// TRANSITION
	tst w9, w24
	b.ne lab_list_func_out
lab_list_func_enter:
	orr w9, w9, w24
	str w9, [x23, #TASK_TRACE_RECURSION]
	add w10, w10, #1
	str w10, [x23, #TASK_PREEMPT_COUNT]

	ldr x25, lab_list_func_head
	ldr x19, [x25]
	cbz x19, lab_list_func_leave
lab_list_func_loop:
	ldr x9, [x19, #FTRACE_OPS_FLAGS]
	tbnz w9, #5, lab_list_func_next		// FTRACE_OPS_FL_STUB
	ldr x9, [x19, #FTRACE_OPS_FUNC_HASH]
	mov x0, x20
	ldr x1, [x9, #OPS_HASH_NOTRACE]
	ldr x2, [x9, #OPS_HASH_FILTER]
	bl lab_hash_contains_ip
	cbz w0, lab_list_func_next
	mov x0, x20
	mov x1, x21
	mov x2, x19
	mov x3, x22
	ldr x4, [x19, #FTRACE_OPS_FUNC]
	blr x4
lab_list_func_next:
	ldr x19, [x19, #FTRACE_OPS_NEXT]
	cbnz x19, lab_list_func_loop

lab_list_func_leave:
	ldr w10, [x23, #TASK_PREEMPT_COUNT]
	sub w10, w10, #1
	str w10, [x23, #TASK_PREEMPT_COUNT]
	ldr w9, [x23, #TASK_TRACE_RECURSION]
	bic w9, w9, w24
	str w9, [x23, #TASK_TRACE_RECURSION]
lab_list_func_out:
	ldr x25, [sp, #64]
	ldp x23, x24, [sp, #48]
	ldp x21, x22, [sp, #32]
	ldp x19, x20, [sp, #16]
	ldp x29, x30, [sp], #80
	ret
	.align 3
LABEL lab_list_func_head
	.quad 0					// &ftrace_ops_list, filled in when that has a place

// bool lab_hash_contains_ip(unsigned long ip, struct ftrace_hash *notrace, struct ftrace_hash *filter)
// An empty filter has every function.
CODE lab_hash_contains_ip
	ldr x9, [x2, #FTRACE_HASH_COUNT]
	cbz x9, lab_hash_notrace
	ldr x9, [x2, #FTRACE_HASH_BUCKETS]
	ldr x9, [x9]
lab_hash_filter_entry:
	cbz x9, lab_hash_no
	ldr x10, [x9, #FTRACE_ENTRY_IP]
	cmp x10, x0
	b.eq lab_hash_notrace
	ldr x9, [x9]
	b lab_hash_filter_entry
lab_hash_notrace:
	ldr x9, [x1, #FTRACE_HASH_COUNT]
	cbz x9, lab_hash_yes
	ldr x9, [x1, #FTRACE_HASH_BUCKETS]
	ldr x9, [x9]
lab_hash_notrace_entry:
	cbz x9, lab_hash_yes
	ldr x10, [x9, #FTRACE_ENTRY_IP]
	cmp x10, x0
	b.eq lab_hash_no
	ldr x9, [x9]
	b lab_hash_notrace_entry
lab_hash_yes:
	mov w0, #1
	ret
lab_hash_no:
	mov w0, #0
	ret
