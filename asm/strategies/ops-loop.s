// An ftrace op that calls BPF programs itself, with a ctx array that it fills from its saved registers: the
// lab's rendering of "BPF on fprobe" (Florent Revest's proof of concept of October 2022, the "indirect" of
// the figures in that thread). There this is compiled C behind fprobe's own handler; here is only what such
// code cannot do without: not generated for a function, so it loops over arguments and programs and
// calls them indirectly. No kernel has it.
//
// ops->private: u32 arguments, u32 programs, then for each program { struct bpf_prog *, bpf_func }.
//
// void lab_ops_loop(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op, void *fregs)

CODE lab_ops_loop
	hint #34				// bti c
	stp x29, x30, [sp, #-144]!
	mov x29, sp
	stp x19, x20, [sp, #16]
	str x21, [sp, #32]
	ldr x19, [x2, #FTRACE_OPS_PRIVATE]

	add x10, sp, #72			// ctx; ctx[-1] is the number of arguments
	ldr w9, [x19]
	str x9, [x10, #-8]
	cbz w9, lab_ops_loop_copied
lab_ops_loop_copy:
	ldr x11, [x3], #8
	str x11, [x10], #8
	sub w9, w9, #1
	cbnz w9, lab_ops_loop_copy
lab_ops_loop_copied:

	ldr w20, [x19, #4]
	add x19, x19, #8
lab_ops_loop_program:
	str xzr, [sp, #48]			// run_ctx.bpf_cookie
	ldr x0, [x19]
	add x1, sp, #48
	bl __bpf_prog_enter_recur
	mov x21, x0
	cbz x0, lab_ops_loop_skip
	add x0, sp, #72
	ldr x9, [x19, #8]
	blr x9
lab_ops_loop_skip:
	ldr x0, [x19]
	mov x1, x21
	add x2, sp, #48
	bl __bpf_prog_exit_recur
	add x19, x19, #16
	sub w20, w20, #1
	cbnz w20, lab_ops_loop_program

	ldr x21, [sp, #32]
	ldp x19, x20, [sp, #16]
	ldp x29, x30, [sp], #144
	ret
