/**
 * The assembler: reads what `disassemble` prints (bpftool's syntax) and llvm's variations of it.
 *
 *   loop:
 *     r0 += 1
 *     if r0 < 5 goto loop
 *     exit
 *
 * A line may begin with a slot number and an opcode in parentheses, as a listing has them. Jump
 * targets are labels or distances (`pc+3`, `+3`); a call names a helper by number (`call 5`,
 * `call helper#5`, `call bpf_map_lookup_elem#1`), a label or distance (local call); `r2 = subprog[name]`
 * is a function's address. Numbers are decimal or 0x hex. Comments begin with `;` or `//`. Left out: directives, maps, BTF.
 *
 * Usage:
 *   const insns = assemble('r0 = 2\nexit');
 */
import { InputError } from '../common/errors.js';
import { encodeSlots, makeSlot, type Slot } from './instruction.js';
import { ATOMIC, CLASS, OPCODES, PSEUDO, type Opcode, type Size } from './opcodes.js';

/** A statement's slots; `target` is a label to be put into off or imm of the first one. */
interface Statement {
  readonly slots: readonly Slot[];
  readonly target?: { readonly label: string; readonly field: 'off' | 'imm' };
}

interface Rule {
  readonly pattern: RegExp;
  /** Undefined when the text only looks like this statement. */
  readonly build: (groups: Readonly<Record<string, string>>) => Statement | undefined;
}

/** Throws InputError with the line number of the first line that cannot be read. */
export function assemble(text: string): Uint8Array {
  const labels = new Map<string, number>();
  const statements: { readonly line: number; readonly at: number; statement: Statement }[] = [];
  let at = 0;
  for (const [index, raw] of text.split('\n').entries()) {
    let source = raw.replace(/(;|\/\/).*$/, '').trim();
    for (;;) {
      const label = /^([A-Za-z_.][\w.]*):\s*/.exec(source);
      if (!label) break;
      labels.set(label[1] as string, at);
      source = source.slice(label[0].length);
    }
    source = source.replace(/^\d+:\s*/, '').replace(/^\([0-9a-f]{2}\)\s*/, '');
    if (source === '') continue;
    const statement = parseStatement(source);
    if (!statement) throw new InputError(`line ${index + 1}: cannot assemble '${source}'`);
    statements.push({ line: index + 1, at, statement });
    at += statement.slots.length;
  }
  const slots = statements.flatMap(({ line, at: start, statement }) =>
    resolve(statement, start, line, labels),
  );
  return encodeSlots(slots);
}

function resolve(
  { slots, target }: Statement,
  at: number,
  line: number,
  labels: ReadonlyMap<string, number>,
): readonly Slot[] {
  const [first, ...rest] = slots;
  if (!target || !first) return slots;
  const place = labels.get(target.label);
  if (place === undefined) throw new InputError(`line ${line}: no label '${target.label}'`);
  const distance = place - (at + 1);
  if (target.field === 'off' && (distance < -0x8000 || distance > 0x7fff)) {
    throw new InputError(`line ${line}: '${target.label}' is ${distance} slots away: use gotol`);
  }
  return [{ ...first, [target.field]: distance }, ...rest];
}

function parseStatement(source: string): Statement | undefined {
  for (const { pattern, build } of RULES) {
    const match = pattern.exec(source);
    const statement = match && build(match.groups ?? {});
    if (statement) return statement;
  }
  return undefined;
}

const REGISTER = '[rw](?:1[01]|[0-9])';
const NUMBER = '[-+]?\\s*(?:0x[0-9a-fA-F]+|[0-9]+)';
const PLACE = `\\*\\s*\\((?<type>[us](?:8|16|32|64)) \\*\\)\\s*\\((?<base>r\\d+)\\s*(?<off>${NUMBER})?\\)`;
/** A pointer as atomic built-ins take it: the star is inside the type only. */
const POINTER = PLACE.replace('\\*\\s*', '');
const TARGET = `(?:pc)?(?<distance>[-+]\\d+)|(?<label>[A-Za-z_.][\\w.]*)`;

function rule(pattern: string, build: Rule['build']): Rule {
  return { pattern: new RegExp(`^${pattern}$`), build };
}

const RULES: readonly Rule[] = [
  rule('exit', () => one(0x95)),
  rule('tail_call', () => one(0xf5)),
  rule('nospec', () => one(0xc2)),
  rule(`callx (?<dst>r\\d+)`, ({ dst }) => one(0x8d, { dst: number(dst) })),
  rule(`call kernel-function#(?<id>-?\\d+)`, ({ id }) =>
    one(0x85, { src: PSEUDO.KFUNC_CALL, imm: Number(id) }),
  ),
  rule(`call (?<id>\\d+|[\\w.]*#-?\\d+)`, ({ id = '' }) =>
    one(0x85, { imm: Number(id.slice(id.indexOf('#') + 1)) }),
  ),
  rule(`call (?:${TARGET})`, (groups) => jump(0x85, groups, 'imm', { src: PSEUDO.CALL })),
  rule(`goto (?:${TARGET})`, (groups) => jump(0x05, groups, 'off')),
  rule(`gotol (?:${TARGET})`, (groups) => jump(0x06, groups, 'imm')),
  rule(`may_goto (?:${TARGET})`, (groups) => jump(0xe5, groups, 'off')),
  rule(
    `if (?<left>${REGISTER}) (?<symbol>[s<>=!&]+) (?<right>${REGISTER}|${NUMBER}) goto (?:${TARGET})`,
    parseConditional,
  ),
  rule(`${PLACE} = (?<value>${REGISTER}|${NUMBER})`, parseStore),
  rule(`lock ${PLACE} (?<symbol>[-+&|^]=) (?<value>${REGISTER})`, ({ symbol, ...groups }) =>
    atomicSlot(ATOMIC.find((row) => row.symbol === symbol)?.imm, groups),
  ),
  rule(
    `(?<value>${REGISTER}) = atomic(?:64)?_(?<op>\\w+)\\(${POINTER}, (?:[rw]0, )?(?<operand>${REGISTER})\\)`,
    parseAtomicResult,
  ),
  // llvm: r3 = xchg_64(r1 + 40, r3), w0 = cmpxchg32_32(r1 + 76, w0, w6)
  rule(
    `(?<value>${REGISTER}) = (?<op>xchg|cmpxchg)(?:32)?_(?<bits>32|64)\\((?<base>r\\d+) (?<off>${NUMBER}), (?:[rw]0, )?(?<operand>${REGISTER})\\)`,
    ({ bits, ...groups }) => parseAtomicResult({ ...groups, type: `u${bits}` }),
  ),
  rule(`(?<value>r\\d+) = load_acquire\\(${POINTER}\\)`, ({ value, base, ...groups }) =>
    atomicSlot(0x100, { ...groups, base: value ?? '', value: base ?? '' }),
  ),
  rule(`store_release\\(${POINTER}, (?<value>r\\d+)\\)`, (groups) => atomicSlot(0x110, groups)),
  rule(`(?<dst>${REGISTER}) = (?<probe>probe )?${PLACE}`, parseLoad),
  rule(
    `r0 = \\*\\((?<type>u(?:8|16|32)) \\*\\)skb\\[(?:(?<src>r\\d+) \\+ )?(?<imm>-?\\d+)\\]`,
    (g) =>
      one((g.src === undefined ? 0x20 : 0x40) | sizeBits(sizeOf(g.type)), {
        src: g.src === undefined ? 0 : number(g.src),
        imm: Number(g.imm),
      }),
  ),
  rule(
    `(?<dst>r\\d+) = (?<to>le|be|bswap)(?<bits>16|32|64) (?<src>r\\d+)`,
    ({ dst, to, bits, src }) =>
      dst === src
        ? one({ le: 0xd4, be: 0xdc, bswap: 0xd7 }[to ?? ''] ?? 0, {
            dst: number(dst),
            imm: Number(bits),
          })
        : undefined,
  ),
  rule(`(?<dst>${REGISTER}) = -(?<src>${REGISTER})`, ({ dst, src }) =>
    dst === src ? one(isHalf(dst) ? 0x84 : 0x87, { dst: number(dst) }) : undefined,
  ),
  rule(`(?<dst>r\\d+) = map\\[fd:(?<fd>\\d+)\\](?:\\[0\\]\\+(?<offset>\\d+))?`, (g) =>
    pair(
      {
        dst: number(g.dst),
        imm: Number(g.fd),
        src: g.offset === undefined ? PSEUDO.MAP_FD : PSEUDO.MAP_VALUE,
      },
      Number(g.offset ?? 0),
    ),
  ),
  rule(`(?<dst>r\\d+) = subprog\\[(?<imm>[-+]\\d+)\\]`, ({ dst, imm }) =>
    pair({ dst: number(dst), src: PSEUDO.FUNC, imm: Number(imm) }, 0),
  ),
  rule(`(?<dst>r\\d+) = subprog\\[(?<label>[A-Za-z_.][\\w.]*)\\]`, ({ dst, label = '' }) => ({
    ...pair({ dst: number(dst), src: PSEUDO.FUNC }, 0),
    target: { label, field: 'imm' },
  })),
  rule(`(?<dst>r\\d+) = (?<value>0x[0-9a-fA-F]+|[-+]?\\d+) ll`, parseConstant),
  // bpftool shows ld_imm64 in hex and 32-bit immediates in decimal
  rule(`(?<dst>r\\d+) = (?<value>0x[0-9a-fA-F]+)`, parseConstant),
  rule(
    `(?<dst>${REGISTER}) (?<symbol>s?(?:[-+*/%&|^]|<<|>>)?=) (?:\\(s(?<extend>8|16|32)\\))?(?<right>${REGISTER}|${NUMBER})`,
    parseAlu,
  ),
];

function one(code: number, fields: Partial<Omit<Slot, 'code'>> = {}): Statement {
  return { slots: [makeSlot(code, fields)] };
}

/** ld_imm64: the first slot's fields and the second one's imm. */
function pair(fields: Partial<Omit<Slot, 'code'>>, high: number): Statement {
  return { slots: [makeSlot(0x18, fields), makeSlot(0, { imm: high | 0 })] };
}

function jump(
  code: number,
  { distance, label }: Readonly<Record<string, string | undefined>>,
  field: 'off' | 'imm',
  fields: Partial<Omit<Slot, 'code'>> = {},
): Statement {
  const slot = makeSlot(code, fields);
  if (label !== undefined) return { slots: [slot], target: { label, field } };
  return { slots: [{ ...slot, [field]: Number(distance) }] };
}

function parseConditional(groups: Readonly<Record<string, string>>): Statement | undefined {
  const { left = '', symbol = '', right = '' } = groups;
  const isRegister = /^[rw]/.test(right);
  if (isRegister && isHalf(left) !== isHalf(right)) return undefined;
  const code = findCode(
    (opcode) =>
      opcode.kind === 'jump' &&
      opcode.symbol === symbol &&
      opcode.width === (isHalf(left) ? 32 : 64) &&
      opcode.source === (isRegister ? 'register' : 'immediate'),
  );
  if (code === undefined) return undefined;
  const operand = isRegister ? { src: number(right) } : immediate(right);
  return operand && jump(code, groups, 'off', { dst: number(left), ...operand });
}

function parseAlu(groups: Readonly<Record<string, string | undefined>>): Statement | undefined {
  const { dst = '', symbol = '', extend, right = '' } = groups;
  const isRegister = /^[rw]/.test(right);
  if (isRegister && isHalf(dst) !== isHalf(right)) return undefined;
  const isSigned = symbol === 's/=' || symbol === 's%=';
  const code = findCode(
    (opcode) =>
      opcode.kind === 'alu' &&
      opcode.symbol === (isSigned ? symbol.slice(1) : symbol) &&
      opcode.width === (isHalf(dst) ? 32 : 64) &&
      opcode.source === (isRegister ? 'register' : 'immediate'),
  );
  if (code === undefined || (extend !== undefined && (symbol !== '=' || !isRegister))) {
    return undefined;
  }
  const operand = isRegister ? { src: number(right) } : immediate(right);
  const off = isSigned ? 1 : Number(extend ?? 0);
  return operand && one(code, { dst: number(dst), off, ...operand });
}

function parseConstant({
  dst,
  value = '',
}: Readonly<Record<string, string>>): Statement | undefined {
  const constant = BigInt.asUintN(64, BigInt(value));
  if (BigInt(value) > 0xffff_ffff_ffff_ffffn) return undefined;
  const low = Number(BigInt.asIntN(32, constant));
  return pair({ dst: number(dst), imm: low }, Number(constant >> 32n));
}

function parseLoad(groups: Readonly<Record<string, string | undefined>>): Statement | undefined {
  const { dst = '', probe, type = '', base, off } = groups;
  const size = sizeOf(type);
  const isSigned = type.startsWith('s');
  if ((isSigned || isHalf(dst)) && size === 8) return undefined;
  const mode = probe === undefined ? (isSigned ? 0x80 : 0x60) : isSigned ? 0x40 : 0x20;
  return one(mode | sizeBits(size) | CLASS.LDX, {
    dst: number(dst),
    src: number(base),
    off: signedNumber(off),
  });
}

function parseStore(groups: Readonly<Record<string, string | undefined>>): Statement | undefined {
  const { type = '', base, off, value = '' } = groups;
  if (!type.startsWith('u')) return undefined;
  if (isHalf(value) && sizeOf(type) === 8) return undefined;
  const isRegister = /^[rw]/.test(value);
  const operand = isRegister ? { src: number(value) } : immediate(value);
  const code = 0x60 | sizeBits(sizeOf(type)) | (isRegister ? CLASS.STX : CLASS.ST);
  return operand && one(code, { dst: number(base), off: signedNumber(off), ...operand });
}

function parseAtomicResult(groups: Readonly<Record<string, string>>): Statement | undefined {
  const { op, value, operand, ...rest } = groups;
  const isExchange = op === 'cmpxchg';
  // all but cmpxchg give the old value in the operand's register
  if (isExchange ? value?.slice(1) !== '0' : value !== operand) return undefined;
  return atomicSlot(ATOMIC.find((row) => row.op === op)?.imm, { ...rest, value: operand ?? '' });
}

function atomicSlot(
  imm: number | undefined,
  { type, base, off, value }: Readonly<Record<string, string | undefined>>,
): Statement | undefined {
  if (imm === undefined || (isHalf(value) && sizeOf(type) === 8)) return undefined;
  return one(0xc0 | sizeBits(sizeOf(type)) | CLASS.STX, {
    dst: number(base),
    src: number(value),
    off: signedNumber(off),
    imm,
  });
}

function findCode(wanted: (opcode: Opcode) => boolean): number | undefined {
  const code = OPCODES.findIndex((opcode) => opcode !== undefined && wanted(opcode));
  return code < 0 ? undefined : code;
}

function isHalf(register = ''): boolean {
  return register.startsWith('w');
}

function number(register = ''): number {
  return Number(register.slice(1));
}

function signedNumber(text = '0'): number {
  return Number(toBigInt(text));
}

/** An immediate of 32 bits, given signed or unsigned; undefined when it is larger. */
function immediate(text: string): { readonly imm: number } | undefined {
  const value = toBigInt(text);
  if (value < -0x8000_0000n || value > 0xffff_ffffn) return undefined;
  return { imm: Number(BigInt.asIntN(32, value)) };
}

function toBigInt(text: string): bigint {
  const digits = text.replace(/\s+/g, '');
  const magnitude = BigInt(digits.replace(/^[-+]/, ''));
  return digits.startsWith('-') ? -magnitude : magnitude;
}

function sizeOf(type = ''): Size {
  return ({ 8: 1, 16: 2, 32: 4 }[type.slice(1)] as Size | undefined) ?? 8;
}

function sizeBits(size: Size): number {
  return { 1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18 }[size];
}
