/**
 * A CLC message field by field: offset, bytes, meaning.
 *
 * Usage:
 *   for (const line of describeMessage(bytes)) print(line);
 */
import { bytesToHex, viewOf } from '../../common/bytes.js';
import { declineName } from '../constants.js';
import {
  ACCEPT_CONFIRM,
  ACCEPT_CONFIRM_V1,
  ACCEPT_CONFIRM_V2,
  CLC_HDR,
  DECLINE,
  DECLINE_V2,
  EID,
  FIRST_CONTACT,
  FIRST_CONTACT_V2X,
  GID_CHID,
  PREFIX_IPV6,
  PROPOSAL_BASE,
  PROPOSAL_PREFIX,
  PROPOSAL_SMCD,
  SMCD_V2_EXT,
  TRAILER,
  V2_EXT,
  type MessageField,
  type MessagePart,
} from './fields.js';
import { CLC_TYPE, SMC_EYECATCHER, SMC_FIRST_CONTACT_MASK, SMC_TYPE } from './messages.js';
import { messageProblem, partsOfProposal, readHeader } from './parse.js';

/** A field of a message. */
export interface DescribedField {
  readonly part: string;
  readonly name: string;
  readonly offset: number;
  readonly hex: string;
  /** What it says, in words. */
  readonly value: string;
}

const TYPE_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(CLC_TYPE).map(([name, value]) => [value, name.toLowerCase()]),
);
const SMC_TYPE_NAMES = 'RDNB';

export function messageName(bytes: Uint8Array): string {
  const { type, version } = readHeader(bytes);
  return `${TYPE_NAMES.get(type) ?? `type ${type}`} v${version}`;
}

/** All fields in the order of the message; of a malformed one the header only. */
export function describeMessage(bytes: Uint8Array): readonly DescribedField[] {
  const placed: (readonly [MessagePart, number])[] = [[CLC_HDR, 0]];
  if (messageProblem(bytes) === undefined) placed.push(...bodyParts(bytes));
  return placed.flatMap(([part, at]) =>
    part.fields.map((field) => ({
      part: part.name,
      name: field.name,
      offset: at + field.offset,
      hex: bytesToHex(bytes.subarray(at + field.offset, at + field.offset + field.size)),
      value: valueOf(field, bytes, at + field.offset),
    })),
  );
}

function bodyParts(bytes: Uint8Array): (readonly [MessagePart, number])[] {
  const { type, version, typeV1 } = readHeader(bytes);
  const placed: (readonly [MessagePart, number])[] = [];
  let at = CLC_HDR.size;
  const add = (part: MessagePart): void => {
    placed.push([part, at]);
    at += part.size;
  };
  switch (type) {
    case CLC_TYPE.PROPOSAL: {
      const { prefix, ipv6, v2, eids, smcd, gids } = partsOfProposal(bytes);
      add(PROPOSAL_BASE);
      add(PROPOSAL_SMCD);
      if (prefix !== undefined) add(PROPOSAL_PREFIX);
      for (let i = 0; i < ipv6; i++) add(PREFIX_IPV6);
      if (v2 !== undefined) add(V2_EXT);
      for (let i = 0; i < eids; i++) add(EID);
      if (smcd !== undefined) add(SMCD_V2_EXT);
      for (let i = 0; i < gids; i++) add(GID_CHID);
      break;
    }
    case CLC_TYPE.DECLINE:
      add(DECLINE);
      if (version > 1) add(DECLINE_V2);
      break;
    default: {
      const left = (part: MessagePart): boolean => at + part.size + TRAILER.size <= bytes.length;
      // what SMC-R says of queue pairs and keys stays unnamed
      if (typeV1 === SMC_TYPE.R) break;
      add(ACCEPT_CONFIRM);
      add(version === 1 ? ACCEPT_CONFIRM_V1 : ACCEPT_CONFIRM_V2);
      const isFirst = ((bytes[7] ?? 0) & SMC_FIRST_CONTACT_MASK) !== 0;
      if (version > 1 && isFirst && left(FIRST_CONTACT)) add(FIRST_CONTACT);
      if (version > 1 && isFirst && left(FIRST_CONTACT_V2X)) add(FIRST_CONTACT_V2X);
    }
  }
  at = bytes.length - TRAILER.size;
  add(TRAILER);
  return placed;
}

function valueOf({ name, kind, size }: MessageField, bytes: Uint8Array, at: number): string {
  const view = viewOf(bytes);
  const first = view.getUint8(at);
  switch (kind) {
    case 'eyecatcher':
      return view.getUint32(at) === SMC_EYECATCHER ? 'SMCR' : 'SMCD';
    case 'text': {
      const text = bytes.subarray(at, at + size);
      if (text.every((byte) => byte === 0)) return 'none';
      return `'${new TextDecoder('latin1').decode(text).trimEnd()}'`;
    }
    case 'number':
      if (name === 'type') return TYPE_NAMES.get(first) ?? '?';
      return size === 1 ? String(first) : String(view.getUint16(at));
    case 'raw':
      return `0x${view.getUint32(at, true).toString(16).padStart(8, '0')}`;
    case 'hex':
      break;
  }
  switch (name) {
    case 'version:4 typev2:2 typev1:2':
      return versionAndTypes(bytes, first);
    case 'release:4 seid:1':
      return `release ${first >> 4}, SEID ${(first & 1) !== 0 ? 'offered' : 'not offered'}`;
    case 'dmbe_size:4':
      return `${16384 << (first >> 4)} bytes`;
    case 'os_type:4 release:4':
      return `OS ${first >> 4}, release ${first & 0xf}`;
    case 'os_type:4':
      return first >> 4 === 0 ? 'not told' : `OS ${first >> 4}`;
    case 'peer_diagnosis':
      return declineName(view.getUint32(at));
    case 'feature_mask':
      return (view.getUint16(at) & 1) !== 0 ? 'Emulated-ISM' : 'none';
    case 'chid':
    case 'ism.chid':
      return chidName(view.getUint16(at));
    default:
      return '';
  }
}

function versionAndTypes(bytes: Uint8Array, flags: number): string {
  const version = `version ${flags >> 4}`;
  if ((bytes[4] ?? 0) === CLC_TYPE.PROPOSAL) {
    const [v2, v1] = [(flags >> 2) & 3, flags & 3];
    return `${version}, v2 ${SMC_TYPE_NAMES[v2] ?? ''}, v1 ${SMC_TYPE_NAMES[v1] ?? ''}`;
  }
  const isSet = (flags & SMC_FIRST_CONTACT_MASK) !== 0;
  if ((bytes[4] ?? 0) === CLC_TYPE.DECLINE) return isSet ? `${version}, out of sync` : version;
  return `${version}, type ${SMC_TYPE_NAMES[flags & 3] ?? ''}${isSet ? ', first contact' : ''}`;
}

function chidName(chid: number): string {
  if (chid === 0xffff) return 'loopback';
  if (chid >= 0xff00) return 'virtio-ism';
  return chid === 0 ? 'none' : 'ISM';
}
