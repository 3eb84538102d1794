/**
 * Control flow for what structure does not fit: irreducible functions, and ones so large that an
 * engine would refuse them or take minutes.
 *
 * Blocks in order are cut into chunks, each a wasm function (block, depth) -> block. Inside, a
 * `br_table` in a loop goes to the block, jumps forward are plain branches, jumps back go through the
 * table. A jump out of a chunk puts the registers into the state and returns where to go on; a driver
 * calls the next chunk through the table until one gives -1. A block is numbered chunk << 12 | index.
 */
import type { Slot } from '../instruction.js';
import { OPCODES } from '../opcodes.js';
import { emitCondition } from './alu.js';
import { emitBlock, emitFuelCheck } from './block.js';
import type { FunctionContext, FunctionPlan } from './context.js';
import { OP } from './emitter.js';
import type { Block } from './flow.js';
import { ALL_REGISTERS, emitFuelStore, emitSpill } from './registers.js';

const CHUNK_BITS = 12;
const CHUNK_BLOCKS = 1024;
const CHUNK_SLOTS = 4096;

/** Blocks `first` to `end - 1`. */
export interface Chunk {
  readonly first: number;
  readonly end: number;
}

export function cutChunks({ flow }: FunctionPlan): Chunk[] {
  const chunks: Chunk[] = [];
  let first = 0;
  let slots = 0;
  for (const [index, { start, end }] of flow.blocks.entries()) {
    const isFull = slots + end - start > CHUNK_SLOTS || index - first >= CHUNK_BLOCKS;
    if (isFull && index > first) {
      chunks.push({ first, end: index });
      first = index;
      slots = 0;
    }
    slots += end - start;
  }
  chunks.push({ first, end: flow.blocks.length });
  return chunks;
}

/** The number of a block outside its chunk. */
function globalNumber(chunks: readonly Chunk[], block: number): number {
  let low = 0;
  let high = chunks.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if ((chunks[middle] as Chunk).first <= block) low = middle;
    else high = middle - 1;
  }
  return (low << CHUNK_BITS) | (block - (chunks[low] as Chunk).first);
}

export const RETURNED = -1;

/** The body of a chunk; the caller has filled the registers. */
export function emitChunk(
  context: FunctionContext,
  chunks: readonly Chunk[],
  { first, end }: Chunk,
): void {
  const { code, locals, plan } = context;
  const { blocks } = plan.flow;
  const again = code.open(OP.loop);
  const labels = new Int32Array(end - first);
  for (let block = end - 1; block >= first; block--) labels[block - first] = code.open(OP.block);
  code
    .get(locals.next)
    .i32((1 << CHUNK_BITS) - 1)
    .op(OP.i32_and);
  code.op(OP.br_table).u32(end - first - 1);
  for (let at = 0; at < end - first; at++) code.u32(at);
  for (let index = first; index < end; index++) {
    code.end();
    const block = blocks[index] as Block;
    const go = (to: number): void => {
      if (to <= index) emitFuelCheck(context, (blocks[to] as Block).start, 0);
      if (to < first || to >= end) {
        emitSpill(context, ALL_REGISTERS);
        emitFuelStore(context);
        code.i32(globalNumber(chunks, to)).op(OP.return);
      } else if (to > index) code.branch(labels[to - first] as number);
      else
        code
          .i32(to - first)
          .set(locals.next)
          .branch(again);
    };
    const jump = emitBlock(context, block);
    if (jump >= 0 && block.taken !== block.next) emitJump(context, jump, () => go(block.taken));
    const onward = block.next >= 0 ? block.next : block.taken;
    if (onward >= 0 && (onward !== index + 1 || onward >= end)) go(onward);
  }
  code.end().op(OP.unreachable);
}

function emitJump({ code, locals, plan }: FunctionContext, insn: number, go: () => void): void {
  const slot = plan.slots[insn] as Slot;
  const opcode = OPCODES[slot.code];
  if (opcode?.kind !== 'jump') throw new RangeError(`${plan.name} insn ${insn}: no jump`);
  emitCondition(code, locals.registers, slot, opcode);
  code.open(OP.if);
  go();
  code.end();
}

/** The driver's loop; `table` is the table index of the first chunk. Leaves with all registers spilled. */
export function emitDriver({ code, locals, program }: FunctionContext, table: number): void {
  const again = code.open(OP.loop);
  code.get(locals.next).get(locals.depth);
  code.get(locals.next).i32(CHUNK_BITS).op(OP.i32_shr_u).i32(table).op(OP.i32_add);
  code.callIndirect(program.chunkType).tee(locals.next);
  code.i32(RETURNED).op(OP.i32_ne).branch(again, OP.br_if);
  code.end();
}
