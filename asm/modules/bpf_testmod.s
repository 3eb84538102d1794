// Functions of the shape of the kernel's test module bpf_testmod (tools/testing/selftests/bpf): structures
// by value, and 7 to 11 arguments. AAPCS64: a structure takes one or two registers if all of it fits, else
// it and all that follows lies on the stack, 8 bytes a slot.

FUNCTION int bpf_testmod_fentry_test1(int a)
	add w0, w0, #1
	ret

FUNCTION int bpf_testmod_fentry_test2(int a, u64 b)
	add w0, w0, w1
	ret

FUNCTION int bpf_testmod_fentry_test3(char a, int b, u64 c)
	add w0, w1, w0, uxtb
	add w0, w0, w2
	ret

FUNCTION int bpf_testmod_fentry_test7(u64 a, void *b, short c, int d, void *e, char f, int g)
	add w0, w0, w1
	add w3, w3, w4
	add w0, w0, w2, sxth
	add w3, w3, w6
	add w0, w0, w5, uxtb
	add w0, w0, w3
	ret

FUNCTION int bpf_testmod_fentry_test11(u64 a, void *b, short c, int d, void *e, char f, int g, unsigned int h, long i, u64 j, unsigned long k)
	add w0, w0, w1
	add w3, w3, w4
	add w0, w0, w2, sxth
	add w3, w3, w6
	add w0, w0, w5, uxtb
	add w3, w3, w7
	ldp x9, x10, [sp]
	ldr x11, [sp, #16]
	add w0, w0, w3
	add w9, w9, w10
	add w0, w0, w11
	add w0, w0, w9
	ret

FUNCTION int bpf_testmod_test_struct_arg_1(struct bpf_testmod_struct_arg_2 a, int b, int c)
	add w0, w0, w1
	add w2, w2, w3
	add w0, w0, w2
	ret

FUNCTION int bpf_testmod_test_struct_arg_2(int a, struct bpf_testmod_struct_arg_2 b, int c)
	add w0, w0, w1
	add w2, w2, w3
	add w0, w0, w2
	ret

FUNCTION int bpf_testmod_test_struct_arg_3(int a, int b, struct bpf_testmod_struct_arg_2 c)
	add w0, w0, w1
	add w2, w2, w3
	add w0, w0, w2
	ret

FUNCTION int bpf_testmod_test_struct_arg_4(struct bpf_testmod_struct_arg_1 a, int b, int c, int d, struct bpf_testmod_struct_arg_2 e)
	add w0, w0, w1
	add w2, w2, w3
	add w4, w4, w5
	add w0, w0, w2
	add w0, w0, w4
	ret

FUNCTION int bpf_testmod_test_struct_arg_5(void)
	mov w0, #1
	ret

FUNCTION int bpf_testmod_test_struct_arg_6(struct bpf_testmod_struct_arg_3 *a)
	ldr w0, [x0, #4]
	ret

FUNCTION int bpf_testmod_test_struct_arg_7(u64 a, void *b, short c, int d, void *e, struct bpf_testmod_struct_arg_4 f)
	add w0, w0, w1
	add w3, w3, w4
	add w0, w0, w2, sxth
	add w5, w5, w6
	add w0, w0, w3
	add w0, w0, w5
	ret

FUNCTION int bpf_testmod_test_struct_arg_8(u64 a, void *b, short c, int d, void *e, struct bpf_testmod_struct_arg_4 f, int g)
	add w0, w0, w1
	add w3, w3, w4
	add w0, w0, w2, sxth
	add w5, w5, w6
	add w0, w0, w3
	add w0, w0, w5
	add w0, w0, w7
	ret

// h: char a; short b; int c in the first slot, long d in the second
FUNCTION int bpf_testmod_test_struct_arg_9(u64 a, void *b, short c, int d, void *e, char f, short g, struct bpf_testmod_struct_arg_5 h, long i)
	ldp x9, x10, [sp]
	ldr x11, [sp, #16]
	add w0, w0, w1
	add w3, w3, w4
	add w0, w0, w2, sxth
	add w3, w3, w6, sxth
	add w0, w0, w5, uxtb
	add w0, w0, w3
	sbfx w12, w9, #16, #16
	add w0, w0, w9, uxtb
	lsr x9, x9, #32
	add w0, w0, w12
	add w10, w10, w11
	add w0, w0, w9
	add w0, w0, w10
	ret
