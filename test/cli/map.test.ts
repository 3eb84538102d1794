import { describe, expect, it } from 'vitest';
import { runForTest } from '../helpers/cli.js';

const CAPTURE = ['--pcap', 'examples/captures/mixed.pcap'];
const DROP_PORTS = ['examples/xdp/drop_ports.o', '--set', 'drop_list[53]=7'];

async function map(...words: string[]): Promise<string> {
  const { code, lines, notices } = await runForTest(['map', ...words]);
  expect(notices).toEqual([]);
  expect(code).toBe(0);
  return lines.join('\n');
}

describe('map list', () => {
  it('names maps with their sizes', async () => {
    expect(await map('list', 'examples/xdp/vlan_ipv6.o')).toBe(
      [
        '1: array  name vlan_ipv.rodata  flags 0x480',
        '\tkey 4B  value 2B  max_entries 1',
        '\tfrozen',
        '2: array  name vlan_ipv.data  flags 0x400',
        '\tkey 4B  value 2B  max_entries 1',
        '3: array  name vlan_ipv.bss  flags 0x400',
        '\tkey 4B  value 64B  max_entries 1',
      ].join('\n'),
    );
  });

  it('as JSON has the names of bpftool', async () => {
    expect(JSON.parse(await map('list', 'examples/xdp/count_protocols.o', '-j'))).toEqual([
      {
        id: 1,
        type: 'percpu_array',
        name: 'counters',
        flags: 0,
        bytes_key: 4,
        bytes_value: 16,
        max_entries: 256,
        frozen: 0,
      },
    ]);
  });
});

describe('map dump', () => {
  it.each(['interpreter', 'wasm', 'embedded'])('after a capture on %s', async (engine) => {
    expect(await map('dump', ...DROP_PORTS, ...CAPTURE, '--engine', engine)).toBe(
      ['[{', '        "key": 53,', '        "value": 17', '    }', ']'].join('\n'),
    );
  });

  it('counts on when a capture is repeated', async () => {
    const text = await map('dump', ...DROP_PORTS, ...CAPTURE, '--repeat', '3', '-j');
    const [{ formatted }] = JSON.parse(text) as [{ formatted: unknown }];
    expect(formatted).toEqual({ key: 53, value: 7 + 3 * 10 });
  });

  it('of several maps has a header for each', async () => {
    expect(await map('dump', 'test/vectors/objects/legacy_maps.o')).toBe(
      [
        '1: array  name first  flags 0x0',
        'key: 00 00 00 00  value: 00 00 00 00 00 00 00 00',
        'key: 01 00 00 00  value: 00 00 00 00 00 00 00 00',
        'Found 2 elements',
        '2: hash  name second  flags 0x1',
        'Found 0 elements',
      ].join('\n'),
    );
    const records = JSON.parse(
      await map('dump', 'test/vectors/objects/legacy_maps.o', '-j'),
    ) as unknown;
    expect(records).toEqual([
      {
        id: 1,
        type: 'array',
        name: 'first',
        flags: 0,
        elements: [0, 1].map((i) => ({
          key: [`0x0${i}`, '0x00', '0x00', '0x00'],
          value: Array.from({ length: 8 }, () => '0x00'),
        })),
      },
      { id: 2, type: 'hash', name: 'second', flags: 1, elements: [] },
    ]);
  });
});

it.each([
  [['map'], 2, /takes dump or list/],
  [['map', 'show', 'x.o'], 2, /takes dump or list, not 'show'/],
  [['map', 'dump'], 2, /PROG\.o is missing/],
  [['map', 'dump', 'examples/xdp/drop_ports.o', '--map', 'x'], 1, /no map 'x', but: drop_list/],
  [
    ['map', 'dump', 'examples/xdp/drop_ports.o', '--mem', '00', ...CAPTURE],
    2,
    /exclude each other/,
  ],
  [['map', 'dump', 'examples/xdp/drop_ports.o', '--mem', '0011'], 1, /a packet of 2 bytes/],
])('%j fails with %i', async (words, code, why) => {
  const result = await runForTest(words);
  expect(result.code).toBe(code);
  expect(result.notices.join('\n')).toMatch(why);
});
