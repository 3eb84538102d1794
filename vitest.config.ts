import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const source = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  // the examples of the docs import the package by its name
  resolve: {
    alias: [
      { find: /^trampolab\/node$/, replacement: source('./src/node/index.ts') },
      { find: /^trampolab$/, replacement: source('./src/index.ts') },
    ],
  },
  test: {
    include: ['test/**/*.test.ts'],
    setupFiles: ['test/setup.ts'],
    maxWorkers: 2,
    // no module keeps state: a worker loads each once for all files
    isolate: false,
    testTimeout: 60_000,
  },
});
