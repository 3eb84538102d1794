// What a function returns to while the graph tracer follows it, Linux 6.12 (arch/arm64/kernel/entry-ftrace.S).
// Entered by RET with the function's results in x0..x7; ftrace_return_to_handler(fregs) gives the
// address that the function would have returned to. Only x0..x7 and fp of fregs are filled in.

CODE return_to_handler
	sub sp, sp, #FREGS_SIZE
	stp x0, x1, [sp, #FREGS_X0]
	stp x2, x3, [sp, #FREGS_X2]
	stp x4, x5, [sp, #FREGS_X4]
	stp x6, x7, [sp, #FREGS_X6]
	str x29, [sp, #FREGS_FP]

	mov x0, sp
	bl ftrace_return_to_handler
	mov x30, x0

	ldp x0, x1, [sp, #FREGS_X0]
	ldp x2, x3, [sp, #FREGS_X2]
	ldp x4, x5, [sp, #FREGS_X4]
	ldp x6, x7, [sp, #FREGS_X6]
	add sp, sp, #FREGS_SIZE
	ret
