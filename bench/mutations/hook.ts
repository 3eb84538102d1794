/** Loader hook: gives one module another source. Registered with the module's URL and that source. */
interface Replacement {
  readonly url: string;
  readonly source: string;
}

interface Loaded {
  readonly format: string;
  readonly source: string;
  readonly shortCircuit: boolean;
}

let replacement: Replacement | undefined;

export function initialize(data: Replacement): void {
  replacement = data;
}

export async function load(
  url: string,
  context: unknown,
  nextLoad: (url: string, context: unknown) => Promise<Loaded>,
): Promise<Loaded> {
  if (replacement?.url !== url) return nextLoad(url, context);
  return { format: 'module', source: replacement.source, shortCircuit: true };
}
