/**
 * What wasm code and TypeScript share besides the program's memory: one region of linear memory at a
 * fixed place, whose addresses are constants in the code.
 *
 *   registers   R0..R11 as (lo, hi) pairs: what helpers see, and what goes from function to function
 *               beyond arguments and result
 *   frames      address and offset in the backing store of each call depth's stack
 *   slots       one cached region per class of pointers: `lo` its address, `limit` its size less 8,
 *               `delta` what turns the lower half of an address into an offset
 *
 * A slot always holds an existing region of at least 8 bytes, so a check needs no case for an empty
 * one: an address passes when `address - lo <= limit + 8 - size`, unsigned.
 */

/** Byte offsets in the state region. */
export const STATE = {
  registers: 0,
  /** Instructions left of this slice; below 0: used up. */
  fuel: 96,
  /** Not 0: the region table is older than the regions. */
  stale: 100,
  /** Grows when slots are reset while a program runs. */
  generation: 104,
  /** Offset in the backing store of the region table, and its entries. */
  table: 108,
  tableCount: 112,
  /** Loop to go on in, and whether the run has only been interrupted. */
  resume: 116,
  yielded: 120,
  /** Site and depth of the last helper call. */
  site: 124,
  cpu: 128,
  depth: 132,
  /** Not 0: a map that code looks into itself has been freed. */
  mapsFreed: 136,
  frames: 144,
  size: 272,
} as const;

export const REGISTER_COUNT = 12;
/** i64 address of R10, i32 offset of the frame's first byte. */
export const FRAME_BYTES = 16;

export const SLOT = { lo: 0, limit: 8, delta: 16, size: 24 } as const;

/** Entries of the region table, ascending: i64 lo, i64 size, i32 delta, i32 flags. */
export const ENTRY = { lo: 0, size: 8, delta: 16, flags: 20, bytes: 24 } as const;
export const ENTRY_READ = 1;
/** Writable, and no text whose listeners must be told. */
export const ENTRY_WRITE = 2;

/** What the slow path is told of an access: its size above these bits. */
export const ACCESS = {
  write: 1,
  /** Other accesses of the class write: cache only regions that can be written. */
  needsWrite: 2,
  /** A refused access gives -1. */
  probe: 4,
  /** What the region table does not allow gives -1, text that can be stored to as well. */
  quiet: 8,
  sizeShift: 8,
} as const;

/** Why `stop` is called. */
export const STOP = { callDepth: 1, callTarget: 2 } as const;

/** MAX_CALL_FRAMES */
export const MAX_CALL_FRAMES = 8;
/** R1..R5: MAX_BPF_FUNC_REG_ARGS */
export const MAX_PARAMETERS = 5;
/** MAX_BPF_STACK */
export const STACK_SIZE = 512;
