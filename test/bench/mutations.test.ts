/** The list of faults fits the sources; a sample of them is found. `npm run mutations` looks for all. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { applyFault } from '../../bench/mutations/apply.js';
import { FAULTS } from '../../bench/mutations/faults.js';
import { PACKAGE_ROOT } from '../../src/node/files.js';

describe('the list of faults', () => {
  it.each(FAULTS.map((fault) => [fault.name, fault] as const))('%s', (_name, fault) => {
    const source = readFileSync(join(PACKAGE_ROOT, fault.file), 'utf8');
    expect(applyFault(fault, source)).not.toBe(source);
  });

  it('has several in each area, and says of few that they cannot be found', () => {
    const count = (area: string): number => FAULTS.filter((fault) => fault.area === area).length;
    for (const area of new Set(FAULTS.map((fault) => fault.area))) {
      expect(count(area)).toBeGreaterThanOrEqual(5);
    }
    expect(count('trampoline')).toBeGreaterThanOrEqual(12);
    expect(FAULTS.filter(({ unseen }) => unseen === undefined).length).toBeGreaterThan(100);
  });
});

describe('a fault is found', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'trampolab-faults-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  afterEach(() => {
    vi.doUnmock(mocked);
    vi.resetModules();
  });
  let mocked = '';

  it.each([
    'negate in 64 bits always',
    'LL/SC: the sum is of the new value',
    'R9 is not saved',
    'range of BL is one word too long',
    'cookie of the one before stays',
  ])('%s', async (name) => {
    const fault = FAULTS.find((each) => each.name === name);
    if (!fault) throw new Error(`no fault ${name}`);
    mocked = join(PACKAGE_ROOT, fault.file);
    const here = dirname(mocked);
    // the module lies elsewhere, its imports do not
    const source = applyFault(fault, readFileSync(mocked, 'utf8')).replaceAll(
      /from '(\.[^']*)'/g,
      (_text, path: string) => `from '${join(here, path)}'`,
    );
    const file = join(folder, `${FAULTS.indexOf(fault)}.ts`);
    writeFileSync(file, source);
    vi.doMock(mocked, () => import(/* @vite-ignore */ file));
    vi.resetModules();
    const { runCampaign } = await import('../../bench/mutations/campaign.js');
    const result = await runCampaign(fault.campaign, 3000, 1);
    expect(result.foundAfter).toBeLessThan(3000);
  });
});
