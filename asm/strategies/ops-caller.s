// An ftrace op that turns its saved registers back into arguments of a BPF trampoline: the lab's rendering
// of what Mark Rutland proposed in the thread of "bpf trampoline for arm64" v5 (a set of ops instead of direct
// calls) in the form that Florent Revest's mail of 9 August 2022 gives it. No kernel has it.
//
// ops->private is the image. It is entered as from a patch site, with what comes after the BLR in
// place of the traced function: it leaves to there with x30 = x9. So it may be an image for fentry
// programs only: calling the original or returning to the caller of F is not possible from here.
// x0 to x7 are at the same place in struct pt_regs and struct ftrace_regs: it serves with both.
//
// void lab_ops_caller(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op, void *fregs)

CODE lab_ops_caller
	hint #34				// bti c
	mov x9, x30				// comes back in x30
	ldr x17, [x2, #FTRACE_OPS_PRIVATE]
	ldp x6, x7, [x3, #FREGS_X6]
	ldp x4, x5, [x3, #FREGS_X4]
	ldp x0, x1, [x3, #FREGS_X0]
	ldp x2, x3, [x3, #FREGS_X2]
	blr x17
	ret
