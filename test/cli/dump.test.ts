import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { decode } from '../../src/a64/codec.js';
import { load } from '../../src/bpf/object/load.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { listXlated } from '../../src/lab/xlated-listing.js';
import { PACKAGE_ROOT } from '../../src/node/files.js';
import { runForTest } from '../helpers/cli.js';

const example = (name: string): string => join(PACKAGE_ROOT, 'examples/xdp', name);
const sample = (name: string): string => join(PACKAGE_ROOT, 'test/vectors', name);

async function dump(...words: string[]): Promise<readonly string[]> {
  const { code, lines, notices } = await runForTest(['dump', ...words]);
  expect(notices).toEqual([]);
  expect(code).toBe(0);
  return lines;
}

describe('dump xlated', () => {
  it('prints prototype, source lines and instructions as bpftool does', async () => {
    const lines = await dump('xlated', example('count_protocols.o'));
    expect(lines.slice(0, 6)).toEqual([
      'int count_protocols(struct xdp_md * ctx):',
      '; void *end = PTR(ctx->data_end);',
      '   0: (79) r6 = *(u64 *)(r1 +8)',
      '; void *data = PTR(ctx->data);',
      '   1: (79) r7 = *(u64 *)(r1 +0)',
      '   2: (b7) r1 = 255',
    ]);
    expect(lines).toContain('  22: (18) r1 = map[id:1]');
    const lookup = lines.indexOf('  24: (07) r1 += 264');
    expect(lines.slice(lookup + 1, lookup + 9)).toEqual([
      '  25: (61) r0 = *(u32 *)(r2 +0)',
      '  26: (35) if r0 >= 0x100 goto pc+5',
      '  27: (67) r0 <<= 3',
      '  28: (0f) r0 += r1',
      '  29: (79) r0 = *(u64 *)(r0 +0)',
      '  30: (bf) r0 = &(void __percpu *)(r0)',
      '  31: (05) goto pc+1',
      '  32: (b7) r0 = 0',
    ]);
    expect(lines.at(-1)).toBe('  44: (95) exit');
  });

  it('adds bytes and places', async () => {
    const lines = await dump('xlated', example('count_protocols.o'), 'opcodes', 'linum');
    expect(lines[1]).toMatch(
      /^; void \*end = PTR\(ctx->data_end\); \[file:.*count_protocols\.c line_num:21 line_col:14\]$/,
    );
    expect(lines[3]).toBe('       79 16 08 00 00 00 00 00');
    // a map's id stands where its address is
    expect(lines).toContain('       18 11 00 00 01 00 00 00 00 00 00 00 00 00 00 00');
  });

  it('numbers subprograms on, and shows where calls go', () => {
    const host = new PlainHost({ helpers: new Map([[181, () => {}]]), memorySize: 1 << 16 });
    const spec = parseObject(Uint8Array.from(readFileSync(sample('objects/callback.o'))));
    const object = load(spec, host, { check: false });
    const program = object.program('sum_bytes');
    const { xlated } = program;
    const maps = [...object.maps.values()];
    const lines = listXlated({ xlated, maps, host, program, btf: spec.btf });
    const text = lines.join('\n');
    const heads = lines.filter((line) => /^\w.*\):$/.test(line));
    expect(heads.length).toBeGreaterThan(2);
    const starts = new Map(
      lines.flatMap((line, i) => {
        const name = /(\w+)\(.*\):$/.exec(line)?.[1];
        const first = lines.slice(i).find((each) => /^ *\d+: /.test(each));
        return name && first ? [[name, Number.parseInt(first, 10)] as const] : [];
      }),
    );
    const calls = [...text.matchAll(/^ *(\d+): \(85\) call pc([+-]\d+)#(\w+)$/gm)];
    expect(calls.length).toBeGreaterThan(0);
    for (const [, at, distance, name = ''] of calls) {
      expect(Number(at) + 1 + Number(distance)).toBe(starts.get(name));
    }
    const references = [...text.matchAll(/^ *(\d+): \(18\) r\d+ = subprog\[([+-]\d+)\]$/gm)];
    expect(references.length).toBeGreaterThan(0);
    for (const [, at, distance] of references) {
      expect([...starts.values()]).toContain(Number(at) + 1 + Number(distance));
    }
  });

  it('shows global data and tail calls as the kernel does', async () => {
    const data = await dump('xlated', example('vlan_ipv6.o'));
    expect(data.join('\n')).toMatch(/\(18\) r\d = map\[id:3\]\[0\]\+\d+/);
    const tails = await dump('xlated', sample('xdp/obj/tail_chain.o'), '--program', 'chain_entry');
    expect(tails.join('\n')).toMatch(/\(85\) call bpf_tail_call#12$/m);
  });

  it('says the same as JSON', async () => {
    const path = example('count_protocols.o');
    const [json = ''] = await dump('xlated', path, 'opcodes', 'linum', '--json');
    const records = JSON.parse(json) as Record<string, unknown>[];
    expect(records[0]).toMatchObject({
      proto: 'int count_protocols(struct xdp_md * ctx)',
      src: 'void *end = PTR(ctx->data_end);',
      line_num: 21,
      disasm: '(79) r6 = *(u64 *)(r1 +8)',
      opcodes: { code: '0x79', src_reg: '0x1', dst_reg: '0x6', off: ['0x08', '0x00'] },
    });
    const text = await dump('xlated', path);
    const instructions = text.flatMap((line) => /^ *\d+: (.*)$/.exec(line)?.[1] ?? []);
    expect(records.map(({ disasm }) => disasm)).toEqual(instructions);
  });

  it('takes hex', async () => {
    expect(await dump('xlated', '--hex', 'b70000002a0000009500000000000000', 'opcodes')).toEqual([
      '   0: (b7) r0 = 42',
      '       b7 00 00 00 2a 00 00 00',
      '   1: (95) exit',
      '       95 00 00 00 00 00 00 00',
    ]);
  });
});

describe('dump jited', () => {
  it.each(['6.1', '6.12', '7.3'])('interleaves lines, BPF and arm64 of %s', async (version) => {
    const path = example('count_protocols.o');
    const lines = await dump('jited', path, 'opcodes', '--kernel', version);
    const words = lines.flatMap((line) => {
      const [, pc, word] = /^([0-9a-f]{16}): {2}([0-9a-f]{8}) {2}\S/.exec(line) ?? [];
      return pc && word ? [{ pc: BigInt(`0x${pc}`), word: Number.parseInt(word, 16) }] : [];
    });
    // every word once, in a row
    expect(words.length).toBeGreaterThan(60);
    words.forEach(({ pc }, i) => expect(pc).toBe((words[0]?.pc ?? 0n) + BigInt(4 * i)));
    expect(words.filter(({ word }) => decode(word) === undefined)).toEqual([]);
    const at = lines.indexOf('   1: (79) r7 = *(u64 *)(r1 +0)');
    expect(lines[at - 1]).toBe('; void *data = PTR(ctx->data);');
    expect(lines[at + 1]).toMatch(/f9400014 {2}ldr x20, \[x0\]$/);
  });

  it.each<[string, RegExp]>([
    ['6.1', /call bpf_get_smp_processor_id#-?\d{3,}\n(.*\n){3}.*blr x10\n/],
    ['6.12', /call bpf_get_smp_processor_id#8\n.*mrs x10, sp_el0\n.*ldr w7, \[x10, #0x10\]\n/],
    ['7.3', /call bpf_get_smp_processor_id#8\n.*mrs x10, sp_el0\n.*ldr w8, \[x10, #0x10\]\n/],
  ])('shows the code in place of a call in %s', async (version, expected) => {
    const lines = await dump('jited', sample('objects/processor.o'), '--kernel', version);
    expect(lines.join('\n')).toMatch(expected);
  });

  it('says it as JSON', async () => {
    const [json = ''] = await dump('jited', example('drop_ports.o'), '-j');
    const [image] = JSON.parse(json) as { insns: { bpf?: string; a64: { disasm: string }[] }[] }[];
    expect(image?.insns.find(({ bpf }) => bpf === '(95) exit')?.a64.length).toBeLessThan(2);
    expect(image?.insns.at(0)?.a64.map(({ disasm }) => disasm)).toContain('paciasp');
  });
});

describe('dump refuses', () => {
  it.each<[string, string[], RegExp]>([
    ['no form', [], /dump takes xlated\|jited$/],
    ['another form', ['asm', 'x.o'], /not 'asm'/],
    ['no program', ['xlated'], /PROG is missing/],
    ['a stray word', ['xlated', 'x.o', 'visual'], /behind PROG, not 'visual'/],
    ['an unknown kernel', ['jited', 'x.o', '--kernel', '5.4'], /--kernel takes 6\.1\|6\.12\|7\.3/],
    ['an unknown type', ['xlated', 'x.o', '--type', 'lsm'], /--type takes xdp\|/],
  ])('%s', async (_name, words, message) => {
    const { code, notices } = await runForTest(['dump', ...words]);
    expect(code).toBe(2);
    expect(notices[0]).toMatch(message);
  });
});

it('CO-RE against a BTF file changes what is dumped', async () => {
  const object = sample('xdp/obj/core_reloc.o');
  const own = await dump('xlated', object);
  const theirs = await dump('xlated', object, '--btf', sample('xdp/obj/core_reloc.min.btf'));
  // both put iphdr.saddr at 12
  for (const lines of [own, theirs]) {
    expect(lines.join('\n')).toMatch(/\(b7\) r1 = 12\n/);
  }
});
