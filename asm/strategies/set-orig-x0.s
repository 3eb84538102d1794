// The same as set-direct.s for the entry code of v5, which looks for the target in pt_regs.orig_x0.
//
// void lab_set_orig_x0(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op, void *regs)

CODE lab_set_orig_x0
	ldr x0, [x2, #FTRACE_OPS_PRIVATE]
	str x0, [x3, #S_ORIG_X0]
	ret
