/** Reads `--own FILE`: a user's own strategy and the texts beside it. */
import { dirname, join } from 'node:path';
import {
  Assembler,
  ownStrategy,
  parseOwnStrategy,
  type OwnStrategy,
  type Strategy,
} from '../index.js';
import { readInput } from '../node/index.js';

export interface OwnInput {
  readonly own: OwnStrategy;
  /** Texts by the names that the file has for them. */
  readonly texts: Readonly<Record<string, string>>;
  readonly assembler: Assembler;
}

export async function readOwn(path: string): Promise<OwnInput> {
  const text = (file: string): string => new TextDecoder().decode(readInput(file));
  const own = parseOwnStrategy(path, text(path));
  const texts = Object.fromEntries(own.text.map((name) => [name, text(join(dirname(path), name))]));
  return { own, texts, assembler: await Assembler.create() };
}

export async function ownRow(path: string): Promise<Strategy> {
  const { own, texts, assembler } = await readOwn(path);
  return ownStrategy(own, texts, assembler);
}
