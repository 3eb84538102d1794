// Functions for strategies to be compared on: one for each number of arguments in registers, with
// nothing in them, so that all that is executed belongs to the way to the programs and back.

FUNCTION u64 lab_traced_0(void)
	ret

FUNCTION u64 lab_traced_1(u64 a)
	ret

FUNCTION u64 lab_traced_2(u64 a, u64 b)
	ret

FUNCTION u64 lab_traced_3(u64 a, u64 b, u64 c)
	ret

FUNCTION u64 lab_traced_4(u64 a, u64 b, u64 c, u64 d)
	ret

FUNCTION u64 lab_traced_5(u64 a, u64 b, u64 c, u64 d, u64 e)
	ret

FUNCTION u64 lab_traced_6(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
	ret

FUNCTION u64 lab_traced_7(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g)
	ret

FUNCTION u64 lab_traced_8(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g, u64 h)
	ret

// Traced by ops that have nothing to do with the others.
FUNCTION void lab_elsewhere(void)
	ret
