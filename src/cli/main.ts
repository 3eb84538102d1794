#!/usr/bin/env node
/** The `trampolab` command: picks the noun, prints errors as one line, sets the exit code. */
import process from 'node:process';
import { runCommandLine } from './dispatch.js';

const noColour = process.env['NO_COLOR'] !== undefined && process.env['NO_COLOR'] !== '';
const forceColour = process.env['FORCE_COLOR'] !== undefined && process.env['FORCE_COLOR'] !== '0';

// a reader that goes away early (`| head`) is no failure
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

process.exitCode = await runCommandLine(process.argv.slice(2), {
  line: (text = '') => process.stdout.write(`${text}\n`),
  notice: (text) => process.stderr.write(`${text}\n`),
  bytes: (data) => process.stdout.write(data),
  colour: !noColour && (forceColour || process.stdout.isTTY === true),
});
