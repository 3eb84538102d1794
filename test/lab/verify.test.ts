/**
 * Images from elsewhere against the interpreter: our own moved to another kernel, those of booted kernels,
 * and wrong ones.
 */
import { writeFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { load, type LoadedObject } from '../../src/bpf/object/load.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { readCorpus } from '../../src/lab/check/booted/corpus-file.js';
import { corpusObject, fillMap } from '../../src/lab/check/booted/corpus-object.js';
import { readImage } from '../../src/lab/verify/image.js';
import { helperOf, Kallsyms } from '../../src/lab/verify/kallsyms.js';
import { verifyImage, type VerifyResult } from '../../src/lab/verify/verify.js';
import { readCapture } from '../../src/net/read-capture.js';
import { bootLab } from '../../src/node/boot.js';
import { PACKAGE_ROOT, readInput } from '../../src/node/files.js';
import { runForTest } from '../helpers/cli.js';

const example = (...parts: string[]): Uint8Array =>
  readInput(join(PACKAGE_ROOT, 'examples', ...parts));
const packets = readCapture(example('captures', 'mixed.pcap')).packets.map(({ bytes }) => bytes);
/** Out of the way of images at a kernel's own addresses. */
const AWAY = { kaslrSeed: 1n << 62n, vmallocUsed: 2 ** 33 };

interface Dump {
  readonly bytes: Uint8Array;
  readonly bases: readonly bigint[];
  readonly kallsyms: string;
}

/** What bpftool and /proc/kallsyms would give on a machine that runs our JIT. */
async function dumpOf(name: string): Promise<Dump> {
  const kernel = await bootLab();
  const object = load(parseObject(example('xdp', `${name}.o`), { name }), kernel.bpf.host);
  const { images } = kernel.bpf.load(object.program(name).xlated);
  const bytes = Buffer.concat(images.map(({ words }) => Buffer.from(words.buffer)));
  const symbols = [...kernel.symbols].map(
    ({ name: symbol, address }) => `${address.toString(16)} T ${symbol}`,
  );
  kernel.close();
  const bases = images.map(({ base }) => base);
  symbols.push(`${bases[0]?.toString(16)} t bpf_prog_0123456789abcdef_${name}\t[bpf]`);
  return { bytes: new Uint8Array(bytes), bases, kallsyms: symbols.join('\n') };
}

let kernel: Kernel;
beforeAll(async () => {
  kernel = await bootLab(AWAY);
});
afterAll(() => kernel.close());

function verifyDump(name: string, dump: Dump): VerifyResult {
  const spec = parseObject(example('xdp', `${name}.o`), { name });
  return verifyImage(kernel, {
    image: readImage(name, dump.bytes, dump.bases),
    kallsyms: Kallsyms.parse(dump.kallsyms),
    program: name,
    packets: packets.slice(0, 60),
    load: (): LoadedObject => load(spec, kernel.bpf.host),
  });
}

describe('our own images, moved', () => {
  it.each(['count_protocols', 'drop_ports', 'ipip_encap', 'bounce_ttl'])('%s', async (name) => {
    const bodies = kernel.text.bodies.size;
    expect(verifyDump(name, await dumpOf(name))).toEqual({ packets: 60, difference: undefined });
    expect(kernel.text.bodies.size).toBe(bodies);
    expect(kernel.memory.regions.filter((each) => each.name === 'foreign text')).toEqual([]);
  });

  it('a wrong instruction is found', async () => {
    const dump = await dumpOf('bounce_ttl');
    const words = new Uint32Array(dump.bytes.buffer);
    // the first CMP with an immediate compares with one more
    const at = words.findIndex((word) => (word & 0xffc0001f) >>> 0 === 0xf100001f);
    words[at] = (words[at] ?? 0) + (1 << 10);
    expect(verifyDump('bounce_ttl', dump).difference).toMatch(/^packet \d+: .* from the image, /);
  });
});

describe('images of booted kernels', () => {
  it.each([
    ['6.12-max', '6.12'],
    ['7.2-max', '7.3'],
  ] as const)('%s', async (folder, version) => {
    const lab = await bootLab({ ...AWAY, version });
    try {
      const path = join(PACKAGE_ROOT, 'test', 'vectors', 'kernel', folder, 'jit-corpus.json');
      const corpus = readCorpus(path, JSON.parse(new TextDecoder().decode(readInput(path))));
      const symbols = [...corpus.symbols].map(([name, at]) => `${at.toString(16)} T ${name}`);
      const verdicts = corpus.programs
        // the limit of may_goto is a time, and per-CPU values are looked up in the image
        .filter(({ name }) => name !== 'may_goto' && name !== 'map_percpu_lookup')
        .filter(({ type, name }) => type === 'xdp' || name.startsWith('map_'))
        .map((program) => {
          const words = Uint32Array.from(program.images.flat());
          const result = verifyImage(lab, {
            image: readImage(program.name, new Uint8Array(words.buffer), program.addresses),
            kallsyms: Kallsyms.parse(symbols.join('\n')),
            program: program.name,
            packets: [new Uint8Array(64).map((_, i) => 16 * i + 1)],
            load: () => {
              const spec = corpusObject(program.name, program.type, program.slots);
              const object = load(spec, lab.bpf.host);
              for (const map of object.maps.values()) fillMap(map);
              return object;
            },
          });
          return [program.name, result.difference] as const;
        });
      expect(verdicts.length).toBeGreaterThan(3);
      expect(verdicts.filter(([, difference]) => difference !== undefined)).toEqual([]);
    } finally {
      lab.close();
    }
  });
});

describe('what cannot be verified', () => {
  const code = Uint32Array.of(0x910003c9, 0xd503201f, 0x94000000, 0xd65f03c0);
  const bytes = new Uint8Array(code.buffer);

  it.each<[string, Uint8Array, bigint[], RegExp]>([
    ['no whole words', bytes.subarray(0, 7), [0n], /7 bytes are no sequence of instructions/],
    ['no image', bytes.subarray(8), [0n], /does not begin as an arm64 BPF image/],
    ['more addresses than functions', bytes, [0n, 4n], /1 functions, but 2 addresses/],
  ])('%s', (_, image, bases, message) => {
    expect(() => readImage('f', image, bases)).toThrow(message);
  });

  it('kallsyms that are hidden or none', () => {
    const hidden = '0000000000000000 T a\n0000000000000000 T b';
    expect(() => Kallsyms.parse(hidden)).toThrow(/read it as root/);
    expect(() => Kallsyms.parse('what is this')).toThrow(/kallsyms line 1/);
  });

  it.each([
    ['bpf_user_rnd_u32', 'bpf_get_prandom_u32'],
    ['htab_map_update_elem', 'htab_map_update_elem'],
    ['bpf_ktime_get_ns', 'bpf_ktime_get_ns'],
  ])('%s is %s', (name, helper) => expect(helperOf(name)).toBe(helper));
});

describe('trampolab verify', () => {
  const folder = mkdtempSync(join(tmpdir(), 'verify-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('takes the files of a machine', async () => {
    const dump = await dumpOf('drop_ports');
    writeFileSync(join(folder, 'image'), dump.bytes);
    writeFileSync(join(folder, 'kallsyms'), dump.kallsyms);
    const words = ['verify', join(folder, 'image'), '--prog', 'examples/xdp/drop_ports.o'];
    const whole = await runForTest([...words, '--kallsyms', join(folder, 'kallsyms')]);
    expect(whole.notices).toEqual([]);
    expect(whole.lines[0]).toMatch(/^\d+ packets: the image does what the interpreter does$/);
    const without = await runForTest(words);
    expect(without.code).toBe(1);
    expect(without.notices[0]).toMatch(/no address: kallsyms has no bpf_prog_<tag>_drop_ports/);
    const unnamed = await runForTest([...words, '--address', `${dump.bases[0]?.toString(16)}`]);
    expect(unnamed.notices[0]).toMatch(/the image calls 0x[0-9a-f]+, which kallsyms does not name/);
  });

  it('says what is missing', async () => {
    expect((await runForTest(['verify'])).code).toBe(2);
    expect((await runForTest(['verify', 'x'])).notices[0]).toMatch(/--prog PROG.o is missing/);
  });
});
