/**
 * Records of text pokes and of single generated instructions (poke, insngen).
 */
import { branchWord } from '../../a64/immediates.js';
import { hex32 } from '../../common/bytes.js';
import { moveRegisterWord, planTextPoke } from '../poke.js';
import { compareValues, compareWords } from './compare.js';
import type { Fields } from './fields.js';
import { HARNESS, readConfig } from './harness.js';

export function checkPoke(record: Fields): string | undefined {
  const image = { base: record.address('image_base'), jitedLength: record.number('jited_len') };
  const ip = record.address('ip');
  const inside = ip >= image.base && ip < image.base + BigInt(image.jitedLength);
  const { result, patch, pltWrite } = planTextPoke({
    ip,
    type: record.choice('type', ['call', 'jump']),
    oldAddress: record.address('old_addr'),
    newAddress: record.address('new_addr'),
    image: inside ? image : undefined,
    bti: readConfig(record).bti,
    dummyTramp: HARNESS.dummyTramp,
    read: () => record.word('current_word'),
  });
  // what the record does not have must not happen
  const word = record.optional('patched_word', record.word);
  return compareValues([
    ['ret', record.number('ret'), result],
    ['patched_at', record.optional('patched_at', record.address) ?? 0n, patch?.address ?? 0n],
    ['patched_word', word === undefined ? 'none' : hex32(word), patch ? hex32(patch.word) : 'none'],
    [
      'plt_target_at',
      record.optional('plt_target_at', record.address) ?? 0n,
      pltWrite?.address ?? 0n,
    ],
    ['plt_target', record.optional('plt_target', record.address) ?? 0n, pltWrite?.target ?? 0n],
  ]);
}

/** B, BL and MOV (register). */
export function checkInstruction(record: Fields): string | undefined {
  const operation = record.choice('op', ['b', 'bl', 'mov_reg64']);
  const expected = [record.word('word')];
  if (operation === 'mov_reg64') {
    const ours = moveRegisterWord(record.number('rd'), record.number('rn'));
    return compareWords(expected, [ours], 0n)?.text;
  }
  const pc = record.address('pc');
  const ours = branchWord(pc, record.address('target'), operation === 'bl');
  return compareWords(expected, [ours], pc)?.text;
}
