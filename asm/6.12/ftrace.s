// ftrace_ops callbacks that Linux 6.12 has as compiled C: one load, one store.
// void call_direct_funcs(unsigned long ip, unsigned long pip, struct ftrace_ops *ops,
//                        struct ftrace_regs *fregs)
// leaves the direct target of the ops in fregs for ftrace_caller's late tail call.

CODE call_direct_funcs
	ldr x0, [x2, #FTRACE_OPS_DIRECT_CALL]
	cbz x0, call_direct_funcs_out
	str x0, [x3, #FREGS_DIRECT_TRAMP]
call_direct_funcs_out:
	ret

// void ftrace_ops_nop_func(unsigned long ip, unsigned long pip, struct ftrace_ops *ops,
//                          struct ftrace_regs *fregs): what ftrace_nop_ops calls.

CODE ftrace_ops_nop_func
	ret
