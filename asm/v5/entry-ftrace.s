// ftrace entry code of "bpf trampoline for arm64" v5 (on 5.19, never merged): that of 6.1, where a callback may
// leave the target of a direct call in pt_regs.orig_x0, to which the way back then leads.
// Contract: spec of arch/arm64/kernel/entry-ftrace.S. On entry x30 = address after the BL of the
// patch site, x9 = the traced function's own return address, x0-x8 and x18-x29 as at its entry.
//
// struct pt_regs on the stack, above it a frame record. ftrace_caller saves what a call may clobber,
// ftrace_regs_caller all registers.

CODE ftrace_regs_caller
	hint #34				// bti c
	sub sp, sp, #(PT_REGS_SIZE + 16)
	stp x0, x1, [sp, #S_X0]
	stp x2, x3, [sp, #S_X2]
	stp x4, x5, [sp, #S_X4]
	stp x6, x7, [sp, #S_X6]
	stp x8, x9, [sp, #S_X8]
	stp x10, x11, [sp, #S_X10]
	stp x12, x13, [sp, #S_X12]
	stp x14, x15, [sp, #S_X14]
	stp x16, x17, [sp, #S_X16]
	stp x18, x19, [sp, #S_X18]
	stp x20, x21, [sp, #S_X20]
	stp x22, x23, [sp, #S_X22]
	stp x24, x25, [sp, #S_X24]
	stp x26, x27, [sp, #S_X26]
	stp x28, x29, [sp, #S_X28]
	str xzr, [sp, #S_ORIG_X0]		// no direct call asked for
	add x10, sp, #(PT_REGS_SIZE + 16)
	stp x9, x10, [sp, #S_LR]		// lr of the caller of F, sp there
	str x30, [sp, #S_PC]

	stp x29, x9, [sp, #PT_REGS_SIZE]	// frame record of the caller of F
	add x29, sp, #PT_REGS_SIZE
	stp x29, x30, [sp, #S_STACKFRAME]	// frame record of F
	add x29, sp, #S_STACKFRAME
	b ftrace_common

CODE ftrace_caller
	hint #34				// bti c
	sub sp, sp, #(PT_REGS_SIZE + 16)
	stp x0, x1, [sp, #S_X0]
	stp x2, x3, [sp, #S_X2]
	stp x4, x5, [sp, #S_X4]
	stp x6, x7, [sp, #S_X6]
	stp x8, x9, [sp, #S_X8]
	str x29, [sp, #S_FP]
	str xzr, [sp, #S_ORIG_X0]		// no direct call asked for
	add x10, sp, #(PT_REGS_SIZE + 16)
	stp x9, x10, [sp, #S_LR]		// lr of the caller of F, sp there
	str x30, [sp, #S_PC]

	stp x29, x9, [sp, #PT_REGS_SIZE]	// frame record of the caller of F
	add x29, sp, #PT_REGS_SIZE
	stp x29, x30, [sp, #S_STACKFRAME]	// frame record of F
	add x29, sp, #S_STACKFRAME
	b ftrace_common

CODE ftrace_common
	sub x0, x30, #4				// ip
	mov x1, x9				// parent_ip
	adrp x2, FUNCTION_TRACE_OP_PAGE		// op
	ldr x2, [x2, #FUNCTION_TRACE_OP_LO12]
	mov x3, sp				// regs

LABEL ftrace_call
	bl ftrace_stub				// patched: the one func, or arch_ftrace_ops_list_func

	ldp x0, x1, [sp, #S_X0]
	ldp x2, x3, [sp, #S_X2]
	ldp x4, x5, [sp, #S_X4]
	ldp x6, x7, [sp, #S_X6]
	ldr x8, [sp, #S_X8]
	ldr x29, [sp, #S_FP]
	ldr x30, [sp, #S_LR]
	ldr x10, [sp, #S_PC]

	ldr x11, [sp, #S_ORIG_X0]
	cbz x11, ftrace_common_out
	mov x9, x30				// as a direct call finds it: parent in x9, F in x30
	ldr x30, [sp, #S_PC]
	mov x10, x11
ftrace_common_out:
	add sp, sp, #(PT_REGS_SIZE + 16)
	ret x10

CODE ftrace_stub_direct_tramp
	hint #34				// bti c
	mov x10, x30
	mov x30, x9
	ret x10

CODE ftrace_stub
	hint #34				// bti c
	ret

CODE ftrace_stub_graph
	hint #34				// bti c
	ret
