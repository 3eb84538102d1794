/**
 * Numbers of libunicorn's C interface (version 2.0 and later; include/unicorn/{unicorn,arm64}.h).
 */

export const UC_ARCH_ARM64 = 2;
export const UC_MODE_ARM = 0;
export const UC_CPU_ARM64_MAX = 3;

export const UC_PROT = { READ: 1, WRITE: 2, EXEC: 4 } as const;

/** Types for `uc_hook_add`; the memory ones may be or'ed. */
export const UC_HOOK = {
  INTR: 1 << 0,
  CODE: 1 << 2,
  MEM_INVALID: (1 << 4) | (1 << 5) | (1 << 6) | (1 << 7) | (1 << 8) | (1 << 9),
} as const;

/** Event of a memory hook: which access, and whether the page is there at all. */
export const UC_MEM = {
  READ_UNMAPPED: 19,
  WRITE_UNMAPPED: 20,
  FETCH_UNMAPPED: 21,
  WRITE_PROT: 22,
  READ_PROT: 23,
  FETCH_PROT: 24,
} as const;

/**
 * First argument of `uc_ctl`: type | number of arguments << 26 | direction << 30 (1 = write).
 */
export const UC_CTL = {
  USE_EXITS: 0x4400_0004,
  SET_EXITS: 0x4800_0006,
  CPU_MODEL: 0x4400_0007,
  TB_REMOVE_CACHE: 0x4800_0009,
} as const;

/** Exception numbers that an UC_HOOK_INTR callback gets on arm64. */
export const EXCP = {
  /** Undefined, and HLT and HVC; a misaligned pc as well. */
  UDEF: 1,
  SWI: 2,
  /** Alignment: refused accesses go through the memory hooks. */
  DATA_ABORT: 4,
  BKPT: 7,
  SMC: 13,
} as const;

/** Register numbers of enum uc_arm64_reg. */
export const UC_ARM64_REG = {
  X29: 1,
  X30: 2,
  NZCV: 3,
  SP: 4,
  X0: 199,
  PC: 260,
  TPIDR_EL0: 262,
  TPIDR_EL1: 264,
  PSTATE: 265,
  SP_EL0: 270,
} as const;

/** `until` of `uc_emu_start` where none is wanted; code cannot be there. */
export const NOWHERE = 0xffff_ffff_ffff_ffffn;

/** PSTATE at the start: EL1h, no exception masked. */
export const PSTATE_EL1H = 0b0101n;
