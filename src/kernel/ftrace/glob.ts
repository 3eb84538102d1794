/**
 * Patterns of set_ftrace_filter: `foo`, `foo*`, `*foo`, `*foo*`, `a*b` with `?` and `[a-z]`, and `!` in front of
 * any.
 *
 * Reference: kernel/trace/trace_events_filter.c: filter_parse_regex; lib/glob.c: glob_match. Left out: numbers of
 * lines (MATCH_INDEX), `:mod:`, commands like `:traceon`.
 */

export interface FilterPattern {
  /** `!`: what matches is taken out. */
  readonly negated: boolean;
  readonly matches: (name: string) => boolean;
}

export function parseFilterPattern(text: string): FilterPattern {
  const negated = text.startsWith('!');
  const glob = negated ? text.slice(1) : text;
  return { negated, matches: matcherOf(glob) };
}

function matcherOf(glob: string): (name: string) => boolean {
  const inner = glob.replace(/^\*/, '').replace(/\*$/, '');
  if (/[*?[\\]/.test(inner)) {
    const pattern = globPattern(glob);
    return (name) => pattern.test(name);
  }
  const [atStart, atEnd] = [glob.startsWith('*'), glob.endsWith('*')];
  if (atStart && atEnd) return (name) => name.includes(inner);
  if (atStart) return (name) => name.endsWith(inner);
  if (atEnd) return (name) => name.startsWith(inner);
  return (name) => name === glob;
}

function globPattern(glob: string): RegExp {
  let source = '';
  for (let at = 0; at < glob.length; at++) {
    const character = glob[at] as string;
    const end = character === '[' ? glob.indexOf(']', at + 2) : -1;
    if (character === '*') source += '.*';
    else if (character === '?') source += '.';
    else if (end > 0) {
      source += `[${glob
        .slice(at + 1, end)
        .replace(/^!/, '^')
        .replace(/[\\\]]/g, '\\$&')}]`;
      at = end;
    } else if (character === '\\' && at + 1 < glob.length) {
      source += escape(glob[++at] as string);
    } else source += escape(character);
  }
  return new RegExp(`^${source}$`, 's');
}

function escape(character: string): string {
  return character.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&');
}
