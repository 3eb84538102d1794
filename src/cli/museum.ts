/** `trampolab museum`: historical bugs, as they were and as they were fixed. */
import { EXHIBITS, UsageError, visit, type Visit } from '../index.js';
import { bootLab } from '../node/index.js';
import { parseOptions, type Command, type Output } from './command.js';

const USAGE = `museum [N]
  N            number of an exhibit: what happened, and both runs of it; default: a line for each
  --json, -j   as JSON`;

const WIDTH = 96;

/** Text in lines of at most WIDTH characters. */
function wrapped(text: string): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= WIDTH) {
      lines[lines.length - 1] = `${last} ${word}`;
    } else {
      lines.push(word);
    }
  }
  return lines;
}

function show(output: Output, { exhibit, broken, fixed }: Visit): void {
  output.line(`#${exhibit.number} ${exhibit.name} (fixed in ${exhibit.fixedIn})`);
  for (const line of wrapped(exhibit.story)) output.line(line);
  for (const [variant, { lines, right }] of Object.entries({ broken, fixed })) {
    output.line();
    output.line(`${variant}: ${right ? 'right' : 'wrong'}`);
    for (const line of lines) output.line(`  ${line}`);
  }
}

function toJson({ exhibit, broken, fixed, ok }: Visit): object {
  const { number, name, wing, fixedIn, story } = exhibit;
  return { number, name, wing, fixed_in: fixedIn, story, broken, fixed, ok };
}

async function museumCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, { json: { type: 'boolean', short: 'j' } });
  const [wanted, surplus] = positionals;
  if (surplus !== undefined) throw new UsageError(`unexpected '${surplus}'`);
  const exhibits = EXHIBITS.filter(
    ({ number }) => wanted === undefined || String(number) === wanted.replace(/^#/, ''),
  );
  if (exhibits.length === 0) {
    const numbers = EXHIBITS.map(({ number }) => number).join(', ');
    throw new UsageError(`no exhibit '${wanted}' (there are ${numbers})`);
  }
  const visits: Visit[] = [];
  for (const exhibit of exhibits) {
    const seen = await visit(exhibit, bootLab);
    visits.push(seen);
    if (values.json) continue;
    if (wanted !== undefined) show(output, seen);
    else output.line(`#${exhibit.number} ${exhibit.name}:${seen.ok ? 'OK' : 'FAIL'}`);
  }
  const passed = visits.filter(({ ok }) => ok).length;
  if (values.json) output.line(JSON.stringify(visits.map(toJson)));
  else if (wanted === undefined) {
    output.line(`Summary: ${passed} PASSED, 0 SKIPPED, ${visits.length - passed} FAILED`);
  }
  return passed === visits.length ? 0 : 1;
}

export const museum: Command = {
  name: 'museum',
  summary: 'historical bugs of JIT, patching and networking, each broken and fixed',
  usage: USAGE,
  run: museumCommand,
};
