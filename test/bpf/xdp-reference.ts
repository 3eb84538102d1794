/**
 * Replays what a real kernel did with an XDP object over a sequence of packets, and lists what differs.
 */
import { readFileSync } from 'node:fs';
import { bytesToHex, hexToBytes } from '../../src/common/bytes.js';
import type { ProgArrayMap } from '../../src/bpf/maps/map.js';
import type { Btf } from '../../src/bpf/btf/btf.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { XdpRun } from './xdp-run.js';

export interface ReferencePacket {
  readonly name: string;
  readonly hex: string;
  readonly set: string;
}

export interface ReferenceRecord {
  readonly object: string;
  readonly program: string;
  readonly variant: string;
  readonly env: boolean;
  readonly frames: string;
  readonly maps_setup: readonly {
    readonly map: string;
    readonly entries: readonly {
      readonly key_hex?: string;
      readonly value_hex?: string;
      readonly prog?: string;
    }[];
  }[];
  readonly runs: readonly {
    readonly packet: string;
    readonly retval: number;
    readonly out_hex?: string;
    readonly meta?: string;
  }[];
  readonly maps_after: readonly {
    readonly map: string;
    readonly not_dumped?: boolean;
    readonly entries?: readonly { readonly key_hex: string; readonly value_hex: string }[];
  }[];
}

export function readLines<T>(url: URL): T[] {
  return readFileSync(url, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as T);
}

/** Differences, one line each; none when the replay agrees. Throws what loading throws. */
export function replay(
  record: ReferenceRecord,
  object: Uint8Array,
  packets: readonly ReferencePacket[],
  kernelBtf?: Btf,
): string[] {
  const spec = parseObject(object, { name: record.object });
  // the reference machine had two CPUs and ran on the first
  const run = new XdpRun(spec, {
    helpers: { version: '6.18' },
    cpuCount: 2,
    ...(kernelBtf ? { kernelBtf } : {}),
  });
  for (const { map, entries } of record.maps_setup) {
    for (const entry of entries) {
      const key = hexToBytes(entry.key_hex ?? '');
      if (entry.prog !== undefined) {
        const array = run.map(map) as ProgArrayMap;
        const index = new DataView(key.buffer).getUint32(0, true);
        array.setProgram(index, run.object.program(entry.prog).xlated);
      } else {
        run.map(map).set(key, hexToBytes(entry.value_hex ?? ''));
      }
    }
  }
  const byName = new Map(packets.map((packet) => [packet.name, hexToBytes(packet.hex)]));
  const differences: string[] = [];
  const compare = (what: string, ours: unknown, theirs: unknown): void => {
    if (ours !== theirs) differences.push(`${what}: ${String(ours)}, kernel ${String(theirs)}`);
  };
  for (const { packet, retval, out_hex, meta } of record.runs) {
    const input = byName.get(packet);
    if (!input) throw new Error(`no packet ${packet}`);
    const result = run.run(record.program, input);
    compare(`${packet} verdict`, result.verdict, retval);
    compare(`${packet} bytes`, bytesToHex(result.packet), out_hex ?? bytesToHex(input));
    compare(`${packet} metadata`, bytesToHex(result.metadata), meta ?? '');
  }
  for (const { map, entries, not_dumped } of record.maps_after) {
    if (not_dumped) continue;
    const ours = [...run.map(map).entries()]
      .map(({ key, values }) => [bytesToHex(key), bytesToHex(values[0] ?? key)] as const)
      .filter(([key, value]) => /[^0]/.test(value) || entries?.some((e) => e.key_hex === key))
      .map(([key, value]) => `${key}=${value}`)
      .sort();
    const theirs = (entries ?? []).map((e) => `${e.key_hex}=${e.value_hex}`).sort();
    compare(`map ${map}`, ours.join(' '), theirs.join(' '));
  }
  return differences;
}
