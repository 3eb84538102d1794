// Externs: kernel configuration, kernel symbols, kernel functions, strong and weak.
#include "bpf.h"

#define __kconfig SEC(".kconfig")
#define __ksym SEC(".ksyms")
#define __weak __attribute__((weak))

enum libbpf_tristate { TRI_NO, TRI_YES, TRI_MODULE };

extern int LINUX_KERNEL_VERSION __kconfig;
extern _Bool LINUX_HAS_SYSCALL_WRAPPER __kconfig __weak;
extern unsigned int CONFIG_HZ __kconfig;
extern enum libbpf_tristate CONFIG_ARM64 __kconfig;
extern char CONFIG_BPF_SYSCALL __kconfig;
extern enum libbpf_tristate CONFIG_OF_THE_MOON __kconfig __weak;
extern char CONFIG_LSM[8] __kconfig __weak;
extern const void bpf_fentry_test1 __ksym;
extern const void no_such_symbol __ksym __weak;
extern const struct rq runqueues __ksym __weak;
extern int no_such_kfunc(int a) __ksym __weak;

u64 results[10];

SEC("fentry/bpf_fentry_test2") int externs(unsigned long *ctx)
{
	results[0] = LINUX_KERNEL_VERSION;
	results[1] = LINUX_HAS_SYSCALL_WRAPPER;
	results[2] = CONFIG_HZ;
	results[3] = CONFIG_ARM64;
	results[4] = CONFIG_BPF_SYSCALL;
	results[5] = CONFIG_OF_THE_MOON;
	results[6] = CONFIG_LSM[2];
	results[7] = (u64)&bpf_fentry_test1;
	results[8] = (u64)&no_such_symbol;
	results[9] = (u64)&runqueues;
	if (no_such_kfunc)
		results[9] = no_such_kfunc(1);
	return 0;
}
LICENSE("GPL");
