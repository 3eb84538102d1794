// void few_arguments(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op, struct ftrace_regs *fregs)
// ops->private is the image of the trampoline, which has to leave to behind the BLR with x30 = x9.

CODE few_arguments
	hint #34				// bti c
	mov x9, x30
	ldr x17, [x2, #FTRACE_OPS_PRIVATE]
	ldp x0, x1, [x3, #FREGS_X0]
	blr x17
	ret
