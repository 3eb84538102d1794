/** `trampolab dump`: a program as the kernel rewrote it, or as the JIT compiled it. */
import {
  UsageError,
  jitedRecords,
  listJited,
  listXlated,
  xlatedRecords,
  type ListedProgram,
} from '../index.js';
import { bootLab } from '../node/index.js';
import { choiceOption, parseOptions, type Command, type Output } from './command.js';
import { KERNEL_VERSIONS, OBJECT_RAM } from './engine.js';
import { PROGRAM_OPTIONS, PROGRAM_USAGE, programArguments, readProgram } from './program-input.js';

const USAGE = `dump xlated|jited PROG [opcodes] [linum] [--program NAME] [--kernel V] [--json]
  xlated            the instructions that all engines run, as bpftool prints them
  jited             source line, BPF instruction and arm64 instructions together
  opcodes           with the bytes (jited: words) of each instruction
  linum             with file, line and column of source lines
${PROGRAM_USAGE}
  --kernel V        whose verifier and JIT: 6.1, 6.12 (default) or 7.3
  --json, -j        as JSON`;

const FORMS = ['xlated', 'jited'] as const;
const KEYWORDS = ['opcodes', 'linum'] as const;

async function dumpCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    ...PROGRAM_OPTIONS,
    kernel: { type: 'string' },
    json: { type: 'boolean', short: 'j' },
  });
  const form = FORMS.find((each) => each === positionals[0]);
  if (!form) {
    const [given] = positionals;
    const not = given === undefined ? '' : `, not '${given}'`;
    throw new UsageError(`dump takes ${FORMS.join('|')}${not}`);
  }
  const files = values.hex === undefined ? 1 : 0;
  const path = files === 1 ? positionals[1] : undefined;
  const words = positionals.slice(1 + files);
  const strange = words.find((word) => !KEYWORDS.some((known) => known === word));
  if (strange !== undefined) {
    throw new UsageError(`dump takes ${KEYWORDS.join(' and ')} behind PROG, not '${strange}'`);
  }
  const version = choiceOption('kernel', values.kernel, '6.12', KERNEL_VERSIONS);
  const options = {
    opcodes: words.includes('opcodes'),
    linum: words.includes('linum'),
    kernel: version,
  };
  const kernel = await bootLab({ version, vmallocRam: OBJECT_RAM });
  try {
    const { xlated, maps, object, program } = readProgram(kernel, programArguments(values, path));
    const { host } = kernel.bpf;
    const listed: ListedProgram = { xlated, maps, host, program, btf: object?.spec.btf };
    if (values.json) {
      const records =
        form === 'xlated' ? xlatedRecords(listed, options) : jitedRecords(kernel, listed, options);
      output.line(JSON.stringify(records));
      return 0;
    }
    const lines =
      form === 'xlated' ? listXlated(listed, options) : listJited(kernel, listed, options);
    for (const line of lines) output.line(line);
    return 0;
  } finally {
    kernel.close();
  }
}

export const dump: Command = {
  name: 'dump',
  summary: 'what the kernel makes of a program: xlated, or its arm64 image',
  usage: USAGE,
  run: dumpCommand,
};
