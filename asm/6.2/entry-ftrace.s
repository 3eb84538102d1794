// ftrace entry code of Linux 6.2 (DYNAMIC_FTRACE_WITH_ARGS): struct ftrace_regs instead of pt_regs.
// Contract: spec of arch/arm64/kernel/entry-ftrace.S. On entry x30 = address after the BL of the
// patch site, x9 = the traced function's own return address, x0-x8 and x18-x29 as at its entry.

CODE ftrace_caller
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
	adrp x2, FUNCTION_TRACE_OP_PAGE		// op
	ldr x2, [x2, #FUNCTION_TRACE_OP_LO12]
	mov x3, sp				// fregs

LABEL ftrace_call
	bl ftrace_stub				// patched: the one func, or arch_ftrace_ops_list_func

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

CODE ftrace_stub
	hint #34				// bti c
	ret

CODE ftrace_stub_graph
	hint #34				// bti c
	ret
