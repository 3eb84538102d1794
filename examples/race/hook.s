// A patching strategy to try: the site calls a veneer, which loads its target from a word in text.

FUNCTION u64 traced(u64 a)
	add x0, x0, #1
	ret

CODE veneer
	ldr x16, slot
	br x16
.align 3
LABEL slot
	.quad 0

// where the word points while nobody is hooked: back into the function as if nothing were attached
CODE pass
	mov x10, x30
	mov x30, x9
	ret x10

CODE hook
	mov x10, x30
	mov x30, x9
	ret x10
