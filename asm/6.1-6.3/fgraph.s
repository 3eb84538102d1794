// What a function returns to while the graph tracer follows it, Linux 6.1 to 6.3 (arch/arm64/kernel/entry-ftrace.S).
// Entered by RET with the function's results in x0..x7; ftrace_return_to_handler(fp) gives the address
// that the function would have returned to.

CODE return_to_handler
	sub sp, sp, #(8 * 8)
	stp x0, x1, [sp]
	stp x2, x3, [sp, #16]
	stp x4, x5, [sp, #32]
	stp x6, x7, [sp, #48]

	mov x0, x29
	bl ftrace_return_to_handler
	mov x30, x0

	ldp x0, x1, [sp]
	ldp x2, x3, [sp, #16]
	ldp x4, x5, [sp, #32]
	ldp x6, x7, [sp, #48]
	add sp, sp, #(8 * 8)
	ret
