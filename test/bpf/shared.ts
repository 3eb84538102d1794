/** The larger collection of test data beside the project; not there on every machine. */
import { existsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const root = process.env['TRAMPOLAB_SHARED'];
const shared = root
  ? pathToFileURL(`${root.replace(/\/$/, '')}/`)
  : new URL('../../../shared/', import.meta.url);

/** The folder of that name there, or undefined, with a notice, when it is absent. */
export function sharedFolder(path: string): URL | undefined {
  const folder = new URL(path, shared);
  if (existsSync(folder)) return folder;
  console.warn(`notice: ${folder.pathname} is absent, its tests do not run`);
  return undefined;
}
