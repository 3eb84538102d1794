/** Forms of patch sites: what is compiled, how a site is found from it, what initialisation writes. */
import { afterAll, describe, expect, it } from 'vitest';
import { embeddedFactory } from '../../../src/cpu/engines.js';
import type { FtraceVersion, SiteForm } from '../../../src/kernel/ftrace/profile.js';
import { adjustMcount, mcountLocation } from '../../../src/kernel/ftrace/site-form.js';
import type { Kernel } from '../../../src/kernel/kernel.js';
import { factories } from '../../helpers/cpus.js';
import { bootFtrace, literalOf, makeOps, siteOf } from '../../helpers/ftrace.js';

const F = 0xffff800080010040n;
const NOP = 0xd503201f;
const BTI_C = 0xd503245f;
const PACIASP = 0xd503233f;

describe.each<{ form: SiteForm; bti: boolean; entry: bigint; site: bigint }>([
  { form: '2', bti: false, entry: F, site: F + 4n },
  { form: '2', bti: true, entry: F + 4n, site: F + 8n },
  { form: '4,2', bti: false, entry: F - 8n, site: F + 4n },
  { form: '4,2', bti: true, entry: F - 8n, site: F + 8n },
  { form: '7,5', bti: false, entry: F - 20n, site: F + 4n },
  { form: '7,5', bti: true, entry: F - 20n, site: F + 8n },
])('=$form, bti $bti', ({ form, bti, entry, site }) => {
  it('has its entry and site where the table says', () => {
    expect(mcountLocation(form, F, bti)).toBe(entry);
    const read32 = (address: bigint): number => (address === F && bti ? BTI_C : NOP);
    const lines: string[] = [];
    const warn = (line: string): void => void lines.push(line);
    expect(adjustMcount(entry, { form, btiKernel: bti, read32, warn })).toBe(site);
    // a function without BTI in a BTI kernel
    if (form !== '2') {
      const parts = { form, btiKernel: true, read32: () => NOP, warn };
      expect(adjustMcount(entry, parts)).toBe(F + 4n);
    }
    expect(lines).toEqual([]);
  });
});

it.each([
  { name: 'entry 0', location: 0n, word: NOP, site: 0n, warning: undefined },
  { name: 'not 8-byte aligned', location: F - 4n, word: NOP, site: 0n, warning: 'Misaligned' },
  {
    name: 'paciasp at F',
    location: F - 8n,
    word: PACIASP,
    site: F + 4n,
    warning: 'unexpected insn',
  },
])('$name', ({ location, word, site, warning }) => {
  const lines: string[] = [];
  const parts = {
    form: '4,2',
    btiKernel: true,
    read32: () => word,
    warn: (line: string) => void lines.push(line),
  } as const;
  expect(adjustMcount(location, parts)).toBe(site);
  expect(lines.join()).toContain(warning ?? '');
  expect(lines).toHaveLength(warning === undefined ? 0 : 1);
});

const FUNCTIONS = `
FUNCTION int global_fn(int a)
	add w0, w0, #7
	ret

FUNCTION static int static_fn(int a)
	add w0, w0, #9
	ret
`;

const kernels: Kernel[] = [];
afterAll(() => {
  for (const kernel of kernels) kernel.close();
});

/** E2: every form, with and without BTI, is traced and called on every engine. */
describe.each(factories.map((cpu) => ({ engine: cpu.name, cpu })))('$engine', ({ cpu }) => {
  describe.each<{ version: FtraceVersion; bti: boolean; lead: [number, number] }>([
    { version: '6.1', bti: false, lead: [1, 1] },
    { version: '6.1', bti: true, lead: [2, 1] },
    { version: 'sep-2022', bti: false, lead: [1, 1] },
    { version: 'sep-2022', bti: true, lead: [2, 1] },
    { version: '6.12', bti: false, lead: [1, 1] },
    { version: '6.12', bti: true, lead: [2, 1] },
  ])('$version, bti $bti', ({ version, bti, lead }) => {
    const kernel = bootFtrace(cpu, version, { bti, texts: { 'two.s': FUNCTIONS } });
    kernels.push(kernel);

    it.each([
      { name: 'global_fn', at: 0, result: 8n },
      { name: 'static_fn', at: 1, result: 10n },
    ])('$name', ({ name, at, result }) => {
      const words = lead[at] as number;
      const address = kernel.symbol(name);
      expect(siteOf(kernel, name)).toBe(address + BigInt(4 * words));
      expect(kernel.memory.read32(address)).toBe(words === 2 ? BTI_C : 0xaa1e03e9);
      expect(kernel.memory.read32(siteOf(kernel, name) - 4n)).toBe(0xaa1e03e9);
      expect(kernel.call(name, 1n)).toBe(result);

      const { ops, count } = makeOps(kernel, { targets: [name] });
      kernel.ftrace.register(ops);
      // the literal lies at F-8, behind a BTI or not
      if (version === '6.12') expect(literalOf(kernel, name)).toBe(ops.name);
      expect(kernel.call(name, 1n)).toBe(result);
      expect(count()).toBe(1);
      kernel.ftrace.unregister(ops);
      expect(kernel.call(name, 1n)).toBe(result);
      expect(count()).toBe(1);
    });
  });
});

it('skips what is no text, and stops at a site that is not as compiled', () => {
  const kernel = bootFtrace(embeddedFactory, '6.12');
  kernels.push(kernel);
  const before = kernel.ftrace.records.size;
  kernel.ftrace.addSites([0n, 0x1000n]);
  expect(kernel.ftrace.records.size).toBe(before);
  kernel.text.addWords('no_site', [NOP, NOP, PACIASP, NOP]);
  kernel.ftrace.addSites([kernel.symbol('no_site')]);
  expect(kernel.ftrace.bug).toMatch(/holds d503233f, expected d503201f/);
  expect(() =>
    kernel.ftrace.register(kernel.ftrace.createOps('o', kernel.kmalloc(216), 1n)),
  ).toThrow('-ENODEV: ftrace is disabled after a bug at no_site');
});
