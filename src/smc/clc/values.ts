/** Numbers of CLC messages: types, eyecatchers, what is proposed, limits. Reference: net/smc/smc_clc.h of 6.12. */

/** "SMCR" and "SMCD" in EBCDIC. */
export const SMC_EYECATCHER = 0xe2d4c3d9;
export const SMCD_EYECATCHER = 0xe2d4c3c4;

export const CLC_TYPE = { PROPOSAL: 1, ACCEPT: 2, CONFIRM: 3, DECLINE: 4 } as const;

/** smc_type_v1, smc_type_v2 */
export const SMC_TYPE = { R: 0, D: 1, N: 2, B: 3 } as const;

export function smcdIndicated(type: number): boolean {
  return type === SMC_TYPE.D || type === SMC_TYPE.B;
}

export function smcrIndicated(type: number): boolean {
  return type === SMC_TYPE.R || type === SMC_TYPE.B;
}

/** smc_indicated_type */
export function indicatedType(isSmcd: boolean, isSmcr: boolean): number {
  if (isSmcd) return isSmcr ? SMC_TYPE.B : SMC_TYPE.D;
  return isSmcr ? SMC_TYPE.R : SMC_TYPE.N;
}

/** In the place of typev2 in accept and confirm; in a decline: out of sync. */
export const SMC_FIRST_CONTACT_MASK = 0x2;
export const SMC_RELEASE = 1;
/** Emulated-ISM is supported. */
export const SMC_FEATURE_MASK = 0x0001;
export const SMC_CLC_OS_LINUX = 2;
export const SMC_CLC_MAX_UEID = 8;
export const SMC_CLC_MAX_ISM = 8;
export const SMC_CLC_MAX_V6_PREFIX = 8;

/** 32 bytes of ASCII with blanks behind: EIDs and host names. */
export function blankPadded(text: string): Uint8Array {
  return new TextEncoder().encode(text.slice(0, 32).padEnd(32));
}
