// Nothing but code, as bpf_conformance makes it: main in .text.
__asm__(".text; .globl main; .type main,@function; main:"
	"r2 = *(u32 *)(r1 + 0); r0 = 0;"
	"again: r0 += r2; r2 += -1; if r2 != 0 goto again; exit; .size main, .-main");
