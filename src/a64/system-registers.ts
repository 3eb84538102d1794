/**
 * Names of system registers and of the other small enumerations of system instructions.
 *
 * A register is op0:op1:CRn:CRm:op2 (Arm ARM D23, "Register access instructions"); the encoding has
 * only the low bit of op0 (`o0`). Listed are those that kernel entry, JIT and test code touch; the
 * printer writes others as S<op0>_<op1>_C<CRn>_C<CRm>_<op2>.
 */

/** op0_op1_CRn_CRm_op2 and the register's name. */
const NAMES: Readonly<Record<string, string>> = {
  '3_0_0_0_0': 'midr_el1',
  '3_0_0_0_5': 'mpidr_el1',
  '3_0_0_4_0': 'id_aa64pfr0_el1',
  '3_0_0_6_0': 'id_aa64isar0_el1',
  '3_0_0_6_1': 'id_aa64isar1_el1',
  '3_0_0_7_0': 'id_aa64mmfr0_el1',
  '3_0_1_0_0': 'sctlr_el1',
  '3_0_2_0_0': 'ttbr0_el1',
  '3_0_2_0_1': 'ttbr1_el1',
  '3_0_2_0_2': 'tcr_el1',
  '3_0_4_0_0': 'spsr_el1',
  '3_0_4_0_1': 'elr_el1',
  '3_0_4_1_0': 'sp_el0',
  '3_0_4_2_0': 'spsel',
  '3_0_4_2_2': 'currentel',
  '3_0_4_2_3': 'pan',
  '3_0_5_2_0': 'esr_el1',
  '3_0_6_0_0': 'far_el1',
  '3_0_10_2_0': 'mair_el1',
  '3_0_12_0_0': 'vbar_el1',
  '3_0_13_0_1': 'contextidr_el1',
  '3_0_13_0_4': 'tpidr_el1',
  '3_3_0_0_1': 'ctr_el0',
  '3_3_0_0_7': 'dczid_el0',
  '3_3_4_2_0': 'nzcv',
  '3_3_4_2_1': 'daif',
  '3_3_4_4_0': 'fpcr',
  '3_3_4_4_1': 'fpsr',
  '3_3_13_0_2': 'tpidr_el0',
  '3_3_13_0_3': 'tpidrro_el0',
  '3_3_14_0_0': 'cntfrq_el0',
  '3_3_14_0_1': 'cntpct_el0',
  '3_3_14_0_2': 'cntvct_el0',
  '3_4_13_0_2': 'tpidr_el2',
};

export interface SystemRegisterFields {
  readonly o0: number;
  readonly op1: number;
  readonly CRn: number;
  readonly CRm: number;
  readonly op2: number;
}

const byName = new Map(
  Object.entries(NAMES).map(([key, name]) => {
    const [op0 = 0, op1 = 0, CRn = 0, CRm = 0, op2 = 0] = key.split('_').map(Number);
    return [name, { o0: op0 & 1, op1, CRn, CRm, op2 }];
  }),
);

/** The name of a register, or its generic S3_0_C4_C1_0 form. */
export function systemRegisterName({ o0, op1, CRn, CRm, op2 }: SystemRegisterFields): string {
  const op0 = 2 | o0;
  return NAMES[`${op0}_${op1}_${CRn}_${CRm}_${op2}`] ?? `s${op0}_${op1}_c${CRn}_c${CRm}_${op2}`;
}

/**
 * The fields of a named register, to pass to `encode('MRS', { ...fields, Rt })`. Throws RangeError.
 */
export function systemRegisterFields(name: string): SystemRegisterFields {
  const fields = byName.get(name);
  if (!fields) throw new RangeError(`no system register ${name}`);
  return fields;
}

/** Operand of DMB and DSB by CRm; unnamed numbers are printed as such. */
export const BARRIERS: readonly (string | undefined)[] =
  ' oshld oshst osh  nshld nshst nsh  ishld ishst ish  ld st sy'
    .split(' ')
    .map((name) => (name === '' ? undefined : name));

/** Operand of MSR (immediate) by op1:op2. */
export const PSTATE_FIELDS: Readonly<Record<number, string>> = {
  0o03: 'uao',
  0o04: 'pan',
  0o05: 'spsel',
  0o31: 'ssbs',
  0o32: 'dit',
  0o34: 'tco',
  0o36: 'daifset',
  0o37: 'daifclr',
};

/** The prefetch operation pldl1keep .. pstl3strm; unnamed numbers are printed as such. */
export function prefetchName(prfop: number): string | undefined {
  const type = ['pld', 'pli', 'pst'][prfop >> 3];
  const level = (prfop >> 1) & 3;
  if (type === undefined || level === 3) return undefined;
  return `${type}l${level + 1}${(prfop & 1) === 1 ? 'strm' : 'keep'}`;
}
