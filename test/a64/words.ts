/** The words of the JIT vectors (test/vectors/a64), and a Capstone that prints single words. */
import { readFileSync } from 'node:fs';
import createCapstone from '@alexaltea/capstone-js';

export function jitWords(): number[] {
  const file = new URL('../vectors/a64/words.txt', import.meta.url);
  return readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => parseInt(line, 16));
}

export async function capstonePrinter(): Promise<(word: number, pc: bigint) => string> {
  const capstone = await createCapstone();
  const handle = new capstone.Capstone(capstone.ARCH_ARM64, capstone.MODE_LITTLE_ENDIAN);
  return (word, pc) => {
    const bytes = new Uint8Array(new Uint32Array([word]).buffer);
    try {
      const [text] = handle.disasm(bytes, pc);
      return text ? `${text.mnemonic} ${text.op_str}`.trim() : 'none';
    } catch {
      return 'none';
    }
  };
}
