/**
 * Program records (prog-op, prog-random, prog-multi, prog-real): our images against the kernel's.
 */
import { hex32, hexToBytes } from '../../common/bytes.js';
import { disassembleSlot } from '../../bpf/disassemble.js';
import { readSlots } from '../../bpf/instruction.js';
import type { ExtableEntry, JitFunctionInput } from '../context.js';
import { compile, type JitImage, type JitInput, type JitProgram } from '../program.js';
import type { StructOffsets } from '../profile.js';
import { compareValues, compareWords } from './compare.js';
import type { Fields } from './fields.js';
import { HARNESS, KERNELS, readConfig, VECTOR_OFFSETS } from './harness.js';

/** The JIT's input of a program record. */
export function programInput(record: Fields): JitInput {
  const name = record.text('name');
  const functions = record.objects('funcs').map((fn, index): JitFunctionInput => {
    const flags = fn.optional('flags', fn.texts) ?? [];
    const privateStack = fn.optional('priv_stack_ptr', fn.address);
    return {
      name: `${name}[${index}]`,
      insns: hexToBytes(fn.text('insns')),
      stackDepth: fn.number(fn.has('stack_depth') ? 'stack_depth' : 'stack_depth_rounded16'),
      exceptionBoundary: flags.includes('exception_boundary'),
      exceptionCallback: flags.includes('exception_cb'),
      ...(privateStack === undefined ? {} : { privateStack }),
      outgoingStackArguments: fn.optional('out_stack_arg_cnt', fn.number) ?? 0,
      indirectTargets: fn.optional('indirect_targets', fn.numbers) ?? [],
    };
  });
  const arena = record.optional('arena', record.object);
  if (arena === undefined) return { functions };
  const kernVmStart = arena.address('kern_vm_start');
  return { functions, arena: { kernVmStart, userVmStart: arena.address('user_vm_start') } };
}

/** Our images of a program record. Throws KernelError for what our JIT refuses. */
export function compileProgramRecord(record: Fields, offsets?: StructOffsets): JitProgram {
  const kernel = record.choice('kernel', KERNELS);
  const structs = offsets ?? VECTOR_OFFSETS[kernel];
  const cpu = record.object('cpu');
  const addresses = record.optional('addr', record.object);
  const bases = record.objects('funcs').map((fn) => fn.address('image_base'));
  return compile(programInput(record), {
    kernel,
    cpu: { lse: cpu.flag('lse'), vhe: cpu.flag('vhe'), sb: cpu.flag('sb') },
    config: readConfig(record),
    offsets: {
      ...structs,
      threadInfoCpu: record.optional('thread_info_cpu_off', record.number) ?? structs.threadInfoCpu,
    },
    callBase: addresses?.address('call_base') ?? HARNESS.callBase,
    ...(kernel === '7.3' && addresses === undefined ? { timedMayGoto: HARNESS.timedMayGoto } : {}),
    dummyTramp: addresses?.address('dummy_tramp') ?? HARNESS.dummyTramp,
    place: (index) => bases[index] ?? 0n,
  });
}

/** What a record tells of running its program: `exec`. */
export interface ExecExpectation {
  /** x0. */
  readonly contextAddress: bigint;
  /** What memory holds there. */
  readonly context: Uint8Array;
  readonly r0: bigint;
}

export function execExpectation(record: Fields): ExecExpectation | undefined {
  const exec = record.optional('exec', record.object);
  return (
    exec && {
      contextAddress: exec.address('ctx_addr'),
      context: hexToBytes(exec.text('ctx')),
      r0: BigInt(`0x${exec.text('r0')}`),
    }
  );
}

export function checkProgram(record: Fields, offsets?: StructOffsets): string | undefined {
  const { functions } = compileProgramRecord(record, offsets);
  for (const [index, fn] of record.objects('funcs').entries()) {
    const image = functions[index];
    const difference = image && compareImage(fn, image);
    if (difference !== undefined) {
      return functions.length === 1 ? difference : `function ${index}: ${difference}`;
    }
  }
  return undefined;
}

function compareImage(fn: Fields, image: JitImage): string | undefined {
  const words = compareWords(fn.words('words'), image.words, image.base);
  if (words !== undefined) {
    return `${words.text}, in ${partOf(image, fn.text('insns'), 4 * words.index)}`;
  }
  const extable = fn.optional('extable', fn.objects);
  return (
    compareValues([
      ['jited_len', fn.number('jited_len'), image.jitedLength],
      ['alloc_size', fn.optional('alloc_size', fn.number), image.allocSize],
      ['prologue_len', fn.optional('prologue_len', fn.number), image.prologueLength],
      ['epilogue_off', fn.optional('epilogue_off', fn.number), image.epilogueOffset],
      ['stack_size', fn.optional('stack_size', fn.number), image.stackSize],
      ['plt_off', fn.optional('plt_off', fn.number), image.pltOffset],
      ['plt_target', fn.optional('plt_target', fn.address), image.pltTarget],
      ['extable_off', fn.optional('extable_off', fn.number), image.extableOffset],
      ['number of extable entries', extable?.length, image.extable.length],
    ]) ??
    compareValues(
      (fn.optional('insn_off', fn.numbers) ?? []).map((offset, index) => {
        return [`offset of insn ${index}`, offset, image.insnOffsets[index]] as const;
      }),
    ) ??
    compareValues(
      (extable ?? []).map((entry, index) => {
        const expected = { ...entryNumbers(entry), fixup: entry.word('fixup') };
        return [`extable[${index}]`, entryText(expected), entryText(image.extable[index])] as const;
      }),
    )
  );
}

function entryNumbers(entry: Fields): Omit<ExtableEntry, 'fixup'> {
  return { insn: entry.number('insn'), type: entry.number('type'), data: entry.number('data') };
}

function entryText(entry: ExtableEntry | undefined): string | undefined {
  return entry && `insn ${entry.insn} fixup ${hex32(entry.fixup)} ${entry.type} ${entry.data}`;
}

/** Which part of the image byte `at` belongs to: `insn 3 (r0 += 7)`, `prologue`. */
function partOf(image: JitImage, insns: string, at: number): string {
  if (at < image.prologueLength) return 'the prologue';
  if (at >= image.pltOffset) return 'the PLT';
  if (at >= image.epilogueOffset) return 'the epilogue';
  let index = 0;
  for (const [slot, offset] of image.insnOffsets.entries()) {
    if (offset <= at && image.insnOffsets[slot + 1] !== offset) index = slot;
  }
  const slots = readSlots(hexToBytes(insns));
  // code of an ld_imm64 ends where its second slot's does
  const first = slots[index - 1]?.code === 0x18 ? index - 1 : index;
  const slot = slots[first];
  return slot ? `insn ${first} (${disassembleSlot(slot, slots[first + 1], first)})` : 'no insn';
}
