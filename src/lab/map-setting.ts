/**
 * Map entries from text: `drop_list[53]=0`, `tunnels[10.0.0.1]=hex:0a00...`.
 *
 * Keys and values are whole numbers (little-endian, as wide as the map wants), dotted IPv4 addresses
 * (network order), or `hex:` and bytes. What is shorter than the map's size is filled up with zeros. In maps
 * that packets are redirected through a value is up to two words, `ports[6]=eth1,stamp_source`: each a number or
 * a name that the caller knows.
 */
import { isRedirectMap, type BpfMap } from '../bpf/maps/map.js';
import { hexToBytes, viewOf } from '../common/bytes.js';
import { errnoName } from '../common/errno.js';
import { InputError, KernelError } from '../common/errors.js';
import { parseIpv4 } from '../net/address.js';

/** A number, an IPv4 address or `hex:` and bytes, filled up with zeros. `what` names it in errors. */
export function parseBytes(text: string, size: number, what: string): Uint8Array {
  const bytes = new Uint8Array(size);
  const number = /^(\d+|0x[0-9a-f]+)$/i.test(text) ? BigInt(text) : undefined;
  if (number !== undefined) {
    if (number >= 1n << BigInt(8 * size)) {
      throw new InputError(`${what}: ${text} does not fit ${size} bytes`);
    }
    for (let i = 0; i < size; i++) bytes[i] = Number((number >> BigInt(8 * i)) & 0xffn);
    return bytes;
  }
  const given = text.startsWith('hex:') ? hexToBytes(text.slice(4)) : parseIpv4(text);
  if (given.length > size) {
    throw new InputError(`${what}: ${given.length} bytes do not fit ${size}`);
  }
  bytes.set(given);
  return bytes;
}

/** Words of a redirect map's value. Throws InputError for a name that nobody knows. */
function parseWords(
  text: string,
  size: number,
  what: string,
  names: ReadonlyMap<string, number>,
): Uint8Array {
  const words = text.split(',');
  if (4 * words.length > size) {
    throw new InputError(`${what}: '${text}' is ${words.length} words, ${size} bytes are there`);
  }
  const bytes = new Uint8Array(size);
  for (const [index, word] of words.entries()) {
    const number = /^(\d+|0x[0-9a-f]+)$/i.test(word) ? Number(word) : names.get(word);
    if (number === undefined || number > 0xffff_ffff) {
      const known = [...names.keys()].join(', ') || 'none at all';
      throw new InputError(`${what}: '${word}' is neither a number nor one of: ${known}`);
    }
    viewOf(bytes).setUint32(4 * index, number, true);
  }
  return bytes;
}

/**
 * Applies one setting to the maps of an object.
 *
 * @param names devices and programs that values of redirect maps may name, with their numbers
 */
export function applySetting(
  maps: ReadonlyMap<string, BpfMap>,
  text: string,
  names: ReadonlyMap<string, number> = new Map(),
): void {
  const match = /^(\S+?)\[(.+?)\]=(.+)$/.exec(text);
  if (!match) throw new InputError(`'${text}' is no setting of the form MAP[KEY]=VALUE`);
  const [, name, key, value] = match as unknown as [string, string, string, string];
  const map = maps.get(name);
  if (!map) {
    throw new InputError(`no map '${name}', but: ${[...maps.keys()].join(', ') || 'none at all'}`);
  }
  const { keySize, valueSize } = map.spec;
  const keyBytes = parseBytes(key, keySize, `key of ${name}`);
  const what = `value of ${name}`;
  const valueBytes =
    isRedirectMap(map) && !value.startsWith('hex:')
      ? parseWords(value, valueSize, what, names)
      : parseBytes(value, valueSize, what);
  const result = map.set(keyBytes, valueBytes);
  if (result !== 0) throw new KernelError(errnoName(result) ?? 'EINVAL', `${text} is refused`);
}
