/** Where the ground-truth data beside the project lies, for tests that use it when it is there. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/node/files.js';

/** The folder beside the project; another place by TRAMPOLAB_SHARED. */
export const SHARED = process.env['TRAMPOLAB_SHARED'] ?? join(PACKAGE_ROOT, '..', 'shared');

/** The path of a file under ../shared, or undefined with a notice when it is not there. */
export function sharedFile(...parts: string[]): string | undefined {
  const path = join(SHARED, ...parts);
  if (existsSync(path)) return path;
  console.log(`notice: ${parts.join('/')} is not beside the project, not compared`);
  return undefined;
}
