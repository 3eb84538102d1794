import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { hexToBytes } from '../../src/common/bytes.js';
import { EmbeddedCpu } from '../../src/cpu/embedded/cpu.js';
import { Memory } from '../../src/cpu/memory.js';
import { poke, STACK_TOP } from './embedded-machine.js';

interface Image {
  readonly name: string;
  readonly kernel: string;
  readonly image_base: string;
  readonly words: string;
  readonly ctx_addr: string;
  readonly ctx: string;
  readonly r0: string;
}

const images = readFileSync(new URL('../vectors/a64/exec.jsonl', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Image);

const RETURN = 0x1000n;

test.each(images.map((image) => [`${image.kernel} ${image.name}`, image] as const))(
  '%s returns what it returned on arm64',
  (_, image) => {
    const base = BigInt(image.image_base);
    const context = BigInt(image.ctx_addr);
    const words = (image.words.match(/.{8}/g) ?? []).map((word) => parseInt(word, 16));
    const bytes = hexToBytes(image.ctx);
    const memory = new Memory(1 << 20);
    memory.map({ name: 'image', address: base, size: 4 * words.length, permissions: 'rx' });
    memory.map({ name: 'ctx', address: context, size: bytes.length, permissions: 'rw' });
    memory.map({ name: 'stack', address: STACK_TOP - 8192n, size: 8192, permissions: 'rw' });
    poke(memory, base, words);
    memory.writeBytes(context, bytes);
    const cpu = new EmbeddedCpu(memory);
    cpu.setX(0, context);
    cpu.setX(30, RETURN);
    cpu.sp = STACK_TOP;
    cpu.pc = base;
    expect(cpu.run({ until: RETURN, budget: 1_000_000 })).toEqual({ kind: 'until' });
    expect(cpu.getX(0)).toBe(BigInt(`0x${image.r0}`));
    expect(cpu.sp).toBe(STACK_TOP);
  },
);
