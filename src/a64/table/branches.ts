/**
 * Branches, Arm ARM C4.1.94. Left out: authenticated branches (BRAA, RETAA), BC.cond, ERET.
 */
import { row, type Row } from '../row.js';
import { is } from './conditions.js';

export const branches: readonly Row[] = [
  row('B', '0 00101 imm26', 'b <imm26>', { kind: 'branch', link: false }),
  row('BL', '1 00101 imm26', 'bl <imm26>', { kind: 'branch', link: true }),
  row('B_cond', '0101010 0 imm19 0 cond', 'b.<cond> <imm19>', { kind: 'branchConditional' }),
  row('CBZ', 'sf 011010 0 imm19 Rt', 'cbz <Rt>, <imm19>', {
    kind: 'compareBranch',
    nonzero: false,
  }),
  row('CBNZ', 'sf 011010 1 imm19 Rt', 'cbnz <Rt>, <imm19>', {
    kind: 'compareBranch',
    nonzero: true,
  }),
  row('TBZ', 'b5 011011 0 b40 imm14 Rt', 'tbz <Rt>, <bit>, <imm14>', {
    kind: 'testBranch',
    nonzero: false,
  }),
  row('TBNZ', 'b5 011011 1 b40 imm14 Rt', 'tbnz <Rt>, <bit>, <imm14>', {
    kind: 'testBranch',
    nonzero: true,
  }),
  row('BR', '1101011 0 0 00 11111 0000 0 0 Rn 00000', 'br <Xn>', {
    kind: 'branchRegister',
    link: false,
  }),
  row('BLR', '1101011 0 0 01 11111 0000 0 0 Rn 00000', 'blr <Xn>', {
    kind: 'branchRegister',
    link: true,
  }),
  row('RET', '1101011 0 0 10 11111 0000 0 0 Rn 00000', [[is('Rn', 30), 'ret'], 'ret <Xn>'], {
    kind: 'branchRegister',
    link: false,
    returns: true,
  }),
];
