/**
 * Numbers of the embedded engine's micro-operations.
 *
 * Below 64: cases of the hot switch (hot.ts), which has them as literals because V8 makes a jump
 * table of those only. From 64: data processing (data.ts), from 128: memory (memory-operations.ts),
 * from 192: system (system.ts). Register operands d, n, m are slots; a and b are immediates.
 */
export const OP = {
  DECODE: 0,
  NOP: 1,
  /** d = b:a */
  CONST: 2,
  /** d = n + b:a */
  ADD64I: 3,
  /** d = n + a */
  ADD32I: 4,
  ADD64: 5,
  SUB64: 6,
  ADD32: 7,
  SUB32: 8,
  /** d = n - a, NZCV */
  SUBS64I: 9,
  SUBS32I: 10,
  SUBS64: 11,
  SUBS32: 12,
  /** d = n op b:a */
  AND64I: 13,
  ORR64I: 14,
  EOR64I: 15,
  AND64: 16,
  ORR64: 17,
  EOR64: 18,
  AND32: 19,
  ORR32: 20,
  EOR32: 21,
  /** 16 bits a of d at halfword b */
  MOVK64: 22,
  MOVK32: 23,
  /** d = n shifted by a */
  LSL64I: 24,
  LSR64I: 25,
  ASR64I: 26,
  /** d = (n << a) >>> b, 32 bits: LSL, LSR, UBFX, UXTB */
  UBF32: 27,
  /** a: distance in bytes */
  B: 30,
  BL: 31,
  /** b: bit per NZCV value */
  BCOND: 32,
  CBZ64: 33,
  CBNZ64: 34,
  CBZ32: 35,
  CBNZ32: 36,
  /** b: mask, m: 1 for the high half */
  TBZ: 37,
  TBNZ: 38,
  /** a: BTYPE, see landing.ts */
  BR: 39,
  BLR: 40,
  /** d: transferred register, address n + a */
  LDR64: 41,
  LDR32: 42,
  LDRB: 43,
  LDRH: 44,
  STR64: 45,
  STR32: 46,
  STRB: 47,
  STRH: 48,
  /** d, m: transferred registers, access at n + a, then n += b */
  LDP64: 49,
  STP64: 50,

  /** a: WIDE, SUBTRACT, FLAGS, kind and amount */
  ARITH_SHIFTED: 64,
  ARITH_EXTENDED: 65,
  ARITH_CARRY: 66,
  /** b: the immediate */
  ARITH_IMMEDIATE: 67,
  LOGIC_SHIFTED: 68,
  /** ANDS, b:a; m: 1 when 64 bits */
  TEST_IMMEDIATE: 69,
  SBFM: 70,
  BFM: 71,
  UBFM: 72,
  EXTRACT: 73,
  SELECT: 74,
  COMPARE: 75,
  /** b: slot of Ra */
  MULTIPLY: 76,
  MULTIPLY_HIGH: 77,
  DIVIDE: 78,
  SHIFT: 79,
  REVERSE: 80,
  CRC: 81,

  LOAD: 128,
  STORE: 129,
  LOAD_PAIR: 130,
  STORE_PAIR: 131,
  LOAD_EXCLUSIVE: 132,
  STORE_EXCLUSIVE: 133,
  ATOMIC: 134,
  SWAP: 135,
  SWAP_PAIR: 136,

  CLEAR_EXCLUSIVE: 192,
  STRIP: 193,
  READ_SYSTEM: 194,
  WRITE_SYSTEM: 195,
  WRITE_PSTATE: 196,
  TRAP: 197,
  UNDEFINED: 198,
} as const;

/** First operation that may change more than d and NZCV, or whose d is not its destination. */
export const FIRST_WIDE = OP.LDP64;

/** Bits of `a` in arithmetic, logical, select, divide .. operations. */
export const WIDE = 1;
export const SUBTRACT = 2;
export const FLAGS = 4;
export const INVERT = 8;
export const INCREMENT = 16;
export const SIGNED = 32;
/** Kind of shift, extension or operation: three bits; amount: six bits. */
export const KIND_SHIFT = 8;
export const AMOUNT_SHIFT = 12;

/** Bit of `a` in exclusives, beside log2 of the bytes of one register. */
export const PAIR = 4;
/** LOGIC_SHIFTED: and, orr, eor (two bits at 4); the second operand is the 32-bit constant b. */
export const LOGIC_SHIFT = 4;
export const LOGIC_CONSTANT = 1 << 20;

/** Bits of `b` in LOAD, STORE and pairs. */
export const ACCESS = {
  /** log2 of the bytes: two bits. */
  SIZE: 3,
  SIGNED: 4,
  /** Sign-extends to 32 bits only. */
  TO32: 8,
  /** Address is n; n += a afterwards. */
  POST: 16,
  /** Address is n + a, and n becomes it. */
  PRE: 32,
  /** Offset is register m, extended (bits 8..10) and shifted (bits 12..14). */
  REGISTER: 64,
  ORDERED: 128,
  /** Address is pc + a. */
  LITERAL: 1 << 16,
} as const;
