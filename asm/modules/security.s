// LSM hooks as BPF sees them: bpf_lsm_NAME, empty functions with the hook's default result that programs are
// attached to, and security_NAME, what the kernel calls (here with the BPF LSM as the only module).

FUNCTION int bpf_lsm_file_open(struct file *file)
	mov w0, #0
	ret

FUNCTION int bpf_lsm_file_mprotect(struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)
	mov w0, #0
	ret

FUNCTION int bpf_lsm_task_alloc(struct task_struct *task, unsigned long clone_flags)
	mov w0, #0
	ret

FUNCTION void bpf_lsm_cred_free(struct cred *cred)
	ret

FUNCTION int bpf_lsm_inode_copy_up_xattr(const char *name)
	mov w0, #-95
	ret

FUNCTION int security_file_open(struct file *file)
	stp x29, x30, [sp, #-16]!
	mov x29, sp
	bl bpf_lsm_file_open
	ldp x29, x30, [sp], #16
	ret

FUNCTION int security_file_mprotect(struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)
	stp x29, x30, [sp, #-16]!
	mov x29, sp
	bl bpf_lsm_file_mprotect
	ldp x29, x30, [sp], #16
	ret

FUNCTION int security_task_alloc(struct task_struct *task, unsigned long clone_flags)
	stp x29, x30, [sp, #-16]!
	mov x29, sp
	bl bpf_lsm_task_alloc
	ldp x29, x30, [sp], #16
	ret

FUNCTION void security_cred_free(struct cred *cred)
	stp x29, x30, [sp, #-16]!
	mov x29, sp
	bl bpf_lsm_cred_free
	ldp x29, x30, [sp], #16
	ret
