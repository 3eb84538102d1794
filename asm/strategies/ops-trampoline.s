// The ftrace trampoline that is generated for one ops: the lab's rendering of Wang ShaoBo's series
// "arm64/ftrace: support dynamic trampoline" (March 2022) as text to be copied. Three things are
// filled in: the BL, which goes to ops->func, the literal behind the text, which is the ops, and where
// it lies. The site of a function that only this ops traces calls it in place of ftrace_caller, so neither
// a list nor a literal in front of the function has to say which ops it is. No kernel has it.
//
// The frame is that of 6.2 (struct ftrace_regs), to compare ways and not frames; the series was made
// for struct pt_regs.

CODE lab_ops_trampoline
	hint #34				// bti c
	mov x10, sp
	sub sp, sp, #(FREGS_SIZE + 32)
	stp x0, x1, [sp, #FREGS_X0]
	stp x2, x3, [sp, #FREGS_X2]
	stp x4, x5, [sp, #FREGS_X4]
	stp x6, x7, [sp, #FREGS_X6]
	str x8, [sp, #FREGS_X8]
	str x29, [sp, #FREGS_FP]
	str x9, [sp, #FREGS_LR]
	str x10, [sp, #FREGS_SP]
	str x30, [sp, #FREGS_PC]

	stp x29, x9, [sp, #(FREGS_SIZE + 16)]	// frame record of the caller of F
	add x29, sp, #(FREGS_SIZE + 16)
	stp x29, x30, [sp, #FREGS_SIZE]		// frame record of F
	add x29, sp, #FREGS_SIZE

	sub x0, x30, #4				// ip
	mov x1, x9				// parent_ip
	ldr x2, lab_ops_trampoline_op		// op
	mov x3, sp				// fregs
LABEL lab_ops_trampoline_call
	nop					// bl ops->func

	ldp x0, x1, [sp, #FREGS_X0]
	ldp x2, x3, [sp, #FREGS_X2]
	ldp x4, x5, [sp, #FREGS_X4]
	ldp x6, x7, [sp, #FREGS_X6]
	ldr x8, [sp, #FREGS_X8]
	ldr x29, [sp, #FREGS_FP]
	ldr x30, [sp, #FREGS_LR]
	ldr x9, [sp, #FREGS_PC]
	add sp, sp, #(FREGS_SIZE + 32)
	ret x9
	.align 3
LABEL lab_ops_trampoline_op
	.quad 0
