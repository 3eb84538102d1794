/**
 * Control commands in words, and random ones.
 *
 *   promisc=off allmulti=on alluni= nomulti= nouni= nobcast=     mac=52:54:00:00:00:09
 *   mac-table=2,1 (so many unicast and multicast addresses)      vlan-add=100 vlan-del=100
 *   announce   queues=4   offloads=0x82   rss=0x3f,4 hash=0x3f   hash-tunnel=0x10
 *   coal-rx=15,10 coal-tx=15,10 coal-vq=0,15,10 coal-get=0       stats stats-get=0   rss-ctx=0   hex=000000
 *
 * Usage:
 *   controlCommand('promisc=off');      // { request: 00 00 00, replyBytes: 0 }
 */
import { hexToBytes } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import type { Random } from '../../common/random.js';
import { parseMac } from '../../net/address.js';
import { concatBytes } from '../../net/packet.js';
import {
  buildHashConfig,
  buildHashTunnelSet,
  buildRssConfig,
  buildVqPairsSet,
} from '../../net/rss/config.js';

export interface ControlCommandText {
  /** Class, command, data. */
  readonly request: Uint8Array;
  /** Bytes that the guest has room for behind the ack. */
  readonly replyBytes: number;
}

type Build = (values: readonly string[], word: string) => ControlCommandText;

const KEY = Uint8Array.from({ length: 40 }, (_, i) => i + 1);
const TABLE_ENTRIES = 128;
const ALL_STATISTICS = 0xffff_ffff_ffff_ffffn;

function plain(...parts: readonly (number | Uint8Array)[]): ControlCommandText {
  const request = concatBytes(
    ...parts.map((part) => (typeof part === 'number' ? Uint8Array.of(part) : part)),
  );
  return { request, replyBytes: 0 };
}

function number(text: string | undefined, word: string, most: number): number {
  const value = Number(text === undefined || text === '' ? NaN : text);
  if (Number.isInteger(value) && value >= 0 && value <= most) return value;
  throw new InputError(`'${word}': a whole number up to ${most} is wanted, not '${text ?? ''}'`);
}

function littleEndian(value: bigint, bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn));
}

const u16 = (text: string | undefined, word: string): Uint8Array =>
  littleEndian(BigInt(number(text, word, 0xffff)), 2);
const u32 = (text: string | undefined, word: string): Uint8Array =>
  littleEndian(BigInt(number(text, word, 0xffffffff)), 4);

function switched(command: number): Build {
  return ([value], word) => {
    if (value !== 'on' && value !== 'off') throw new InputError(`'${word}': on or off is wanted`);
    return plain(0, command, value === 'on' ? 1 : 0);
  };
}

/** Address `index` of a kind. */
function address(first: number, index: number): Uint8Array {
  return Uint8Array.of(first, 0, 0x5e, index >> 16, (index >> 8) & 0xff, index & 0xff);
}

/** MAC_TABLE_SET with made-up addresses. */
export function macTable(unicasts: number, multicasts: number): Uint8Array {
  const list = (first: number, count: number): Uint8Array[] => [
    littleEndian(BigInt(count), 4),
    ...Array.from({ length: count }, (_, i) => address(first, i)),
  ];
  return concatBytes(Uint8Array.of(1, 0), ...list(2, unicasts), ...list(1, multicasts));
}

function rssData(hashTypes: number, pairs: number, key: Uint8Array): Uint8Array {
  const table = Uint16Array.from({ length: TABLE_ENTRIES }, (_, i) => i % pairs);
  return buildRssConfig({ hashTypes, unclassifiedQueue: 0, table, maxTxVq: pairs, key });
}

const COMMANDS: Readonly<Record<string, Build>> = {
  promisc: switched(0),
  allmulti: switched(1),
  alluni: switched(2),
  nomulti: switched(3),
  nouni: switched(4),
  nobcast: switched(5),
  mac: ([text = '']) => plain(1, 1, parseMac(text)),
  'mac-table': ([unicasts, multicasts], word) => ({
    request: macTable(number(unicasts, word, 100_000), number(multicasts ?? '0', word, 100_000)),
    replyBytes: 0,
  }),
  'vlan-add': ([id], word) => plain(2, 0, u16(id, word)),
  'vlan-del': ([id], word) => plain(2, 1, u16(id, word)),
  announce: () => plain(3, 0),
  queues: ([pairs], word) => plain(4, 0, buildVqPairsSet(number(pairs, word, 0xffff))),
  rss: ([types, pairs], word) =>
    plain(4, 1, rssData(number(types, word, 0x1ff), number(pairs ?? '1', word, 0x8000), KEY)),
  hash: ([types], word) =>
    plain(4, 2, buildHashConfig({ hashTypes: number(types, word, 0x1ff), key: KEY })),
  offloads: ([mask = ''], word) => {
    if (!/^(0x[0-9a-f]+|\d+)$/i.test(mask)) throw new InputError(`'${word}': a mask is wanted`);
    return plain(5, 0, littleEndian(BigInt(mask), 8));
  },
  'coal-tx': ([packets, usecs], word) => plain(6, 0, u32(packets, word), u32(usecs, word)),
  'coal-rx': ([packets, usecs], word) => plain(6, 1, u32(packets, word), u32(usecs, word)),
  'coal-vq': ([vq, packets, usecs], word) =>
    plain(6, 2, u16(vq, word), u16('0', word), u32(packets, word), u32(usecs, word)),
  'coal-get': ([vq], word) => ({ ...plain(6, 3, u16(vq, word), u16('0', word)), replyBytes: 8 }),
  'hash-tunnel': ([types], word) => plain(7, 0, buildHashTunnelSet(number(types, word, 0x1ff))),
  stats: () => ({ ...plain(8, 0), replyBytes: 8 }),
  // all types of one queue
  'stats-get': ([vq], word) => ({
    ...plain(8, 1, u16(vq, word), new Uint8Array(6), littleEndian(ALL_STATISTICS, 8)),
    replyBytes: 256,
  }),
  'rss-ctx': ([command], word) => ({
    ...plain(9, number(command, word, 3), new Uint8Array(8)),
    replyBytes: 16,
  }),
  hex: ([text = '']) => plain(hexToBytes(text)),
};

export const CONTROL_COMMAND_NAMES = Object.keys(COMMANDS);

/** Throws InputError for what is no command. */
export function controlCommand(word: string): ControlCommandText {
  const [name = '', value = ''] = word.split('=', 2);
  const build = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!build) {
    throw new InputError(`no command '${name}' (there are ${CONTROL_COMMAND_NAMES.join(', ')})`);
  }
  return build(value.split(','), word);
}

/**
 * A command that a device with `pairs` queue pairs and `offloads` takes, and sometimes one that it refuses. VLANs
 * are below `vlans`, of which 4096 and more are none.
 */
export function randomCommand(
  random: Random,
  pairs: number,
  offloads: bigint,
  vlans = 4100,
): Uint8Array {
  const onOff = random.below(2);
  const types = 1 + random.below(0x1ff);
  switch (random.below(12)) {
    case 0:
    case 1:
      return Uint8Array.of(0, random.below(7), onOff);
    case 2:
      return concatBytes(Uint8Array.of(1, 1), address(2, random.below(1 << 20)));
    case 3:
      return macTable(random.below(70), random.below(70));
    case 4:
    case 5:
      return concatBytes(Uint8Array.of(2, 0), littleEndian(BigInt(random.below(vlans)), 2));
    case 6:
      return concatBytes(Uint8Array.of(2, 1), littleEndian(BigInt(random.below(vlans)), 2));
    case 7:
      return concatBytes(Uint8Array.of(4, 0), buildVqPairsSet(random.below(pairs + 2)));
    case 8: {
      const some = [1, 2, 4].filter((each) => each <= pairs);
      return concatBytes(Uint8Array.of(4, 1), rssData(types, random.pick(some), KEY));
    }
    case 9:
      return concatBytes(Uint8Array.of(4, 2), buildHashConfig({ hashTypes: types, key: KEY }));
    case 10:
      return concatBytes(Uint8Array.of(5, 0), littleEndian(random.u64() & offloads, 8));
    default:
      return Uint8Array.of(random.below(11), random.below(5), 0, 0);
  }
}
