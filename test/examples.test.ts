import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { bytesToHex, viewOf } from '../src/common/bytes.js';
import { decodeValue } from '../src/bpf/btf/value.js';
import { load } from '../src/bpf/object/load.js';
import { findVariable, readVariable, withVariable } from '../src/bpf/object/variables.js';
import { PlainHost } from '../src/bpf/plain-host.js';
import { helperBodies } from '../src/bpf/helpers/table.js';
import { createInterpreter } from '../src/bpf/interpreter.js';
import { XDP_ACTIONS } from '../src/bpf/xdp-buff.js';
import { parseIpv4 } from '../src/net/address.js';
import { checksumHolds } from '../src/net/checksum.js';
import { ethernet, ETHERTYPE, IPPROTO, ipv4 } from '../src/net/packet.js';
import { readCapture } from '../src/net/read-capture.js';
import { exampleCaptures } from '../src/net/sample-traffic.js';
import { readObject, XdpRun } from './bpf/xdp-run.js';

const examples = new URL('../examples/', import.meta.url);
const frames = (name: string): Uint8Array[] =>
  readCapture(readFileSync(new URL(`captures/${name}`, examples))).packets.map((p) => p.bytes);
const mixed = frames('mixed.pcap');
const ipv6Frames = frames('ipv6.pcap');

const u16 = (value: number): Uint8Array => Uint8Array.of(value & 255, value >> 8);
const u32 = (value: number): Uint8Array =>
  Uint8Array.of(value, value >> 8, value >> 16, value >> 24);
const u64At = (bytes: Uint8Array, offset = 0): bigint => viewOf(bytes).getBigUint64(offset, true);

function xdp(object: string, cpuCount = 1): XdpRun {
  return new XdpRun(readObject(new URL(`xdp/${object}.o`, examples)), { cpuCount });
}

/** Verdicts over frames, counted by name; `each` sees every result. */
function verdicts(
  run: XdpRun,
  program: string,
  packets: readonly Uint8Array[],
  each: (frame: Uint8Array, verdict: number, packet: Uint8Array) => void = () => {},
): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const frame of packets) {
    const { verdict, packet } = run.run(program, frame);
    const name = XDP_ACTIONS[verdict] ?? `${verdict}`;
    counts[name] = (counts[name] ?? 0) + 1;
    each(frame, verdict, packet);
  }
  return counts;
}

// What the programs should do, said again in TypeScript.
const typeOf = (frame: Uint8Array): number =>
  frame.length < 14 ? -1 : viewOf(frame).getUint16(12);
const isIpv4 = (frame: Uint8Array): boolean =>
  typeOf(frame) === ETHERTYPE.IPV4 && frame.length >= 34;
const isIpv6 = (frame: Uint8Array): boolean =>
  typeOf(frame) === ETHERTYPE.IPV6 && frame.length >= 54;

describe('captures', () => {
  it('are what the script makes', () => {
    const made = exampleCaptures();
    expect(readdirSync(new URL('captures/', examples)).sort()).toEqual([...made.keys()].sort());
    for (const [name, bytes] of made) {
      expect(bytesToHex(readFileSync(new URL(`captures/${name}`, examples)))).toBe(
        bytesToHex(bytes),
      );
    }
  });
});

describe('objects', () => {
  const objects = ['xdp', 'tracing'].flatMap((folder) =>
    readdirSync(new URL(`${folder}/`, examples))
      .filter((name) => name.endsWith('.o'))
      .map((name) => `${folder}/${name}`),
  );

  it.each(objects)('%s loads, and leaves nothing when freed', (path) => {
    const host = new PlainHost({ helpers: helperBodies() });
    const object = load(readObject(new URL(path, examples)), host, { deviceBound: true });
    for (const program of object.programs) {
      expect(program.functions[0]?.lines.length).toBeGreaterThan(0);
      createInterpreter(program.xlated, host).close();
    }
    object.free();
    expect(host.memory.regions).toEqual([]);
  });

  it('are one for each source', () => {
    const sources = ['xdp', 'tracing'].flatMap((folder) =>
      readdirSync(new URL(`${folder}/`, examples))
        .filter((name) => name.endsWith('.c'))
        .map((name) => `${folder}/${name.replace(/c$/, 'o')}`),
    );
    expect(objects.sort()).toEqual(sources.sort());
  });
});

describe('count_protocols', () => {
  it('counts packets and bytes by protocol, on the CPU it runs on', () => {
    const run = xdp('count_protocols', 2);
    const expected = new Map<number, [number, number]>();
    run.host.setCurrentCpu(1);
    const counts = verdicts(run, 'count_protocols', mixed, (frame) => {
      const protocol = isIpv4(frame) ? frame[23] : isIpv6(frame) ? frame[20] : 255;
      const before = expected.get(protocol ?? 255) ?? [0, 0];
      expected.set(protocol ?? 255, [before[0] + 1, before[1] + frame.length]);
    });
    expect(counts).toEqual({ XDP_PASS: mixed.length });
    expect(expected.size).toBeGreaterThan(5);
    for (let protocol = 0; protocol < 256; protocol++) {
      const [first, second] = run.map('counters').get(u32(protocol)) ?? [];
      const [packets, bytes] = expected.get(protocol) ?? [0, 0];
      expect(first).toEqual(new Uint8Array(16));
      expect(u64At(second ?? u32(0))).toBe(BigInt(packets));
      expect(u64At(second ?? u32(0), 8)).toBe(BigInt(bytes));
    }
  });
});

describe('top_talkers', () => {
  it('keeps the highest addresses in a tree, and gives all back', () => {
    const run = xdp('top_talkers');
    const seen = new Set<number>();
    let total = 0;
    verdicts(run, 'top_talkers', mixed, (frame, verdict) => {
      expect(XDP_ACTIONS[verdict]).toBe('XDP_PASS');
      const view = viewOf(frame);
      if (frame.length < 34 || view.getUint16(12) !== ETHERTYPE.IPV4) return;
      seen.add(view.getUint32(26));
      total += frame.length;
    });
    const value = (name: string): number => {
      const bytes = readVariable(run.object, run.host.memory, name);
      return Number(viewOf(bytes).getBigUint64(0, true));
    };
    expect(seen.size).toBeGreaterThan(8);
    expect(value('total')).toBe(total);
    expect([value('in_tree'), value('dropped')]).toEqual([8, seen.size - 8]);
    run.object.free();
    expect(run.host.liveBytes).toBe(0);
  });
});

describe('drop_ports', () => {
  it('drops listed ports only, and counts them', () => {
    const run = xdp('drop_ports');
    const listed = new Map([53, 443, 9999].map((port) => [port, 0]));
    for (const port of listed.keys()) run.map('drop_list').set(u16(port), new Uint8Array(8));
    const counts = verdicts(run, 'drop_ports', mixed, (frame, verdict) => {
      const view = viewOf(frame);
      const fixed = isIpv4(frame) && frame[14] === 0x45 && (view.getUint16(20) & 0x1fff) === 0;
      const [protocol, at] = fixed ? [frame[23], 34] : isIpv6(frame) ? [frame[20], 54] : [0, 0];
      const hasPorts = (protocol === 6 || protocol === 17) && frame.length >= at + 4;
      const port = hasPorts ? view.getUint16(at + 2) : -1;
      const before = listed.get(port);
      expect(XDP_ACTIONS[verdict]).toBe(before === undefined ? 'XDP_PASS' : 'XDP_DROP');
      if (before !== undefined) listed.set(port, before + 1);
    });
    for (const [port, count] of listed) {
      expect(count).toBeGreaterThan(0);
      expect(u64At(run.map('drop_list').get(u16(port))?.[0] ?? u32(0))).toBe(BigInt(count));
    }
    const drops = [...listed.values()].reduce((sum, count) => sum + count, 0);
    expect(counts).toEqual({ XDP_PASS: mixed.length - drops, XDP_DROP: drops });
  });
});

describe('bounce_ttl', () => {
  it('sends IPv4 back one hop older with a right checksum', () => {
    const run = xdp('bounce_ttl');
    const counts = verdicts(run, 'bounce_ttl', mixed, (frame, verdict, packet) => {
      const ttl = frame[22] ?? 0;
      const expected = !isIpv4(frame) ? 'XDP_PASS' : ttl > 1 ? 'XDP_TX' : 'XDP_DROP';
      expect(XDP_ACTIONS[verdict]).toBe(expected);
      if (expected !== 'XDP_TX') {
        expect(packet).toEqual(frame);
        return;
      }
      expect(packet.subarray(0, 6)).toEqual(frame.subarray(6, 12));
      expect(packet.subarray(6, 12)).toEqual(frame.subarray(0, 6));
      expect(packet[22]).toBe(ttl - 1);
      const headerBytes = ((packet[14] ?? 0) & 15) * 4;
      expect(checksumHolds(0, packet.subarray(14, 14 + headerBytes))).toBe(true);
      expect(packet.subarray(26)).toEqual(frame.subarray(26));
    });
    const outcome = (index: number) =>
      Number(u64At(run.map('outcomes').get(u32(index))?.[0] ?? u32(0)));
    expect({ XDP_TX: outcome(0), XDP_DROP: outcome(1), XDP_PASS: outcome(2) }).toEqual(counts);
  });

  it('carries in the checksum', () => {
    const run = xdp('bounce_ttl');
    // checksums from 0xff00 up carry when 0x100 is added
    let carries = 0;
    for (let id = 0; id < 65536; id += 97) {
      const frame = ethernet(
        { type: ETHERTYPE.IPV4 },
        ipv4({ source: '10.0.0.1', destination: '10.0.0.2' }, { protocol: 17, id }, u32(0)),
      );
      if (viewOf(frame).getUint16(24) >= 0xff00) carries++;
      const { packet } = run.run('bounce_ttl', frame);
      expect(checksumHolds(0, packet.subarray(14, 34))).toBe(true);
    }
    expect(carries).toBeGreaterThan(0);
  });
});

describe('ipip_encap', () => {
  it('puts packets for listed addresses into a tunnel', () => {
    const run = xdp('ipip_encap');
    const nextHop = '02:00:00:00:00:fe';
    const tunnel = new Uint8Array(16);
    tunnel.set(parseIpv4('172.16.0.1'), 0);
    tunnel.set(parseIpv4('172.16.0.2'), 4);
    tunnel.set([2, 0, 0, 0, 0, 0xfe], 8);
    run.map('tunnels').set(parseIpv4('10.0.0.1'), tunnel);
    const sent = new Map<number, number>();
    const counts = verdicts(run, 'ipip_encap', mixed, (frame, verdict, packet) => {
      const chosen = isIpv4(frame) && bytesToHex(frame.subarray(30, 34)) === '0a000001';
      expect(XDP_ACTIONS[verdict]).toBe(chosen ? 'XDP_TX' : 'XDP_PASS');
      if (!chosen) return;
      const protocol = frame[23] ?? 0;
      sent.set(protocol, (sent.get(protocol) ?? 0) + 1);
      // what the builders of this project make of it
      const macs = ethernet({ type: ETHERTYPE.IPV4, destination: nextHop }, new Uint8Array(0));
      macs.set(frame.subarray(0, 6), 6);
      const outer = ipv4(
        { source: '172.16.0.1', destination: '172.16.0.2' },
        { protocol: IPPROTO.IPIP },
        frame.subarray(14),
      );
      expect(bytesToHex(packet)).toBe(bytesToHex(macs) + bytesToHex(outer));
    });
    expect(counts['XDP_TX']).toBeGreaterThan(50);
    for (const [protocol, count] of sent) {
      expect(u64At(run.map('sent').get(u32(protocol))?.[0] ?? u32(0))).toBe(BigInt(count));
    }
  });
});

describe('vlan_ipv6', () => {
  interface Expected {
    readonly verdict: 'XDP_PASS' | 'XDP_DROP';
    readonly tags?: number;
    readonly protocol?: number | undefined;
    readonly extensions?: number;
    readonly port?: number | undefined;
  }

  function expectedOf(frame: Uint8Array): Expected {
    if (frame.length < 14) return { verdict: 'XDP_DROP' };
    const view = viewOf(frame);
    let at = 12;
    let tags = 0;
    while (tags < 2 && [ETHERTYPE.VLAN, ETHERTYPE.QINQ].includes(view.getUint16(at) as 0x8100)) {
      if (frame.length < at + 6) return { verdict: 'XDP_DROP' };
      if ((view.getUint16(at + 2) & 0xfff) === 666) return { verdict: 'XDP_DROP' };
      at += 4;
      tags++;
    }
    if (view.getUint16(at) !== ETHERTYPE.IPV6) return { verdict: 'XDP_PASS' };
    at += 2;
    if (frame.length < at + 40) return { verdict: 'XDP_DROP' };
    let protocol = frame[at + 6] ?? 0;
    at += 40;
    let extensions = 0;
    for (let step = 0; step < 4; step++) {
      if (![0, 43, 44, 60].includes(protocol)) {
        const port = at + 4 <= frame.length ? view.getUint16(at + 2) : undefined;
        return { verdict: 'XDP_PASS', tags, protocol, extensions, port };
      }
      if (frame.length < at + 8) return { verdict: 'XDP_DROP', tags, extensions };
      extensions++;
      const size = protocol === 44 ? 8 : 8 + (frame[at + 1] ?? 0) * 8;
      protocol = frame[at] ?? 0;
      at += size;
    }
    return { verdict: 'XDP_DROP', tags, extensions };
  }

  it.each([
    ['ipv6.pcap', ipv6Frames],
    ['mixed.pcap', mixed],
  ])('walks tags and extension headers of %s', (_, packets) => {
    const run = xdp('vlan_ipv6');
    const tags = [0, 0, 0];
    const upper = { 6: 0, 17: 0, 58: 0, other: 0 };
    let extensions = 0;
    let port = 0xffff;
    verdicts(run, 'vlan_ipv6', packets, (frame, verdict, packet) => {
      const expected = expectedOf(frame);
      expect(XDP_ACTIONS[verdict]).toBe(expected.verdict);
      expect(packet).toEqual(frame);
      if (expected.tags !== undefined) tags[expected.tags] = (tags[expected.tags] ?? 0) + 1;
      extensions += expected.extensions ?? 0;
      const { protocol } = expected;
      if (protocol === 6 || protocol === 17) {
        upper[protocol]++;
        port = expected.port ?? port;
      } else if (protocol === 58) upper[58]++;
      else if (protocol !== undefined) upper.other++;
    });
    const value = (name: string): unknown => {
      const { spec } = run.object;
      const bytes = readVariable(run.object, run.host.memory, name);
      return spec.btf && decodeValue(spec.btf, findVariable(spec, name).variable.type, bytes);
    };
    expect(value('vlans')).toEqual({
      untagged: tags[0],
      tagged: tags[1],
      double_tagged: tags[2],
    });
    expect(value('extension_headers')).toBe(extensions);
    expect({
      6: value('tcp_packets'),
      17: value('udp_packets'),
      58: value('icmp_packets'),
      other: value('other_packets'),
    }).toEqual(upper);
    expect(value('last_port')).toBe(port);
    expect(tags.every((count) => count > 0)).toBe(true);
  });

  it('takes another blocked VLAN before loading', () => {
    const spec = readObject(new URL('xdp/vlan_ipv6.o', examples));
    const run = new XdpRun(withVariable(spec, 'blocked_vlan', u16(100)));
    const tagged = (vlan: number) =>
      ethernet({ type: ETHERTYPE.IPV4, vlans: [vlan] }, new Uint8Array(40));
    const verdict = (vlan: number) => XDP_ACTIONS[run.run('vlan_ipv6', tagged(vlan)).verdict];
    expect([100, 666].map(verdict)).toEqual(['XDP_DROP', 'XDP_PASS']);
    expect(() => withVariable(spec, 'blocked_vlan', u32(1))).toThrow(
      "variable 'blocked_vlan' has 2 bytes, not 4",
    );
    expect(() => findVariable(spec, 'nobody')).toThrow(
      /^the object has no global variable 'nobody', but: blocked_vlan, /,
    );
  });
});

describe('tracing programs', () => {
  /** A context as a trampoline lays it out: address and count in front, then arguments, then result. */
  function context(host: PlainHost, ip: bigint, args: readonly bigint[], result?: bigint): bigint {
    const all = [ip, BigInt(args.length), ...args, ...(result === undefined ? [] : [result])];
    const { address } = host.allocate('ctx', 8 * all.length);
    for (const [i, value] of all.entries()) host.memory.write64(address + BigInt(8 * i), value);
    return address + 16n;
  }

  function tracing(object: string) {
    const host = new PlainHost({ helpers: helperBodies() });
    const loaded = load(readObject(new URL(`tracing/${object}.o`, examples)), host);
    const run = (program: string, ctx: bigint) =>
      createInterpreter(loaded.program(program).xlated, host).run(ctx);
    return { host, loaded, run };
  }

  it('fentry_test2 sees arguments before and the result after', () => {
    const { host, loaded, run } = tracing('fentry_test2');
    const before = context(host, 0x1000n, [0xffff_ffff_0000_0002n, 3n]);
    expect(run('test2_entry', before)).toEqual({ kind: 'return', r0: 0n });
    const value = loaded.maps.get('entries')?.get(u32(0))?.[0] ?? u32(0);
    expect([0, 8, 16].map((offset) => u64At(value, offset))).toEqual([2n, 3n, 1n]);
    const after = context(host, 0x1000n, [2n, 3n], 0xffff_fffbn);
    expect(run('test2_exit', after)).toEqual({ kind: 'return', r0: 0n });
    const names = ['exit_a', 'exit_b', 'exit_result', 'exit_calls'];
    const numbers = names.map((name) => {
      const { variable } = findVariable(loaded.spec, name);
      const bytes = readVariable(loaded, host.memory, name);
      return loaded.spec.btf && decodeValue(loaded.spec.btf, variable.type, bytes);
    });
    expect(numbers).toEqual([2, 3, -5, 1]);
    expect(loaded.programs.map(({ contextBytes }) => contextBytes)).toEqual([16, 24]);
  });

  it('receive_sizes sorts lengths into buckets', () => {
    const { host, loaded, run } = tracing('receive_sizes');
    const lengths = [12, 64, 65, 128, 129, 1526, 65535, 300_000];
    for (const length of lengths) {
      const args = [1n, 2n, 3n, 0xdead_0000_0000_0000n | BigInt(length), 4n, 5n, 6n];
      expect(run('receive_sizes', context(host, 0x1000n, args, 0n)).kind).toBe('return');
    }
    const packets = Array.from({ length: 12 }, (_, i) =>
      Number(u64At(loaded.maps.get('sizes')?.get(u32(i))?.[0] ?? u32(0))),
    );
    // 64 << i is the largest length of bucket i
    expect(packets).toEqual([2, 2, 1, 0, 0, 1, 0, 0, 0, 0, 1, 1]);
    expect(loaded.program('receive_sizes').spec).toMatchObject({
      kind: 'fexit',
      attachTarget: 'receive_buf',
    });
  });

  it('call_record reads address, arguments and result without a prototype', () => {
    const { host, loaded, run } = tracing('call_record');
    const address = 0xffff_8000_8001_2344n;
    run('record_exit', context(host, address, [4n, 5n, 6n], 15n));
    run('record_exit', context(host, address, [7n, 8n, 9n], 24n));
    run('record_entry', context(host, address + 64n, [10n]));
    const record = (ip: bigint): bigint[] => {
      const key = new Uint8Array(8);
      viewOf(key).setBigUint64(0, ip, true);
      const value = loaded.maps.get('records')?.get(key)?.[0] ?? new Uint8Array(0);
      return Array.from({ length: value.length / 8 }, (_, i) => u64At(value, 8 * i));
    };
    // address, count, six arguments (those beyond the count are 0), result, status, calls
    expect(record(address)).toEqual([address, 3n, 7n, 8n, 9n, 0n, 0n, 0n, 24n, 0n, 2n]);
    const unsupported = BigInt.asUintN(64, -95n);
    expect(record(address + 64n)).toEqual([
      address + 64n,
      1n,
      10n,
      0n,
      0n,
      0n,
      0n,
      0n,
      0n,
      unsupported,
      1n,
    ]);
    expect(run('modify_return', context(host, address, [1n, 2n], 0n))).toEqual({
      kind: 'return',
      r0: 0n,
    });
  });
});
