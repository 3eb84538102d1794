/** How an engine is chosen, and what is said when libunicorn is missing. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Memory } from '../../src/cpu/memory.js';
import { cpuFactory } from '../../src/cpu/engines.js';
import { loadUnicorn } from '../../src/cpu/unicorn/library.js';
import { unicorn } from '../helpers/cpus.js';

describe('cpuFactory', () => {
  const before = process.env['TRAMPOLAB_UNICORN'];
  afterEach(() => {
    if (before === undefined) delete process.env['TRAMPOLAB_UNICORN'];
    else process.env['TRAMPOLAB_UNICORN'] = before;
  });

  it('gives the embedded engine', async () => {
    expect((await cpuFactory('embedded')).name).toBe('embedded');
  });

  it.skipIf(!unicorn)('prefers libunicorn where it is', async () => {
    expect((await cpuFactory('auto')).name).toBe('unicorn');
    expect((await cpuFactory('unicorn')).name).toBe('unicorn');
  });

  it('says which library cannot be loaded', async () => {
    process.env['TRAMPOLAB_UNICORN'] = 'libnothing-of-the-kind.so';
    const { library, reason } = await loadUnicorn();
    expect(library).toBeUndefined();
    expect(reason).toMatch(
      /^(libunicorn cannot be loaded: .*libnothing-of-the-kind\.so|koffi cannot)/,
    );
    expect(reason).not.toContain('\n');
    expect((await cpuFactory('auto')).name).toBe('embedded');
    await expect(cpuFactory('unicorn')).rejects.toThrow(/^(libunicorn|koffi) cannot be loaded/);
  });

  it('refuses a library that is not libunicorn', async () => {
    process.env['TRAMPOLAB_UNICORN'] = process.platform === 'linux' ? 'libc.so.6' : 'nothing';
    expect((await loadUnicorn()).reason).toMatch(/^(libunicorn|koffi) cannot be loaded: /);
  });

  it('does without koffi', async () => {
    vi.resetModules();
    vi.doMock('koffi', () => {
      throw new Error('koffi is not installed');
    });
    const library = await import('../../src/cpu/unicorn/library.js');
    const { reason } = await library.loadUnicorn();
    expect(reason).toMatch(/^koffi cannot be loaded: /);
    const engines = await import('../../src/cpu/engines.js');
    expect((await engines.cpuFactory('auto')).name).toBe('embedded');
    vi.doUnmock('koffi');
    vi.resetModules();
  });
});

describe.skipIf(!unicorn)('a closed libunicorn CPU', () => {
  it('gives everything back, and says that it is closed', async () => {
    const factory = unicorn;
    if (!factory) throw new Error('libunicorn is gone');
    const koffi = await import('koffi');
    const before = koffi.stats().callbacks;
    const memory = new Memory(65536);
    memory.map({ name: 'text', address: 0x1000n, size: 4096, permissions: 'rx' });
    const cpus = Array.from({ length: 40 }, () => factory.create(memory));
    expect(koffi.stats().callbacks).toBeGreaterThan(before);
    for (const cpu of cpus) {
      cpu.addBreakpoint(0x1000n);
      cpu.run({ budget: 1 });
      cpu.close();
      cpu.close();
      expect(() => cpu.run()).toThrow('closed');
      expect(() => cpu.sync(0n, 1n)).toThrow('closed');
      expect(() => cpu.saveRegisters()).toThrow('closed');
    }
    expect(koffi.stats().callbacks).toBe(before);
    // the memory no longer knows them
    memory.map({ name: 'more', address: 0x8000n, size: 4096, permissions: 'rx' });
  });
});
