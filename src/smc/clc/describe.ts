/**
 * A CLC message field by field: offset, bytes, meaning.
 *
 * Usage:
 *   for (const line of describeMessage(bytes)) print(line);
 */
import { bytesToHex, viewOf } from '../../common/bytes.js';
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
  typeName,
} from './fields.js';
import type { AnyPart } from './field.js';
import { CLC_TYPE, SMC_FIRST_CONTACT_MASK, SMC_TYPE } from './values.js';
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

export function messageName(bytes: Uint8Array): string {
  const { type, version } = readHeader(bytes);
  return `${typeName(type) ?? `type ${type}`} v${version}`;
}

/** All fields in the order of the message; of a malformed one the header only. */
export function describeMessage(bytes: Uint8Array): readonly DescribedField[] {
  const view = viewOf(bytes);
  const placed: (readonly [AnyPart, number])[] = [[CLC_HDR, 0]];
  if (messageProblem(bytes) === undefined) placed.push(...bodyParts(bytes));
  return placed.flatMap(([part, at]) =>
    Object.entries(part.fields).map(([name, field]) => ({
      part: part.name,
      name: field.label ?? name,
      offset: at + field.offset,
      hex: bytesToHex(bytes.subarray(at + field.offset, at + field.offset + field.size)),
      value: field.describe(view, at),
    })),
  );
}

function bodyParts(bytes: Uint8Array): (readonly [AnyPart, number])[] {
  const { type, version, typeV1, typeV2 } = readHeader(bytes);
  const placed: (readonly [AnyPart, number])[] = [];
  let at = CLC_HDR.size;
  const add = (part: AnyPart): void => {
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
      const left = (part: AnyPart): boolean => at + part.size + TRAILER.size <= bytes.length;
      // what SMC-R says of queue pairs and keys stays unnamed
      if (typeV1 === SMC_TYPE.R) break;
      add(ACCEPT_CONFIRM);
      add(version === 1 ? ACCEPT_CONFIRM_V1 : ACCEPT_CONFIRM_V2);
      const isFirst = (typeV2 & SMC_FIRST_CONTACT_MASK) !== 0;
      if (version > 1 && isFirst && left(FIRST_CONTACT)) add(FIRST_CONTACT);
      if (version > 1 && isFirst && left(FIRST_CONTACT_V2X)) add(FIRST_CONTACT_V2X);
    }
  }
  at = bytes.length - TRAILER.size;
  add(TRAILER);
  return placed;
}
