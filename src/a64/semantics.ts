/**
 * The vocabulary in which the instruction table says what an instruction does.
 *
 * Engines lower these to their own operations; nothing else of an engine looks at encodings.
 * Operand fields keep the manual's names, so `{ kind: 'arithmetic', operand: 'shifted' }` reads Rn,
 * Rm, shift and imm6 and writes Rd. Widths come from `sf` (absent: see each kind). References are
 * to DDI 0487, C6.2.
 */
type ArithmeticOperand = 'immediate' | 'shifted' | 'extended' | 'carry';

/** How a load or store finds its address. */
type Addressing =
  /** Rn. */
  | 'base'
  /** Rn + imm12 * bytes. */
  | 'unsigned'
  /** Rn + imm9. */
  | 'unscaled'
  /** Rn, then Rn += offset (imm9; pairs imm7 * bytes). */
  | 'post'
  /** Rn += offset first. */
  | 'pre'
  /** Rn + extended and scaled Rm. */
  | 'register'
  /** pc + imm19 * 4. */
  | 'literal'
  /** Pairs: Rn + imm7 * bytes. */
  | 'offset';

/** Bytes of an access; `sf`: 4 or 8 by that field; `size`: 1 << size. */
export type AccessBytes = 1 | 2 | 4 | 8 | 'sf' | 'size';

export type AtomicOperation =
  'add' | 'clr' | 'eor' | 'set' | 'smax' | 'smin' | 'umax' | 'umin' | 'swp';

export type Semantics =
  /** Rd = Rn ± operand (± carry), NZCV when `flags`. Rd/Rn 31 are SP as the manual says. */
  | {
      readonly kind: 'arithmetic';
      readonly operation: 'add' | 'sub';
      readonly flags: boolean;
      readonly operand: ArithmeticOperand;
    }
  /** Rd = Rn op (inverted) operand. */
  | {
      readonly kind: 'logical';
      readonly operation: 'and' | 'orr' | 'eor';
      readonly invert: boolean;
      readonly flags: boolean;
      readonly operand: 'immediate' | 'shifted';
    }
  | { readonly kind: 'moveWide'; readonly operation: 'movz' | 'movn' | 'movk' }
  /** ADR, ADRP. */
  | { readonly kind: 'address'; readonly page: boolean }
  | { readonly kind: 'bitfield'; readonly operation: 'sbfm' | 'bfm' | 'ubfm' }
  | { readonly kind: 'extract' }
  | {
      readonly kind: 'conditionalSelect';
      readonly invert: boolean;
      readonly increment: boolean;
    }
  | {
      readonly kind: 'conditionalCompare';
      readonly operation: 'add' | 'sub';
      readonly operand: 'immediate' | 'register';
    }
  /** Rd = Ra ± Rn * Rm; `long` multiplies two 32-bit registers into 64 bits. */
  | {
      readonly kind: 'multiply';
      readonly operation: 'add' | 'sub';
      readonly long: 'no' | 'signed' | 'unsigned';
    }
  | { readonly kind: 'multiplyHigh'; readonly signed: boolean }
  | { readonly kind: 'divide'; readonly signed: boolean }
  | { readonly kind: 'shiftVariable'; readonly operation: 'lsl' | 'lsr' | 'asr' | 'ror' }
  | {
      readonly kind: 'reverse';
      readonly operation: 'rbit' | 'rev16' | 'rev32' | 'rev64' | 'clz' | 'cls';
    }
  /** CRC of 1 << sz bytes of Rm; C selects the Castagnoli polynomial. */
  | { readonly kind: 'crc32' }
  /** B, BL. */
  | { readonly kind: 'branch'; readonly link: boolean }
  | { readonly kind: 'branchConditional' }
  | { readonly kind: 'compareBranch'; readonly nonzero: boolean }
  | { readonly kind: 'testBranch'; readonly nonzero: boolean }
  /** BR, BLR, RET. */
  | { readonly kind: 'branchRegister'; readonly link: boolean; readonly returns?: true }
  /** `signed`: sign-extends to 32 or 64 bits (`opc0`; absent: 64). `ordered`: acquire. */
  | {
      readonly kind: 'load';
      readonly bytes: AccessBytes;
      readonly signed: boolean;
      readonly ordered: boolean;
      readonly addressing: Addressing;
    }
  | {
      readonly kind: 'store';
      readonly bytes: AccessBytes;
      readonly ordered: boolean;
      readonly addressing: Addressing;
    }
  | {
      readonly kind: 'loadPair';
      readonly bytes: 4 | 'sf';
      readonly signed: boolean;
      readonly addressing: 'offset' | 'post' | 'pre';
    }
  | {
      readonly kind: 'storePair';
      readonly bytes: 'sf';
      readonly addressing: 'offset' | 'post' | 'pre';
    }
  | { readonly kind: 'loadExclusive'; readonly pair: boolean }
  | { readonly kind: 'storeExclusive'; readonly pair: boolean }
  /** Rt = old value of [Rn]; [Rn] = old op Rs. */
  | { readonly kind: 'atomic'; readonly operation: AtomicOperation }
  /** CAS; `pair`: CASP. */
  | { readonly kind: 'compareAndSwap'; readonly pair: boolean }
  | { readonly kind: 'clearExclusive' }
  /** Nothing that a single CPU without caches or prediction can see: hints, barriers, prefetch. */
  | { readonly kind: 'nothing' }
  /** XPACLRI: removes the pointer authentication code of X30. */
  | { readonly kind: 'stripLink' }
  | { readonly kind: 'readSystem' }
  | { readonly kind: 'writeSystem' }
  /** MSR (immediate). */
  | { readonly kind: 'writePstate' }
  | {
      readonly kind: 'trap';
      readonly instruction: 'brk' | 'svc' | 'hvc' | 'smc' | 'hlt';
    }
  /** UDF: permanently undefined. */
  | { readonly kind: 'undefined' };
