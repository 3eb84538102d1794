// Calls of programs through members of a structure.

// net/bpf/bpf_dummy_struct_ops.c: a member with up to five arguments
FUNCTION int dummy_ops_call_op(void *image, u64 *args)
	stp x29, x30, [sp, #-16]!
	mov x29, sp
	mov x9, x0
	mov x10, x1
	ldp x0, x1, [x10]
	ldp x2, x3, [x10, #16]
	ldr x4, [x10, #32]
	blr x9
	ldp x29, x30, [sp], #16
	ret
