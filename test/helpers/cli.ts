/** Runs a command line in this process and collects what it prints. */
import { runCommandLine } from '../../src/cli/dispatch.js';

export interface CommandResult {
  readonly code: number;
  /** Lines of stdout, trailing blanks removed. */
  readonly lines: readonly string[];
  /** Lines of stderr. */
  readonly notices: readonly string[];
  readonly bytes: Uint8Array;
}

export async function runForTest(words: readonly string[]): Promise<CommandResult> {
  const lines: string[] = [];
  const notices: string[] = [];
  const chunks: Uint8Array[] = [];
  const code = await runCommandLine(words, {
    line: (text = '') => lines.push(...text.split('\n').map((line) => line.trimEnd())),
    notice: (text) => notices.push(text),
    bytes: (data) => chunks.push(data),
    colour: false,
  });
  return { code, lines, notices, bytes: Buffer.concat(chunks) };
}
