/**
 * Structured control flow for a reducible function: loops and blocks, no dispatch.
 *
 * Every block is written inside its immediate dominator: at the place where control gets there when
 * one edge leads to it, behind a wasm `block` when several do; a loop header opens a `loop`. Reference:
 * Ramsey, "Beyond Relooper: recursive translation of unstructured control flow to structured control
 * flow" (ICFP 2022), here with a stack of what is left to write instead of recursion.
 */
import type { Slot } from '../instruction.js';
import { OPCODES } from '../opcodes.js';
import { emitCondition } from './alu.js';
import { emitBlock, emitFuelCheck } from './block.js';
import type { FunctionContext } from './context.js';
import { OP } from './emitter.js';
import type { Block } from './flow.js';

export function emitStructured(context: FunctionContext): void {
  new StructuredWriter(context).write();
}

/**
 * A task: the end of a construct, a block with what it dominates (its number), or the fall-through of a block
 * (its number behind those of all blocks).
 */
const END = -1;

class StructuredWriter {
  readonly #context: FunctionContext;
  /** What is left to write, the next one last. */
  readonly #left: number[] = [];
  /** Several forward edges lead there. */
  readonly #isMerge: Uint8Array;
  /** Merges by immediate dominator, the last one first. */
  readonly #merges: (number[] | undefined)[];
  readonly #blockLabels: Int32Array;
  readonly #loopLabels: Int32Array;

  constructor(context: FunctionContext) {
    this.#context = context;
    const { blocks, predecessors, dominator } = context.plan.flow;
    this.#isMerge = new Uint8Array(blocks.length);
    this.#merges = Array.from({ length: blocks.length });
    this.#blockLabels = new Int32Array(blocks.length);
    this.#loopLabels = new Int32Array(blocks.length);
    for (let block = blocks.length - 1; block > 0; block--) {
      let forward = 0;
      for (const from of predecessors[block] as readonly number[]) if (from < block) forward++;
      if (forward < 2) continue;
      this.#isMerge[block] = 1;
      (this.#merges[dominator[block] as number] ??= []).push(block);
    }
  }

  write(): void {
    this.#tree(0);
    const { code, plan } = this.#context;
    const { length } = plan.flow.blocks;
    for (let task = this.#left.pop(); task !== undefined; task = this.#left.pop()) {
      if (task === END) code.end();
      else if (task < length) this.#tree(task);
      else this.#branch(task - length, (plan.flow.blocks[task - length] as Block).next);
    }
    code.op(OP.unreachable);
  }

  /** A block and all that it dominates. */
  #tree(block: number): void {
    const { code, plan } = this.#context;
    if (plan.flow.isHeader[block] === 1) {
      this.#loopLabels[block] = code.open(OP.loop);
      this.#left.push(END);
    }
    for (const merge of this.#merges[block] ?? []) {
      this.#blockLabels[merge] = code.open(OP.block);
      this.#left.push(merge, END);
    }
    this.#body(block);
  }

  #body(index: number): void {
    const context = this.#context;
    const { code, locals, plan } = context;
    const block = plan.flow.blocks[index] as Block;
    if (block.resumes.length > 0) {
      this.#resume(index, block);
      return;
    }
    const jump = emitBlock(context, block);
    if (jump < 0) {
      const to = block.next >= 0 ? block.next : block.taken;
      if (to >= 0) this.#branch(index, to);
      return;
    }
    const { taken, next } = block;
    if (taken === next) {
      this.#branch(index, next);
      return;
    }
    const slot = plan.slots[jump] as Slot;
    const opcode = OPCODES[slot.code];
    if (opcode?.kind !== 'jump') throw new RangeError(`${plan.name} insn ${jump}: no jump`);
    emitCondition(code, locals.registers, slot, opcode);
    if (this.#isPlain(index, taken)) {
      code.branch(this.#blockLabels[taken] as number, OP.br_if);
      this.#branch(index, next);
    } else if (this.#isPlain(index, next) && taken > index) {
      code.op(OP.i32_eqz).branch(this.#blockLabels[next] as number, OP.br_if);
      this.#branch(index, taken);
    } else {
      code.open(OP.if);
      this.#left.push(index + plan.flow.blocks.length, END);
      this.#branch(index, taken);
    }
  }

  /** A branch and nothing else. */
  #isPlain(from: number, to: number): boolean {
    return to > from && this.#isMerge[to] === 1;
  }

  #branch(from: number, to: number): void {
    const { code, plan } = this.#context;
    if (to <= from) {
      const { start, loop } = plan.flow.blocks[to] as Block;
      emitFuelCheck(this.#context, start, loop);
      code.branch(this.#loopLabels[to] as number);
    } else if (this.#isMerge[to] === 1) code.branch(this.#blockLabels[to] as number);
    else this.#tree(to);
  }

  /** Where a resumed run finds its loop. */
  #resume(index: number, block: Block): void {
    const { code, locals, plan } = this.#context;
    const { resume } = locals;
    const straight = code.open(OP.block);
    code.get(resume).op(OP.i32_eqz).branch(straight, OP.br_if);
    for (const { first, count, to } of block.resumes) {
      code.get(resume).i32(first).op(OP.i32_sub).i32(count).op(OP.i32_lt_u);
      code.open(OP.if);
      if ((plan.flow.blocks[to] as Block).resumes.length === 0) code.i32(0).set(resume);
      code.branch(this.#blockLabels[to] as number);
      code.end();
    }
    code.i32(0).set(resume).end();
    this.#branch(index, block.next);
  }
}
