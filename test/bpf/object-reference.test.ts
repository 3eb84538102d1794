import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { bytesToHex, hexToBytes, viewOf } from '../../src/common/bytes.js';
import { parseBtf } from '../../src/bpf/btf/parse.js';
import { readSlots } from '../../src/bpf/instruction.js';
import { load } from '../../src/bpf/object/load.js';
import type { FunctionSpec, ObjectSpec, SectionKind } from '../../src/bpf/object/spec.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { sharedFile } from '../helpers/shared.js';
import { readLines, replay, type ReferencePacket, type ReferenceRecord } from './xdp-reference.js';

describe('XDP objects agree with a real kernel', () => {
  const sample = new URL('../vectors/xdp/', import.meta.url);
  const packets = readLines<ReferencePacket>(new URL('packets.jsonl', sample));
  const records = readLines<ReferenceRecord>(new URL('reference.jsonl', sample));
  const kernelBtf = parseBtf(
    Uint8Array.from(readFileSync(new URL('obj/core_reloc.min.btf', sample))),
  );

  it.each(records.map((record) => [`${record.object} ${record.program}`, record] as const))(
    '%s',
    (_, record) => {
      const object = readFileSync(new URL(`obj/${record.object}`, sample));
      expect(replay(record, object, packets, kernelBtf)).toEqual([]);
    },
  );
});

/** An object with one program of given instructions. */
function objectOf(kind: SectionKind, insns: Uint8Array): ObjectSpec {
  const main: FunctionSpec = {
    name: 'main',
    section: kind,
    offset: 0,
    insns,
    relocations: [],
    lines: [],
    coreRelocations: [],
    isStatic: false,
    btfId: 0,
  };
  return {
    name: 'test',
    license: 'GPL',
    programs: [
      {
        name: 'main',
        section: kind,
        kind,
        frags: false,
        sleepable: false,
        xdpAttach: 'device',
        functionIndex: 0,
      },
    ],
    functions: [main],
    maps: [],
    externs: [],
    notes: [],
  };
}

describe('xlated programs', () => {
  // bpf_get_func_arg, _ret and _arg_cnt as a booted 6.12 inlined them in an fexit program
  const insns =
    'bf16000000000000bfa700000000000007070000f8ffffffb702000000000000bf73000000000000' +
    '85000000b700000079a8f8ff00000000bf61000000000000bf7200000000000085000000b8000000' +
    '79a9f8ff00000000bf6100000000000085000000b9000000b7000000000000009500000000000000';
  const xlated =
    'bf16000000000000bfa700000000000007070000f8ffffffb702000000000000bf73000000000000' +
    '7910f8ff000000003e0206000000000067020000030000000f120000000000007920000000000000' +
    '7b03000000000000b7000000000000000500010000000000b7000000eaffffff79a8f8ff00000000' +
    'bf61000000000000bf720000000000007910f8ff0000000067000000030000000f10000000000000' +
    '79030000000000007b32000000000000b70000000000000079a9f8ff00000000bf61000000000000' +
    '7910f8ff00000000b7000000000000009500000000000000';

  it('inline what reads the context of a trampoline', () => {
    const object = load(objectOf('fexit', hexToBytes(insns)), new PlainHost());
    const [main] = object.program('main').xlated.functions;
    expect(bytesToHex(main.insns)).toBe(xlated);
    expect(main.stackDepth).toBe(8);
  });

  const kernel = sharedFile('vectors', 'kernel', '6.12-max', 'jit-corpus.json');

  it.runIf(kernel)('have the stack depth that a booted 6.12 found', () => {
    if (!kernel) return;
    const file = readFileSync(kernel, 'utf8');
    const { programs } = JSON.parse(file) as { programs: CorpusProgram[] };
    const helpers = new Map(Array.from({ length: 212 }, (_, id) => [id, () => {}] as const));
    let compared = 0;
    for (const { name, type, insns: hex, jited } of programs) {
      const bytes = hexToBytes(hex);
      // map fds and subprograms of the corpus are no relocations
      if (readSlots(bytes).some(({ code, src }) => [0x18, 0x85].includes(code) && src !== 0))
        continue;
      const spec = objectOf(type === 'XDP' ? 'xdp' : 'socket', bytes);
      let depth: number;
      try {
        const object = load(spec, new PlainHost({ helpers, memorySize: 1 << 16 }));
        depth = object.program('main').xlated.functions[0].stackDepth;
      } catch (error) {
        expect(`${name} ${String(error)}`).toMatch(/not supported|__sk_buff/);
        continue;
      }
      expect(Math.ceil(depth / 16) * 16, name).toBe(stackBytes(hexToBytes(jited)));
      compared++;
    }
    expect(compared).toBe(534);
  });

  it.runIf(kernel)('are those of a booted 6.12', () => {
    if (!kernel) return;
    const { programs } = JSON.parse(readFileSync(kernel, 'utf8')) as { programs: CorpusProgram[] };
    const helpers = new Map(Array.from({ length: 212 }, (_, id) => [id, () => {}] as const));
    const host = new PlainHost({ helpers, memorySize: 1 << 16 });
    const refused: string[] = [];
    const different: string[] = [];
    let equal = 0;
    for (const { name, type, insns: hex, xlated: theirs } of programs) {
      const bytes = hexToBytes(hex);
      // map fds and subprograms of the corpus are no relocations
      if (readSlots(bytes).some(({ code, src }) => [0x18, 0x85].includes(code) && src !== 0)) {
        refused.push(name);
        continue;
      }
      try {
        const object = load(objectOf(type === 'XDP' ? 'xdp' : 'socket', bytes), host);
        const [main] = object.program('main').xlated.functions;
        if (comparable(main.insns) === comparable(hexToBytes(theirs))) equal++;
        else different.push(name);
      } catch (error) {
        expect(`${name} ${String(error)}`).toMatch(/not supported|__sk_buff/);
        refused.push(name);
      }
    }
    // a branch that only ranges decide, and jiffies read from kernel memory
    expect(different).toEqual(['jmp64k_jle_ffffffff', 'jmp32k_jle_ffffffff', 'call_jiffies64']);
    expect(equal).toBe(531);
    expect(refused.filter((name) => !/^(map|tail_call|b2b|ld_abs|ld_ind)_/.test(name))).toEqual([
      'ret_ctxlen',
    ]);
  });
});

interface CorpusProgram {
  readonly name: string;
  readonly xlated: string;
  readonly type: string;
  readonly insns: string;
  readonly jited: string;
}

/** Slots as text, calls of helpers without their distance from the kernel's call base. */
function comparable(insns: Uint8Array): string {
  return readSlots(insns)
    .map(({ code, dst, src, off, imm }) => {
      const isTailCall = code === 0xf5 || (code === 0x85 && imm === 12);
      if (isTailCall) return 'tail_call';
      return [code, dst, src, off, code === 0x85 && src === 0 ? 'helper' : imm].join();
    })
    .join(' ');
}

/** What the prologue of an arm64 image takes: `sub sp, sp, #imm`, 1101000100 imm12 11111 11111. */
function stackBytes(image: Uint8Array): number {
  const view = viewOf(image);
  for (let at = 0; at < image.length; at += 4) {
    const word = view.getUint32(at, true);
    if ((word & 0xffc003ff) >>> 0 === 0xd10003ff) return (word >>> 10) & 0xfff;
  }
  return 0;
}
