// Writes the captures of examples/captures. They are committed, and a test holds them equal to what
// this script makes: run it after a change of src/net/sample-traffic.ts.
//
//   npm run build && node examples/make-captures.mjs
import { writeFileSync } from 'node:fs';
import { exampleCaptures } from '../dist/src/net/sample-traffic.js';

for (const [name, bytes] of exampleCaptures()) {
  writeFileSync(new URL(`captures/${name}`, import.meta.url), bytes);
  console.log(`examples/captures/${name}: ${bytes.length} bytes`);
}
