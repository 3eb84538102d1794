/**
 * Faults in the JIT and the trampoline generator, one change of text each, and the campaign of the fuzzer that
 * has to find each.
 *
 * They are what goes wrong when such code is written: a wrong register, a dropped instruction, a check
 * that is off by one, a missing extension, operands the wrong way round, a wrong offset.
 */
export interface Fault {
  readonly name: string;
  readonly area: Area;
  readonly campaign: CampaignName;
  /** Source file, from the package's root. */
  readonly file: string;
  /** Occurs once in the file. */
  readonly from: string;
  readonly to: string;
  /** Why no campaign can find it. */
  readonly unseen?: string;
}

type Area =
  | 'alu'
  | 'memory'
  | 'atomics'
  | 'jumps'
  | 'immediates'
  | 'calls'
  | 'tail calls'
  | 'frame'
  | 'plt and poke'
  | 'trampoline';

/** Engines by name, as `trampolab fuzz --engine` takes them. */
export const CAMPAIGNS = {
  '6.1': { engines: 'interpreter,embedded:6.1,embedded:6.1:nolse' },
  '6.12': { engines: 'interpreter,embedded,embedded:nolse:bti:far' },
  '7.3': { engines: 'interpreter,embedded:7.3,embedded:7.3:nolse:bti:nopac' },
  edge: { engines: 'interpreter,embedded:edge' },
  'trampolines 6.1': { trampolines: ['6.1', '6.1:apart'] },
  'trampolines 6.12': { trampolines: ['6.12', '6.12:apart', '6.12:far'] },
  'trampolines 7.3': { trampolines: ['7.3', '7.3:apart', '7.3:far'] },
} as const satisfies Readonly<
  Record<string, { readonly engines: string } | { readonly trampolines: readonly string[] }>
>;
export type CampaignName = keyof typeof CAMPAIGNS;

type Change = readonly [
  name: string,
  file: string,
  from: string,
  to: string,
  campaign?: CampaignName,
  unseen?: string,
];

function faults(area: Area, fallback: CampaignName, changes: readonly Change[]): Fault[] {
  return changes.map(([name, file, from, to, campaign = fallback, unseen]) => {
    const fault = { name, area, campaign, file: `src/jit/${file}`, from, to };
    return unseen === undefined ? fault : { ...fault, unseen };
  });
}

const ALU = faults('alu', '6.12', [
  ['sub instead of add, registers', 'alu.ts', '  0x00: addRegister,\n', '  0x00: subRegister,\n'],
  [
    'subtract the wrong way round',
    'emit.ts',
    'return SUB_REGISTER(sf, rm, rn, rd);',
    'return SUB_REGISTER(sf, rn, rm, rd);',
  ],
  [
    'negate without the zero register',
    'alu.ts',
    'subRegister(sf, dst, ZR, dst)',
    'subRegister(sf, dst, dst, ZR)',
  ],
  [
    'negate in 64 bits always',
    'alu.ts',
    'subRegister(sf, dst, ZR, dst)',
    'subRegister(1, dst, ZR, dst)',
  ],
  [
    'mod does not multiply back',
    'alu.ts',
    'return ctx.emit(msub(sf, dst, tmp1, src, dst));',
    'return;',
  ],
  [
    'mod by a constant: operands of msub swapped',
    'alu.ts',
    'msub(sf, dst, tmp1, tmp2, dst)',
    'msub(sf, dst, dst, tmp2, tmp1)',
  ],
  ['signed division is unsigned', 'alu.ts', '? sdiv : udiv', '? udiv : udiv'],
  [
    'sign extension of 8 bits is of 16',
    'alu.ts',
    'ctx.emit(sxtb(sf, dst, src))',
    'ctx.emit(sxth(sf, dst, src))',
  ],
  [
    'sign extension ignores the width',
    'alu.ts',
    'ctx.emit(sxth(sf, dst, src))',
    'ctx.emit(sxth(1, dst, src))',
  ],
  [
    'be16 keeps the upper bits',
    'alu.ts',
    '        ctx.emit(rev16(sf, dst, dst));\n        return ctx.emit(uxth(sf, dst, dst));',
    '        return ctx.emit(rev16(sf, dst, dst));',
  ],
  ['be32 reverses 64 bits', 'alu.ts', 'ctx.emit(rev32(dst, dst))', 'ctx.emit(rev64(dst, dst))'],
  ['le32 does not truncate', 'alu.ts', 'return ctx.emit(uxtw(sf, dst, dst));', 'return;'],
  [
    'arithmetic shift is logical',
    'emit.ts',
    'return ASRV(sf, rm, rn, rd);',
    'return LSRV(sf, rm, rn, rd);',
  ],
  [
    'left shift by a constant is one short',
    'emit.ts',
    'UBFM(sf, sf, (bits - shift) % bits, bits - 1 - shift, rn, rd)',
    'UBFM(sf, sf, (bits - shift) % bits, bits - 1, rn, rd)',
  ],
]);

const IMMEDIATES = faults('immediates', '6.12', [
  ['imm12 taken for 13 bits', 'alu.ts', '(imm & ~0xfff) === 0 ||', '(imm & ~0x1fff) === 0 ||'],
  [
    'add of a negative constant adds it',
    'alu.ts',
    '(negated ? addImmediate : subImmediate)',
    '(negated ? subImmediate : addImmediate)',
  ],
  [
    'shifted imm12 is not shifted',
    'emit.ts',
    'return encode(sf, 1, imm >>> 12, rn, rd);',
    'return encode(sf, 0, imm >>> 12, rn, rd);',
  ],
  [
    'logical immediate: rotation the wrong way',
    'emit.ts',
    'immr: (element - start) % element',
    'immr: start % element',
  ],
  ['logical immediate: one more bit', 'emit.ts', 'size | (length - 1)', 'size | (length & 0x3f)'],
  [
    'logical immediate of 32 bits for 64',
    'emit.ts',
    'const element = sf ? 64 : period(value);',
    'const element = period(value);',
  ],
  [
    'constant without its upper half',
    'constants.ts',
    'if (hi !== 0) words.push(movk(sf, rd, hi, 16));',
    '',
  ],
  [
    'negative constant without its lower half',
    'constants.ts',
    'if (lo !== 0xffff) words.push(movk(sf, rd, lo, 0));',
    'if (lo !== 0xffff && lo !== 0) words.push(movk(sf, rd, lo, 0));',
  ],
  [
    'movn without inverting',
    'constants.ts',
    'if (hi === 0xffff) return [movn(sf, rd, ~lo & 0xffff, 0)];',
    'if (hi === 0xffff) return [movn(sf, rd, lo, 0)];',
  ],
  [
    '64-bit constant leaves out zero blocks of a movn',
    'constants.ts',
    '} else if (block !== background) {',
    '} else if (block !== background && block !== 0) {',
  ],
  [
    '64-bit constant in 32 bits when it looks positive',
    'constants.ts',
    'if (hi === 0)',
    'if (hi >>> 1 === 0)',
  ],
  [
    'compare with a constant in 64 bits always',
    'jumps.ts',
    'return ctx.emit(subsImmediate(sf, ZR, dst, imm));',
    'return ctx.emit(subsImmediate(1, ZR, dst, imm));',
  ],
  [
    'compare with a negative constant subtracts',
    'jumps.ts',
    'addsImmediate(sf, ZR, dst, -imm)',
    'subsImmediate(sf, ZR, dst, -imm)',
  ],
]);

const JUMPS = faults('jumps', '6.12', [
  ['unsigned greater-or-equal is signed', 'jumps.ts', "0x30: 'cs',", "0x30: 'ge',"],
  ['signed less is less-or-equal', 'jumps.ts', "0xc0: 'lt',", "0xc0: 'le',"],
  ['jset jumps when no bit is set', 'jumps.ts', "0x40: 'ne', // jset", "0x40: 'eq', // jset"],
  [
    'jset compares',
    'jumps.ts',
    'operation === 0x40 ? andsRegister : subsRegister',
    'operation === 0x40 ? subsRegister : subsRegister',
  ],
  [
    '32-bit jumps compare 64 bits',
    'jumps.ts',
    'const sf = (slot.code & 7) === 5 ? 1 : 0;',
    'const sf = (slot.code & 7) === 5 ? 1 : 1;',
  ],
  [
    'jumps land one instruction further',
    'jumps.ts',
    'return target - ((ctx.offsets[next] ?? 0) - 1);',
    'return target - ((ctx.offsets[next] ?? 0) - 2);',
  ],
  ['gotol takes off', 'instruction.ts', 'buildGoto(ctx, slot.imm);', 'buildGoto(ctx, slot.off);'],
  [
    'offsets are not settled before the last pass',
    'program.ts',
    'while (!runPass(ctx, base));',
    'runPass(ctx, base);',
  ],
]);

const MEMORY = faults('memory', '6.12', [
  [
    'offset need not be aligned to be scaled',
    'memory.ts',
    ' && (offset & ((1 << scale) - 1)) === 0',
    '',
  ],
  [
    'scaled offset: one bit too many',
    'memory.ts',
    'offset <= 0xfff << scale',
    'offset <= 0x1fff << scale',
  ],
  ['offset not scaled', 'emit.ts', 'const imm12 = offset / 2 ** size;', 'const imm12 = offset;'],
  [
    'sign-extending load does not',
    'memory.ts',
    'const signed = mode === MODE.MEMSX ||',
    'const signed = mode === 0x61 ||',
  ],
  ['word sizes swapped', 'memory.ts', 'SIZE_LOG2 = [2, 1, 0, 3]', 'SIZE_LOG2 = [2, 0, 1, 3]'],
  [
    'far load: offset in the destination',
    'memory.ts',
    'ctx.emit(loadRegister(size, signed, dst, src, tmp1));',
    'ctx.emit(loadRegister(size, signed, dst, src, dst));',
  ],
  [
    'far store of a constant: offset over the value',
    'memory.ts',
    '    offsetRegister = tmp2;\n',
    '    offsetRegister = tmp1;\n',
  ],
  [
    'store of a constant without its sign',
    'memory.ts',
    'ctx.code.emitAll(moveInt32(1, tmp1, slot.imm));\n    value = tmp1;',
    'ctx.code.emitAll(moveInt32(0, tmp1, slot.imm));\n    value = tmp1;',
  ],
  [
    'stack access forgets the outgoing arguments',
    'frame.ts',
    'return { base: SP, offset: fromBottom + stackArgumentSize(ctx) };',
    'return { base: SP, offset: fromBottom };',
    '7.3',
    'no generated program passes arguments on the stack; test/vectors/jit has programs that do',
  ],
  [
    'stack access 16 bytes off',
    'frame.ts',
    'const fromBottom = offset + ctx.stackSize;',
    'const fromBottom = offset + ctx.stackSize + 16;',
  ],
  [
    '6.1: x27 is not aligned down',
    'frame-6.1.ts',
    'return -lowest & ~7;',
    'return -lowest & ~15;',
    '6.1',
    'x27 moves and every access moves with it: the code is another, its effect the same',
  ],
  [
    '6.1: x27 is 8 bytes too low for what is counted from it',
    'frame-6.1.ts',
    'return { base: ctx.registers.x27, offset: offset + ctx.fpBottom };',
    'return { base: ctx.registers.x27, offset: offset + ctx.fpBottom + 8 };',
    '6.1',
  ],
]);

const ATOMICS = faults('atomics', '6.12', [
  [
    'and does not complement',
    'atomics.ts',
    'ctx.emit(mvn(size === 3 ? 1 : 0, operand, src));',
    'ctx.move(1, operand, src);',
  ],
  [
    'fetch is lost',
    'atomics.ts',
    'if (slot.imm & FETCH) ctx.emit(lseFetch',
    'if (slot.imm & 0x1000) ctx.emit(lseFetch',
  ],
  ['or is xor', 'atomics.ts', "0x40: { lse: 'set',", "0x40: { lse: 'eor',"],
  ['offset is left out of the address', 'atomics.ts', '  if (off !== 0) {', '  if (off > 8) {'],
  [
    'cmpxchg compares with the source',
    'atomics.ts',
    'casal(size, ctx.reg(0), src, address)',
    'casal(size, src, src, address)',
  ],
  [
    'xchg gives nothing back',
    'atomics.ts',
    'swpal(size, src, src, address)',
    'swpal(size, src, ctx.registers.tmp2, address)',
  ],
  [
    'LL/SC: the sum is of the new value',
    'atomics.ts',
    'ctx.emit(operation.plain(sf, tmp2, src, ax));',
    'ctx.emit(operation.plain(sf, tmp2, src, src));',
  ],
  [
    'LL/SC cmpxchg stores in any case',
    'atomics.ts',
    '    ctx.emit(cbnz(sf, tmp3, 4));\n',
    '    ctx.emit(cbnz(sf, tmp3, 1));\n',
  ],
  [
    'LL/SC cmpxchg compares 64 bits of 32',
    'atomics.ts',
    'ctx.emit(eorRegister(sf, tmp3, r0, tmp2));',
    'ctx.emit(eorRegister(1, tmp3, r0, tmp2));',
    '6.12',
    'both halves that are compared are zero-extended by the instructions in front',
  ],
  ['LL/SC: no barrier', 'atomics.ts', '  ctx.emit(dmbIsh());\n', ''],
  [
    'LL/SC: retries from the store',
    'atomics.ts',
    '    return ctx.emit(cbnz(0, tmp3, -3));',
    '    return ctx.emit(cbnz(0, tmp3, -1));',
    '6.12',
    'the store-exclusive of a single CPU without interrupts never fails, nothing is retried',
  ],
  [
    '7.3: far address is subtracted the wrong way',
    'atomics.ts',
    'ctx.emit(subImmediate(1, tmp1, register, -off));',
    'ctx.emit(addImmediate(1, tmp1, register, -off));',
    '7.3',
  ],
  [
    '7.3: load_acquire of the wrong size',
    'atomics.ts',
    'ldar(size, ctx.reg(slot.dst), address)',
    'ldar(size === 0 ? 1 : size, ctx.reg(slot.dst), address)',
    '7.3',
  ],
]);

const CALLS = faults('calls', '6.12', [
  ['result is not taken', 'calls.ts', 'ctx.move(1, r0, 0);', 'ctx.move(1, 0, 0);'],
  ['result is taken in 32 bits', 'calls.ts', 'ctx.move(1, r0, 0);', 'ctx.move(0, r0, 0);'],
  [
    'call of the first function always',
    'calls.ts',
    'const address = ctx.entries[index];',
    'const address = ctx.entries[0];',
  ],
  [
    'address of a call without its upper bits',
    'constants.ts',
    '    movk(1, rd, block(32n), 32),\n',
    '',
  ],
  ['BL one word off', 'calls.ts', '/ 4));\n    return;', '/ 4 + 1));\n    return;'],
  ['range of BL is one word too long', 'calls.ts', 'offset < REACH', 'offset <= REACH', 'edge'],
  [
    'range of BL at the lower end is one word short',
    'calls.ts',
    'offset >= -REACH',
    'offset > -REACH',
    'edge',
    "the long form of the call does the same; images equal the kernel's in test/jit",
  ],
  [
    'the CPU number is read from the wrong place',
    'calls.ts',
    'ctx.emit(loadImmediate(2, false, r0, tmp1, offset));',
    'ctx.emit(loadImmediate(2, false, r0, tmp1, offset + 4));',
    '6.12',
  ],
]);

const TAIL_CALLS = faults('tail calls', '6.12', [
  [
    'index is not checked',
    'tail-call.ts',
    "code.patch(hole, bCond('cs', code.length - hole))",
    "code.patch(hole, bCond('cs', 1))",
  ],
  [
    'index may be one too large',
    'tail-call.ts',
    "bCond('cs', code.length - hole)",
    "bCond('hi', code.length - hole)",
  ],
  [
    '34 tail calls',
    'tail-call.ts',
    'export const MAX_TAIL_CALL_CNT = 33;',
    'export const MAX_TAIL_CALL_CNT = 34;',
  ],
  [
    'count is not stored',
    'tail-call.ts',
    '  ctx.emit(storeImmediate(3, tmp3, tailCallCount, 0));\n',
    '',
  ],
  ['stack is not released', 'tail-call.ts', '  releaseStack(ctx);\n', ''],
  ['saved registers stay on the stack', 'tail-call.ts', '  popCallee(ctx);\n', ''],
  [
    'lands two instructions early',
    'tail-call.ts',
    'return ctx.profile.tailCallEntry + (pac ? 1 : 0) + (bti ? 1 : 0);',
    'return ctx.profile.tailCallEntry + (pac ? 1 : 0) + (bti ? 1 : 0) - 2;',
  ],
  [
    'empty slot is entered',
    'tail-call.ts',
    'code.patch(empty, cbz(1, ctx.registers.tmp2, code.length - empty));',
    'code.patch(empty, cbz(1, ctx.registers.tmp2, 1));',
  ],
  [
    '6.1: stack is not released',
    'tail-call.ts',
    '  ctx.emit(addImmediate(1, SP, SP, ctx.stackSize));\n',
    '',
    '6.1',
  ],
]);

const FRAME = faults('frame', '6.12', [
  [
    'R9 is not saved',
    'frame.ts',
    'const used = [6, 7, 8, 9, BPF_REG_FP]',
    'const used = [6, 7, 8, BPF_REG_FP]',
  ],
  [
    'registers are restored in the order of saving',
    'frame.ts',
    'calleePairs(ctx).toReversed()',
    'calleePairs(ctx)',
  ],
  [
    'R10 is below the stack',
    'frame.ts',
    '  } else if (ctx.fpUsed) {\n    ctx.move(1, fp, SP);\n  }',
    '  } else if (ctx.fpUsed) {\n    ctx.emit(subImmediate(1, fp, SP, 16));\n  }',
  ],
  [
    'stack is not rounded up',
    'context.ts',
    'this.stackSize = Math.ceil(fn.stackDepth / 16) * 16;',
    'this.stackSize = Math.floor(fn.stackDepth / 16) * 16;',
  ],
  [
    'a subprogram counts tail calls for itself',
    'frame.ts',
    'push(ctx, tailCallCount, tailCallCount);',
    'push(ctx, ZR, tailCallCount);\n      ctx.move(1, tailCallCount, SP);',
  ],
  ['result is not moved to x0', 'frame.ts', '  ctx.move(1, 0, ctx.reg(0));\n', ''],
  [
    'frame pointer of the caller is not restored',
    'frame.ts',
    'pop(ctx, ZR, ctx.registers.tailCallCount);',
    'pop(ctx, ctx.registers.tailCallCount, ZR);',
  ],
  ['6.1: x21 and x22 are not saved', 'frame-6.1.ts', '  [21, 22],\n', '  [23, 24],\n', '6.1'],
  [
    '6.1: the count is not cleared',
    'frame-6.1.ts',
    'ctx.emit(movz(1, tailCallCount, 0, 0));',
    'ctx.emit(movz(1, tailCallCount, 1, 0));',
    '6.1',
  ],
]);

const PLT = faults('plt and poke', 'trampolines 6.12', [
  [
    'PLT is not aligned',
    'plt.ts',
    'if (code.length % 2 !== 0) code.emit(nop());',
    '',
    'trampolines 6.12',
    'an aligned quad is written at once: no other CPU reads half of it; here is no other CPU',
  ],
  [
    'dummy trampoline does not go back',
    'plt.ts',
    'move(SCRATCH, LR), move(LR, 9), ret(SCRATCH)',
    'move(SCRATCH, LR), move(LR, 9), ret(9)',
    'trampolines 6.12',
    'only a CPU that is between the two steps of a text poke runs it',
  ],
  ['poke site is the first word', 'poke.ts', 'return bti ? 2 : 1;', 'return bti ? 2 : 0;'],
  [
    'far target is not written',
    'poke.ts',
    'if (far(newAddress)) written = pltWrite(newAddress);',
    'if (far(newAddress)) written = pltWrite(request.dummyTramp);',
  ],
  [
    "far call goes to the PLT's literal",
    'poke.ts',
    'far(target) ? plt : target',
    'far(target) ? plt + 8n : target',
  ],
  ['jump instead of call at the entry', 'poke.ts', "type === 'call')", "type === 'jump')"],
]);

const TRAMPOLINE_FILE = 'trampoline.ts';
const TRAMPOLINES = faults('trampoline', 'trampolines 6.12', [
  [
    'argument count is one less',
    TRAMPOLINE_FILE,
    'const count = BigInt(frame.argumentSlots);',
    'const count = BigInt(Math.max(0, frame.argumentSlots - 1));',
  ],
  [
    'arguments are saved 8 bytes higher',
    TRAMPOLINE_FILE,
    'this.#store(slot, frame.args + 8 * slot);',
    'this.#store(slot, frame.args + 8 * slot + 8);',
  ],
  [
    'the second half of a structure is not saved',
    'trampoline-model.ts',
    'return Math.ceil(argument.size / 8);',
    'return Math.floor((argument.size + 6) / 8) || 1;',
  ],
  ['x19 is not restored', TRAMPOLINE_FILE, 'this.#load(PROGRAM, frame.x19);', ''],
  [
    'x20 is saved over x19',
    TRAMPOLINE_FILE,
    'this.#store(START, frame.x20);',
    'this.#store(START, frame.x19);',
  ],
  [
    'a program that is not entered runs',
    TRAMPOLINE_FILE,
    'code.patch(skip, cbz(1, 0, code.length - skip));',
    'code.patch(skip, nop());',
    'trampolines 6.12',
    'no case is entered while it runs, so enter() never gives 0; test/kernel/enter-exit.test.ts has such programs',
  ],
  [
    'cookie of the one before stays',
    TRAMPOLINE_FILE,
    'this.#store(cookie === 0n ? ZR : TMP, frame.runCtx);',
    'if (cookie !== 0n) this.#store(TMP, frame.runCtx);',
  ],
  [
    'ctx points at the count',
    TRAMPOLINE_FILE,
    'this.#emit(addImmediate(1, 0, SP, frame.args));',
    'this.#emit(addImmediate(1, 0, SP, frame.nregs));',
  ],
  [
    'result of fentry is kept',
    TRAMPOLINE_FILE,
    "this.#invokeAll('fentry', this.#has('RET_FENTRY_RET'), 0n);",
    "this.#invokeAll('fentry', true, 0n);",
    'trampolines 6.12',
    'what fmod_ret and the original return is stored over it before anybody looks',
  ],
  [
    'result of fmod_ret is lost',
    TRAMPOLINE_FILE,
    'this.#invoke(`fmod_ret ${index}`, link, true);',
    'this.#invoke(`fmod_ret ${index}`, link, false);',
  ],
  [
    'fmod_ret does not begin with 0',
    TRAMPOLINE_FILE,
    "code.label('clear return value');\n    this.#store(ZR, frame.retval);",
    "code.label('clear return value');",
  ],
  [
    'a changed return value does not skip',
    TRAMPOLINE_FILE,
    'code.patch(hole, cbnz(1, retval, code.length - hole));',
    'code.patch(hole, cbz(1, retval, code.length - hole));',
  ],
  [
    'arguments are not restored before the original',
    TRAMPOLINE_FILE,
    '    this.#restoreArguments();\n    this.#copyStackArguments(0, false);',
    '    this.#copyStackArguments(0, false);',
  ],
  [
    'the original returns one instruction late',
    TRAMPOLINE_FILE,
    'this.#emit(adr(LR, 8));',
    'this.#emit(adr(LR, 12));',
  ],
  [
    'return value is not kept',
    TRAMPOLINE_FILE,
    "code.label('keep return value');\n      this.#store(0, frame.retval);",
    "code.label('keep return value');",
  ],
  [
    'return value is not given back',
    TRAMPOLINE_FILE,
    '      this.#load(0, frame.retval);\n    }\n    this.#leave();',
    '    }\n    this.#leave();',
  ],
  [
    'registers are not restored after fentry',
    TRAMPOLINE_FILE,
    "if (this.#has('RESTORE_REGS')) this.#restoreArguments();",
    '',
  ],
  [
    'returns to the function twice',
    TRAMPOLINE_FILE,
    "if (this.#has('SKIP_FRAME')) {",
    "if (this.#has('SHARE_IPMODIFY')) {",
  ],
  [
    'parent address is lost',
    TRAMPOLINE_FILE,
    'this.#emit(stpPreIndex(FP, 9, SP, -16));',
    'this.#emit(stpPreIndex(FP, LR, SP, -16));',
  ],
  [
    'run context overlaps the count',
    'trampoline-frame.ts',
    'const runCtx = take(RUN_CTX_SIZE);',
    'const runCtx = take(8);',
  ],
  [
    'address of the function is not below the count',
    'trampoline-frame.ts',
    '  const ip = flags & TRAMP_FLAGS.IP_ARG ? take(8) : undefined;\n  const nregs = take(8);',
    '  const nregs = take(8);\n  const ip = flags & TRAMP_FLAGS.IP_ARG ? take(8) : undefined;',
  ],
  [
    'frame too small',
    'trampoline-frame.ts',
    'const stackSize = alignUp(offset, 16);',
    'const stackSize = alignUp(offset - 16, 16);',
  ],
  [
    '7.3: stack arguments are read below the frame records',
    TRAMPOLINE_FILE,
    'let from = this.#structOps ? 16 : 32;',
    'let from = this.#structOps ? 16 : 16;',
    'trampolines 7.3',
  ],
  [
    '7.3: unused bytes are not cleared',
    TRAMPOLINE_FILE,
    'if (clean && i === slots - 1 && used !== 0) {',
    'if (clean && i === slots && used !== 0) {',
    'trampolines 7.3',
  ],
  [
    '7.3: unused bytes: one too few',
    TRAMPOLINE_FILE,
    'this.#emit(lslImmediate(1, TMP, TMP, 64 - 8 * used));',
    'this.#emit(lslImmediate(1, TMP, TMP, 56 - 8 * used));',
    'trampolines 7.3',
  ],
  [
    '7.3: stack arguments are not passed on',
    TRAMPOLINE_FILE,
    '    this.#copyStackArguments(0, false);\n',
    '',
    'trampolines 7.3',
  ],
  [
    '7.3: sessions do not know that they return',
    TRAMPOLINE_FILE,
    "if (this.#sessions) this.#storeCount('mark the return', IS_RETURN);",
    '',
    'trampolines 7.3',
  ],
  [
    '7.3: an argument that does not fit goes half into a register',
    'trampoline-model.ts',
    'if (registers + argumentSlots(argument) > 8) break;',
    'if (registers + argumentSlots(argument) > 9) break;',
    'trampolines 7.3',
  ],
]);

export const FAULTS: readonly Fault[] = [
  ...ALU,
  ...IMMEDIATES,
  ...JUMPS,
  ...MEMORY,
  ...ATOMICS,
  ...CALLS,
  ...TAIL_CALLS,
  ...FRAME,
  ...PLT,
  ...TRAMPOLINES,
];
