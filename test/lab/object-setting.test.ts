import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/common/errors.js';
import { viewOf } from '../../src/common/bytes.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { withGlobal, withMaxEntries } from '../../src/lab/object-setting.js';
import { XdpRun } from '../bpf/xdp-run.js';
import { runForTest } from '../helpers/cli.js';

const OBJECT = 'test/vectors/objects/settings.o';
const spec = parseObject(Uint8Array.from(readFileSync(OBJECT)), { name: 'settings' });
const sized = withMaxEntries(spec, 'counts=1');

describe('global variables are set as C names them', () => {
  // the verdict is `mode` or, if `strict`, 0; the count is the sum of the other settings
  it.each<readonly [readonly string[], number, bigint]>([
    [[], 2, 5n],
    [['mode=MODE_DROP'], 1, 5n],
    [['mode=3'], 3, 5n],
    [['strict=true'], 0, 5n],
    [['offset=-4'], 2, -4n],
    [['offset=0x10', 'config.rules[1].port=53'], 2, 0x45n],
    [['config.rules[0].octets[3]=7'], 2, 12n],
    [['config.rules[0].address=10.0.0.9'], 2, 14n],
    [['config=hex:00000000000000003500'], 2, 58n],
    [['config.rules[1]=hex:3500', 'config.rules[0].octets=hex:00000001'], 2, 59n],
  ])('%j', (settings, verdict, count) => {
    const run = new XdpRun(settings.reduce(withGlobal, sized));
    expect(run.run('verdict', new Uint8Array(60)).verdict).toBe(verdict);
    const [value] = run.map('counts').get(new Uint8Array(4)) ?? [];
    expect(value && viewOf(value).getBigInt64(0, true)).toBe(count);
  });

  it.each([
    ['mode', /no setting of the form VARIABLE=VALUE/],
    ['nothing=1', /no global variable 'nothing', but: .*offset/],
    ['config.rules[2].port=1', /there is no element 2/],
    ['config.gone=1', /there is no member 'gone'/],
    ['config.first=1', /first is a bit-field/],
    ['offset.x=1', /there is no member 'x'/],
    ['offset=99999999999', /does not fit 4 bytes/],
    ['mode=MODE_OTHER', /MODE_OTHER/],
    ['config.rules[0].port=hex:010203', /3 bytes do not fit 2/],
  ])('%s is refused', (setting, expected) => {
    const set = (): unknown => withGlobal(spec, setting);
    expect(set).toThrow(InputError);
    expect(set).toThrow(expected);
  });
});

describe('maps are sized by name', () => {
  it.each([
    ['counts', /no setting of the form MAP=ENTRIES/],
    ['counts=many', /no setting of the form MAP=ENTRIES/],
    ['gone=1', /no map 'gone' to size, but: counts/],
    ['settings.rodata=2', /no map 'settings.rodata' to size/],
    ['counts=4294967296', /more than 4294967295 entries/],
  ])('%s is refused', (setting, expected) => {
    expect(() => withMaxEntries(spec, setting)).toThrow(expected);
  });
});

describe('on the command line', () => {
  const xdp = ['xdp', OBJECT, '--pcap', 'examples/captures/mixed.pcap'];

  it('a map that nobody sized is refused, as by the kernel', async () => {
    const { code, notices } = await runForTest(xdp);
    expect(code).toBe(1);
    expect(notices).toEqual([
      'Error: -EINVAL: map counts: max_entries 0: its loader is to size it',
    ]);
  });

  it('the only XDP program among others is meant', async () => {
    const settings = ['--max-entries', 'counts=1', '--global', 'mode=MODE_DROP'];
    const { code, lines, notices } = await runForTest([...xdp, ...settings]);
    expect([code, notices]).toEqual([0, []]);
    expect(lines[1]).toMatch(/^XDP_DROP +200$/);
  });

  it.each([
    ['map', ['dump', OBJECT, '--map', 'counts']],
    ['run', [OBJECT, '--program', 'verdict', '--maps']],
  ])('%s takes them too', async (command, words) => {
    const settings = [
      '--max-entries',
      'counts=1',
      '--global',
      'offset=9',
      '--mem',
      '00'.repeat(60),
    ];
    const { code, lines } = await runForTest([command, ...words, ...settings]);
    expect(code).toBe(0);
    expect(lines.join('\n')).toMatch(/"value": 9|0: 9$/m);
  });
});
