import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { viewOf } from '../../src/common/bytes.js';
import { readSlots } from '../../src/bpf/instruction.js';
import { createInterpreter } from '../../src/bpf/interpreter.js';
import type { BpfHost } from '../../src/bpf/host.js';
import { load, type LoadOptions } from '../../src/bpf/object/load.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { readVariable } from '../../src/bpf/object/variables.js';
import { PlainHost } from '../../src/bpf/plain-host.js';

const spec = parseObject(
  Uint8Array.from(readFileSync(new URL('../vectors/objects/externs.o', import.meta.url))),
  { name: 'externs.o' },
);

const SYMBOL = 0xffff_8000_8000_1234n;
const KFUNC = 7;

/** A host that knows one symbol and, when asked for, one function. */
class SymbolHost extends PlainHost {
  readonly kfuncs: boolean;

  constructor(kfuncs = false) {
    super({
      memorySize: 1 << 20,
      helpers: new Map([
        [
          KFUNC,
          (registers) => {
            registers[0] = registers[2] + 41;
            registers[1] = 0;
          },
        ],
      ]),
    });
    this.kfuncs = kfuncs;
  }

  override symbolAddress(name: string): bigint | undefined {
    return name === 'bpf_fentry_test1' ? SYMBOL : undefined;
  }

  override kfuncAddress(name: string): bigint | undefined {
    return this.kfuncs && name === 'no_such_kfunc' ? this.helperAddress(KFUNC) : undefined;
  }
}

/** The verifier knows no prototypes of kernel functions. */
const RAW: LoadOptions = { check: false };

function results(host: PlainHost, options: LoadOptions = {}): bigint[] {
  const object = load(spec, host, options);
  const interpreter = createInterpreter(object.program('externs').xlated, host);
  expect(interpreter.run(0n)).toMatchObject({ kind: 'return', r0: 0n });
  const view = viewOf(readVariable(object, host.memory, 'results'));
  interpreter.close();
  object.free();
  expect(host.memory.regions).toEqual([]);
  return Array.from({ length: 10 }, (_, i) => view.getBigUint64(8 * i, true));
}

function refusal(host: BpfHost, options: LoadOptions = {}): string {
  try {
    load(spec, host, options);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  return 'accepted';
}

describe('externs', () => {
  it('are found with what they are', () => {
    expect(
      spec.externs.map(({ name, kind, weak }) => `${kind} ${name}${weak ? ' weak' : ''}`).sort(),
    ).toEqual([
      'kconfig CONFIG_ARM64',
      'kconfig CONFIG_BPF_SYSCALL',
      'kconfig CONFIG_HZ',
      'kconfig CONFIG_LSM weak',
      'kconfig CONFIG_OF_THE_MOON weak',
      'kconfig LINUX_HAS_SYSCALL_WRAPPER weak',
      'kconfig LINUX_KERNEL_VERSION',
      'kfunc no_such_kfunc weak',
      'ksym bpf_fentry_test1',
      'ksym no_such_symbol weak',
      'ksym runqueues weak',
    ]);
    expect(spec.maps.map(({ name }) => name)).toContain('externs.kconfig');
  });

  it('get their values; weak ones that are not there are 0', () => {
    expect(results(new SymbolHost())).toEqual([
      0x060c6bn, // 6.12.107
      1n,
      250n,
      1n,
      121n, // 'y'
      0n,
      0n,
      SYMBOL,
      0n,
      0n,
    ]);
  });

  it('take given values first', () => {
    const kconfig = { CONFIG_HZ: '1000', CONFIG_OF_THE_MOON: 'm', CONFIG_LSM: '"landlock,yama"' };
    const [, , hz, , , moon, lsm] = results(new SymbolHost(), { kconfig });
    expect([hz, moon, lsm]).toEqual([1000n, 2n, 110n]);
  });

  it('call kernel functions that are there', () => {
    const host = new SymbolHost(true);
    const object = load(spec, host, RAW);
    const [{ insns }] = object.program('externs').xlated.functions;
    const call = readSlots(insns).find(({ code }) => code === 0x85);
    expect(call).toMatchObject({ src: 2, imm: KFUNC * 0x100 });
    object.free();
    expect(results(host, RAW).at(-1)).toBe(42n);
  });

  it('drop the call of a function that is not there, and its branch', () => {
    const host = new SymbolHost();
    const object = load(spec, host);
    const [{ insns }] = object.program('externs').xlated.functions;
    expect(readSlots(insns).map(({ code }) => code)).not.toContain(0x85);
    object.free();
  });

  it.each<[string, LoadOptions, RegExp]>([
    [
      'a number in a bool',
      { kconfig: { LINUX_HAS_SYSCALL_WRAPPER: '7' } },
      /-EINVAL: extern 'LINUX_HAS_SYSCALL_WRAPPER'/,
    ],
    [
      'text in a number',
      { kconfig: { CONFIG_HZ: '"fast"' } },
      /'CONFIG_HZ' .*value "fast" does not fit/,
    ],
    [
      'a number that is too large',
      { kconfig: { CONFIG_HZ: '0x100000000' } },
      /does not fit its type/,
    ],
    ['a letter in a number', { kconfig: { CONFIG_HZ: 'y' } }, /does not fit its type/],
  ])('refuse %s', (_name, options, message) => {
    const host = new SymbolHost();
    expect(refusal(host, options)).toMatch(message);
    expect(host.memory.regions).toEqual([]);
  });

  it('refuse strong symbols that are not there', () => {
    expect(refusal(new PlainHost({ memorySize: 1 << 20 }))).toMatch(
      /-ESRCH: extern 'bpf_fentry_test1' \(__ksym\): the kernel has no such symbol/,
    );
  });
});
