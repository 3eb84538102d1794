// The ftrace trampoline that is generated for one ops: the lab's rendering of Wang ShaoBo's series
// "arm64/ftrace: support dynamic trampoline" (March 2022) as text to be copied. Three things are
// filled in: the BL, which goes to ops->func, the literal behind the text, which is the ops, and where
// it lies. The site of a function that only this ops traces calls it in place of ftrace_caller, so neither
// a list nor a literal in front of the function has to say which ops it is. No kernel has it.
//
// Saved is what ftrace_caller of 6.1 saves, a struct pt_regs of which callbacks may use the arguments.

CODE lab_ops_trampoline
	hint #34				// bti c
	sub sp, sp, #(PT_REGS_SIZE + 16)
	stp x0, x1, [sp, #S_X0]
	stp x2, x3, [sp, #S_X2]
	stp x4, x5, [sp, #S_X4]
	stp x6, x7, [sp, #S_X6]
	stp x8, x9, [sp, #S_X8]
	str x29, [sp, #S_FP]
	add x10, sp, #(PT_REGS_SIZE + 16)
	stp x9, x10, [sp, #S_LR]		// lr of the caller of F, sp there
	str x30, [sp, #S_PC]

	stp x29, x9, [sp, #PT_REGS_SIZE]	// frame record of the caller of F
	add x29, sp, #PT_REGS_SIZE
	stp x29, x30, [sp, #S_STACKFRAME]	// frame record of F
	add x29, sp, #S_STACKFRAME

	sub x0, x30, #4				// ip
	mov x1, x9				// parent_ip
	ldr x2, lab_ops_trampoline_op		// op
	mov x3, sp				// regs
LABEL lab_ops_trampoline_call
	nop					// bl ops->func

	ldp x0, x1, [sp, #S_X0]
	ldp x2, x3, [sp, #S_X2]
	ldp x4, x5, [sp, #S_X4]
	ldp x6, x7, [sp, #S_X6]
	ldr x8, [sp, #S_X8]
	ldr x29, [sp, #S_FP]
	ldr x30, [sp, #S_LR]
	ldr x9, [sp, #S_PC]
	add sp, sp, #(PT_REGS_SIZE + 16)
	ret x9
	.align 3
LABEL lab_ops_trampoline_op
	.quad 0
