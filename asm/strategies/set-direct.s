// The callback of an ftrace op that asks the ftrace trampoline to go on to the image in ops->private when
// all registers are restored: what Florent Revest's mail of 9 August 2022 suggests for every attachment,
// patch sites always calling ftrace_caller. 6.4 does it beside other ops only (call_direct_funcs).
//
// void lab_set_direct(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op, void *fregs)

CODE lab_set_direct
	ldr x0, [x2, #FTRACE_OPS_PRIVATE]
	str x0, [x3, #FREGS_DIRECT_TRAMP]
	ret
