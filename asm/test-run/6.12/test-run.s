// The functions that BPF tracing selftests attach to (net/bpf/test_run.c), with AAPCS64 bodies.
// Narrow arguments are extended from the part of the register that holds them.

FUNCTION int bpf_fentry_test1(int a)
	add w0, w0, #1
	ret

FUNCTION int bpf_fentry_test2(int a, u64 b)
	add w0, w0, w1
	ret

FUNCTION int bpf_fentry_test3(char a, int b, u64 c)
	add w0, w1, w0, uxtb
	add w0, w0, w2
	ret

FUNCTION int bpf_fentry_test4(void *a, char b, int c, u64 d)
	add w0, w0, w1, uxtb
	add w0, w0, w2
	add w0, w0, w3
	ret

FUNCTION int bpf_fentry_test5(u64 a, void *b, short c, int d, u64 e)
	add w3, w3, w4
	add w0, w0, w1
	add w3, w3, w2, sxth
	add w0, w3, w0
	ret

FUNCTION int bpf_fentry_test6(u64 a, void *b, short c, int d, void *e, u64 f)
	add w3, w3, w4
	add w2, w5, w2, sxth
	add w3, w3, w0
	add w0, w2, w1
	add w0, w3, w0
	ret

FUNCTION int bpf_fentry_test7(struct bpf_fentry_test_t *arg)
	ret

FUNCTION int bpf_fentry_test8(struct bpf_fentry_test_t *arg)
	ldr w0, [x0]
	ret

FUNCTION u32 bpf_fentry_test9(u32 *a)
	ldr w0, [x0]
	ret

FUNCTION int bpf_modify_return_test(int a, int *b)
	ldr w2, [x1]
	add w2, w2, #1
	str w2, [x1]
	add w0, w2, w0
	ret

FUNCTION int bpf_modify_return_test2(int a, int *b, short c, int d, void *e, char f, int g)
	add w6, w6, w5, uxtb
	add w3, w3, w4
	add w6, w6, w0
	ldr w0, [x1]
	add w3, w3, w2, sxth
	add w0, w0, #1
	str w0, [x1]
	add w0, w6, w0
	add w0, w0, w3
	ret
