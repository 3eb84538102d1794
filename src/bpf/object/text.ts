/**
 * The instructions of an object that is nothing but code: function `main` at the start of `.text`, without
 * maps and relocations. bpf_conformance writes such files.
 */
import { plainBytes } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import { readElf, STT } from './elf.js';

export function textProgram(bytes: Uint8Array): Uint8Array {
  const elf = readElf(plainBytes(bytes));
  const section = elf.sections.find(({ name }) => name === '.text');
  if (!section || section.bytes.length === 0) throw new InputError('object has no code in .text');
  const main = elf.symbols.find(
    (symbol) =>
      symbol.section === section.index && symbol.type === STT.FUNC && symbol.name === 'main',
  );
  if (main?.value !== 0)
    throw new InputError("object has no function 'main' at the start of .text");
  if ((elf.relocations.get(section.index)?.length ?? 0) > 0) {
    throw new InputError('object has relocations in .text');
  }
  return section.bytes.slice();
}
