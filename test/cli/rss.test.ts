/** `trampolab rss`: files per queue, options, refusals. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { bytesToHex } from '../../src/common/bytes.js';
import { ethernetCapture } from '../../src/net/capture.js';
import { writePcapng } from '../../src/net/pcapng.js';
import { readCapture } from '../../src/net/read-capture.js';
import { PACKAGE_ROOT } from '../../src/node/files.js';
import { runForTest } from '../helpers/cli.js';

const folder = mkdtempSync(join(tmpdir(), 'trampolab-'));
afterAll(() => rmSync(folder, { recursive: true }));

const TUNNELS = join(PACKAGE_ROOT, 'examples/captures/tunnels.pcap');
const frames = (path: string) =>
  readCapture(readFileSync(path)).packets.map(({ bytes, time }) => `${time} ${bytesToHex(bytes)}`);

async function json(...words: string[]) {
  const { code, lines } = await runForTest(['rss', ...words, '--json']);
  expect(code).toBe(0);
  return JSON.parse(lines.join('')) as {
    readonly packets: number;
    readonly moved: number;
    readonly reports: Readonly<Record<string, number>>;
    readonly inner: { readonly packets_per_queue: readonly number[]; readonly flows: number };
    readonly outer: { readonly packets_per_queue: readonly number[] };
  };
}

it('--out-dir has every packet once, in the order of its queue', async () => {
  const out = join(folder, 'queues');
  const { inner } = await json(TUNNELS, '--out-dir', out, '--queues', '4');
  const names = Array.from({ length: 4 }, (_, i) => `queue${i}.pcap`);
  expect(readdirSync(out).sort()).toEqual(names);
  const parts = names.map((name) => frames(join(out, name)));
  expect(parts.map(({ length }) => length)).toEqual(inner.packets_per_queue);
  const whole = frames(TUNNELS);
  expect(parts.flat().sort()).toEqual(whole.toSorted());
  // each file is a subsequence of the capture
  for (const part of parts) {
    let at = 0;
    for (const frame of part) {
      at = whole.indexOf(frame, at) + 1;
      expect(at).toBeGreaterThan(0);
    }
  }
});

describe('options', () => {
  it('no tunnels, no types, one queue', async () => {
    const none = await json(TUNNELS, '--tunnels', 'none');
    expect(none.moved).toBe(0);
    expect(none.inner.packets_per_queue).toEqual(none.outer.packets_per_queue);
    const untyped = await json(TUNNELS, '--types', 'none', '--unclassified', '3');
    expect(untyped.inner.packets_per_queue).toEqual([0, 0, 0, 300, 0, 0, 0, 0]);
    expect(untyped.reports).toEqual({ none: 300 });
    const one = await json(TUNNELS, '--table', '6');
    expect(one.inner.packets_per_queue[6]).toBe(291);
  });

  it('names of any case, masks, groups, ports', async () => {
    const all = await json(TUNNELS, '--tunnels', 'gre,nvgre,ipip,Vxlan,VXLAN_GPE,geneve,gre_udp');
    expect(all).toEqual(await json(TUNNELS, '--tunnels', '0x1ff', '--types', '0x1ff'));
    const v7 = await json(TUNNELS, '--form', 'v7');
    const three = await json(TUNNELS, '--tunnels', 'GRE,NVGRE,VXLAN,GENEVE');
    expect(v7).toEqual(three);
    const elsewhere = await json(TUNNELS, '--port', 'vxlan=1', '--port', 'geneve=2');
    expect(elsewhere.moved).toBeLessThan(all.moved);
  });
});

const ARP_LINK = join(folder, 'link.pcapng');
writeFileSync(
  ARP_LINK,
  writePcapng({
    ...ethernetCapture([{ bytes: new Uint8Array(14), time: 1n }], 'pcapng'),
    interfaces: [{ linkType: 113, snapLength: 0, options: [] }],
  }),
);
const cut = join(folder, 'cut.pcap');
writeFileSync(cut, readFileSync(TUNNELS).subarray(0, 1000));
const text = join(folder, 'notes.txt');
writeFileSync(text, 'no capture');

it.each<[string[], number, string]>([
  [[TUNNELS, '--table', '1,2,3'], 1, 'RSS_CONFIG: table of 3 entries, no power of two'],
  [[TUNNELS, '--table', '1,9'], 1, 'RSS_CONFIG: table entry 1 names queue 9 of 8'],
  [[TUNNELS, '--table', '70000'], 1, 'table names queue 70000 of 8'],
  [[TUNNELS, '--entries', '100'], 1, 'RSS_CONFIG: table of 100 entries, no power of two'],
  [[TUNNELS, '--types', '0x200'], 1, 'RSS_CONFIG: hash types not supported: bit 9'],
  [[TUNNELS, '--tunnels', '0x200'], 1, 'HASH_TUNNEL_SET: tunnel types not supported: bit 9'],
  [[TUNNELS, '--key', '00'.repeat(256)], 1, 'key of 256 bytes: at most 255 fit'],
  [[TUNNELS, '--key', '6d5'], 2, '--key: odd number of hex digits (3) (or microsoft, symmetric)'],
  [
    [TUNNELS, '--port', 'stt=7471'],
    2,
    "--port takes gre-udp|vxlan|vxlan-gpe|geneve=NUMBER, not 'stt=7471'",
  ],
  [[TUNNELS, '--queues', '0'], 2, "--queues takes a whole number from 1 to 32768, not '0'"],
  [[TUNNELS, '--out-dir', text], 1, `${text}: not a directory`],
  [
    [TUNNELS, '--queues', '2000', '--out-dir', folder],
    2,
    '--out-dir writes at most 1024 files, not 2000',
  ],
  [['nowhere.pcap'], 1, 'nowhere.pcap: no such file'],
  [[ARP_LINK], 1, `${ARP_LINK}: link type 113, not Ethernet (1)`],
  [[cut], 1, 'capture cut in packet 9 at byte 943: 82 bytes announced, 57 left'],
  [[TUNNELS, 'another'], 2, "unexpected 'another'"],
  [['--queues', '4'], 2, '--queues is for a capture: CAPTURE is missing'],
  [[TUNNELS, '--experiment', 'gre-inner'], 2, '--experiment makes its own packets'],
  [['--experiment', 'frob'], 2, "no experiment 'frob' (there are gre-outer, gre-inner"],
])('%j: one line', async (words, code, message) => {
  const result = await runForTest(['rss', ...words]);
  expect(result.code).toBe(code);
  expect(result.notices[0]?.startsWith(`Error: ${message}`) ? message : result.notices[0]).toBe(
    message,
  );
  expect(result.lines).toEqual([]);
});

it('reads a capture that is cut or no capture without leaving files', async () => {
  const out = join(folder, 'never');
  expect((await runForTest(['rss', text, '--out-dir', out])).code).toBe(1);
  expect(readdirSync(folder)).not.toContain('never');
  const own = join(folder, 'queue0.pcap');
  writeFileSync(own, readFileSync(TUNNELS));
  const { code, notices } = await runForTest(['rss', own, '--out-dir', folder]);
  expect([code, notices[0]]).toEqual([2, `Error: ${own} is the capture that is read`]);
  expect(frames(own)).toHaveLength(300);
});
