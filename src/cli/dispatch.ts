/**
 * From the words of the command line to a command, and from whatever goes wrong to one line and an
 * exit code.
 */
import { KernelOops, UsageError, VerifierError, VERSION, printOops } from '../index.js';
import type { Command, Output } from './command.js';
import { COMMANDS } from './commands.js';

export async function runCommandLine(words: readonly string[], output: Output): Promise<number> {
  const [noun, ...rest] = words;
  if (noun === undefined || noun === 'help' || noun === '--help' || noun === '-h') {
    printOverview(output);
    return noun === undefined ? 2 : 0;
  }
  if (noun === '--version' || noun === '-V') {
    output.line(`trampolab ${VERSION}`);
    return 0;
  }
  const command = COMMANDS.find((each) => each.name === noun);
  const json = rest.includes('--json') || rest.includes('-j');
  try {
    if (!command) throw new UsageError(`no command '${noun}' (see trampolab --help)`);
    if (rest.includes('--help') || rest.includes('-h')) {
      output.line(`usage: trampolab ${command.usage}`);
      return 0;
    }
    return await command.run(rest, output);
  } catch (error) {
    if (error instanceof VerifierError && (rest.includes('--debug') || rest.includes('-d'))) {
      for (const line of error.log) output.notice(line);
    }
    return reportError(error, command, json, output);
  }
}

function reportError(
  error: unknown,
  command: Command | undefined,
  json: boolean,
  output: Output,
): number {
  const message = error instanceof Error ? error.message : String(error);
  if (json) output.line(JSON.stringify({ error: message }));
  else output.notice(`Error: ${message}`);
  if (error instanceof KernelOops && error.oops && !json) output.notice(printOops(error.oops));
  if (!(error instanceof UsageError)) return 1;
  if (command && !json) output.notice(`usage: trampolab ${command.usage.split('\n')[0] ?? ''}`);
  return 2;
}

function printOverview(output: Output): void {
  output.line('usage: trampolab COMMAND [ARGUMENTS]');
  output.line();
  const width = Math.max(...COMMANDS.map((command) => command.name.length));
  for (const command of COMMANDS) {
    output.line(`  ${command.name.padEnd(width)}  ${command.summary}`);
  }
  output.line();
  output.line("'trampolab COMMAND --help' explains one. Exit codes: 0 done, 1 failed, 2 usage.");
}
