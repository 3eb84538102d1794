/**
 * JSON as bpftool writes it, compact or "pretty".
 *
 * Reference: tools/bpf/bpftool/json_writer.c. Its pretty form puts each member of an object on a line
 * of its own, but the values of an array behind each other, closing bracket on a new line. Numbers of
 * any size and 0x numbers are texts here, written as they are.
 */

export type JsonTree =
  /** Written as it is: a number, or text with its quotes. */
  | { readonly kind: 'literal'; readonly text: string }
  | { readonly kind: 'array'; readonly items: readonly JsonTree[] }
  | { readonly kind: 'object'; readonly members: readonly (readonly [string, JsonTree])[] };

export const literal = (text: string): JsonTree => ({ kind: 'literal', text });
export const quoted = (text: string): JsonTree => literal(JSON.stringify(text));
export const arrayOf = (items: readonly JsonTree[]): JsonTree => ({ kind: 'array', items });
export const objectOf = (members: readonly (readonly [string, JsonTree])[]): JsonTree => ({
  kind: 'object',
  members,
});

export function writeJson(tree: JsonTree, pretty: boolean, depth = 0): string {
  const line = (levels: number): string => (pretty ? `\n${'    '.repeat(levels)}` : '');
  switch (tree.kind) {
    case 'literal':
      return tree.text;
    case 'array': {
      if (tree.items.length === 0) return '[]';
      const items = tree.items.map((item) => writeJson(item, pretty, depth + 1));
      return `[${items.join(',')}${line(depth)}]`;
    }
    case 'object': {
      if (tree.members.length === 0) return '{}';
      const colon = pretty ? ': ' : ':';
      const members = tree.members.map(
        ([name, value]) =>
          `${line(depth + 1)}${JSON.stringify(name)}${colon}${writeJson(value, pretty, depth + 1)}`,
      );
      return `{${members.join(',')}${line(depth)}}`;
    }
  }
}
