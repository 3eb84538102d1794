/**
 * CPU engines for tests: all that are here, so that one table of behaviours runs on each.
 *
 * With TRAMPOLAB_REQUIRE_UNICORN=1 a missing libunicorn is a failure; otherwise tests that need it are skipped
 * with its reason as a notice.
 */
import { embeddedFactory, type CpuFactory } from '../../src/cpu/engines.js';
import { unicornFactory } from '../../src/cpu/unicorn/factory.js';

const loaded = await unicornFactory();
if (!loaded.factory) {
  const notice = `libunicorn is not used: ${loaded.reason}`;
  if (process.env['TRAMPOLAB_REQUIRE_UNICORN'] === '1') throw new Error(notice);
  console.warn(notice);
}

/** libunicorn, where it can be loaded. */
export const unicorn: CpuFactory | undefined = loaded.factory;

/** All engines that are here. */
export const factories: readonly CpuFactory[] = [embeddedFactory, ...(unicorn ? [unicorn] : [])];
