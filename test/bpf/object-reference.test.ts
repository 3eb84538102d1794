import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { bytesToHex, hexToBytes } from '../../src/common/bytes.js';
import { parseBtf } from '../../src/bpf/btf/parse.js';
import { load } from '../../src/bpf/object/load.js';
import type { FunctionSpec, ObjectSpec, SectionKind } from '../../src/bpf/object/spec.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
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
});
