/**
 * Reading CLC messages, as lax and as strict as 6.12: what is malformed, and what is only missing.
 *
 * Reference: smc_clc_msg_hdr_valid, smc_clc_msg_prop_valid, smc_clc_msg_acc_conf_valid,
 * smc_clc_msg_decl_valid, smc_get_clc_v2_ext, smc_get_clc_smcd_v2_ext in net/smc/smc_clc.{c,h}; measured on
 * 6.12.117: a version above 2 is read as 2, the offset of the SMC-Dv2 part is not looked at, and the trailer
 * of a v2 decline is not either.
 *
 * Usage:
 *   const problem = messageProblem(bytes); // undefined: well-formed
 *   const proposal = decodeProposal(bytes);
 */
import { viewOf } from '../../common/bytes.js';
import {
  ACCEPT_CONFIRM,
  ACCEPT_CONFIRM_V2,
  CLC_HDR,
  DECLINE,
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
} from './fields.js';
import { readPart, type AnyField, type Part, type ValuesOf } from './field.js';
import {
  proposalLength,
  type AcceptConfirm,
  type Decline,
  type FirstContact,
  type IpPrefix,
  type Proposal,
  type ProposalV2,
} from './messages.js';
import {
  CLC_TYPE,
  SMCD_EYECATCHER,
  SMC_CLC_MAX_ISM,
  SMC_CLC_MAX_UEID,
  SMC_CLC_MAX_V6_PREFIX,
  SMC_EYECATCHER,
  SMC_FIRST_CONTACT_MASK,
  SMC_TYPE,
  smcdIndicated,
} from './values.js';

export interface ClcHeader {
  readonly eyecatcher: number;
  readonly type: number;
  readonly length: number;
  readonly version: number;
  readonly typeV1: number;
  readonly typeV2: number;
}

const BASE_END = CLC_HDR.size + PROPOSAL_BASE.size;
const SMCD_END = BASE_END + PROPOSAL_SMCD.size;
/** v2_ext_offset counts from behind itself. */
const V2_EXT_FROM = BASE_END + 12;
const MAX_V2_EXT_OFFSET = 28 + PROPOSAL_PREFIX.size + SMC_CLC_MAX_V6_PREFIX * PREFIX_IPV6.size;
const MAX_SMCD_V2_EXT_OFFSET = 32 + SMC_CLC_MAX_UEID * EID.size;
/** smcd_v2_ext_offset counts from behind itself. */
const SMCD_V2_EXT_FROM = 8;
const DECLINE_V1_LENGTH = 28;
const DECLINE_V2_LENGTH = 44;
/** SMC-R's, of which only the lengths are looked at. */
const SMCR_ACCEPT_V1_LENGTH = 68;
const SMCR_ACCEPT_V2_LENGTH = 108;
const ACCEPT_V1_LENGTH = 48;
const ACCEPT_V2_LENGTH = CLC_HDR.size + ACCEPT_CONFIRM.size + ACCEPT_CONFIRM_V2.size + TRAILER.size;

export function readHeader(bytes: Uint8Array): ClcHeader {
  const { flags, ...rest } = readPart(CLC_HDR, viewOf(bytes), 0);
  return { ...rest, version: flags.version, typeV2: flags.typev2, typeV1: flags.typev1 };
}

/** In the header of anything but a proposal: first contact; of a decline: out of sync. */
function isMarked({ typeV2 }: ClcHeader): boolean {
  return (typeV2 & SMC_FIRST_CONTACT_MASK) !== 0;
}

function isEyecatcher(value: number): boolean {
  return value === SMC_EYECATCHER || value === SMCD_EYECATCHER;
}

/** Bytes of a buffer for any message: a proposal with all that may be in it. */
export const CLC_BUFFER_SIZE = 1024;

/** A proposal as it lies in its buffer: offsets that lead out of the message lead to zeros. */
function bufferView(bytes: Uint8Array): DataView {
  const buffer = new Uint8Array(Math.max(CLC_BUFFER_SIZE, bytes.length));
  buffer.set(bytes);
  return viewOf(buffer);
}

/** Why the receiver of a whole message takes it for malformed (EPROTO); undefined when it is well-formed. */
export function messageProblem(bytes: Uint8Array): string | undefined {
  if (bytes.length < CLC_HDR.size + TRAILER.size) return `only ${bytes.length} bytes`;
  const header = readHeader(bytes);
  if (!isEyecatcher(header.eyecatcher)) return 'the eyecatcher is wrong';
  const problem = bodyProblem(header, bytes);
  if (problem !== undefined) return problem;
  if (header.type === CLC_TYPE.DECLINE && header.version > 1) return undefined;
  const trailer = readPart(TRAILER, viewOf(bytes), header.length - TRAILER.size);
  return isEyecatcher(trailer.eyecatcher) ? undefined : 'the trailer is wrong';
}

function bodyProblem(header: ClcHeader, bytes: Uint8Array): string | undefined {
  if (header.length !== bytes.length) return `length ${header.length}, ${bytes.length} bytes`;
  switch (header.type) {
    case CLC_TYPE.PROPOSAL:
      return proposalProblem(header, bytes);
    case CLC_TYPE.ACCEPT:
    case CLC_TYPE.CONFIRM:
      return acceptProblem(header);
    case CLC_TYPE.DECLINE: {
      const expected = header.version === 1 ? DECLINE_V1_LENGTH : DECLINE_V2_LENGTH;
      return header.length === expected ? undefined : `a decline of ${header.length} bytes`;
    }
    default:
      return `type ${header.type}`;
  }
}

function acceptProblem({ version, typeV1, length }: ClcHeader): string | undefined {
  if (typeV1 !== SMC_TYPE.D && typeV1 !== SMC_TYPE.R) return `an accept of type ${typeV1}`;
  const [name, v1, v2] =
    typeV1 === SMC_TYPE.D
      ? (['SMC-D', ACCEPT_V1_LENGTH, ACCEPT_V2_LENGTH] as const)
      : (['SMC-R', SMCR_ACCEPT_V1_LENGTH, SMCR_ACCEPT_V2_LENGTH] as const);
  const isRight = version === 1 ? length === v1 : length >= v2;
  return isRight ? undefined : `an ${name} message of ${length} bytes`;
}

function proposalProblem(header: ClcHeader, bytes: Uint8Array): string | undefined {
  if (bytes.length < BASE_END + TRAILER.size) return `a proposal of ${bytes.length} bytes`;
  const view = bufferView(bytes);
  const iparea = readPart(PROPOSAL_BASE, view, CLC_HDR.size).iparea_offset;
  if (iparea > PROPOSAL_SMCD.size) return `iparea_offset ${iparea}`;
  const prefixAt = BASE_END + iparea;
  const hasPrefix = header.typeV1 !== SMC_TYPE.N;
  const needed = hasPrefix ? prefixAt + PROPOSAL_PREFIX.size : SMCD_END;
  if (bytes.length < needed) return `a proposal of ${bytes.length} bytes`;
  const ipv6 = hasPrefix ? readPart(PROPOSAL_PREFIX, view, prefixAt).ipv6_prefixes_cnt : 0;
  if (ipv6 > SMC_CLC_MAX_V6_PREFIX) return `${ipv6} IPv6 prefixes`;
  if (header.version === 1) {
    if (!hasPrefix) return 'version 1 without a type of version 1';
    const v1 = prefixAt + PROPOSAL_PREFIX.size + ipv6 * PREFIX_IPV6.size + TRAILER.size;
    return header.length === v1 ? undefined : `length ${header.length}, parts of ${v1} bytes`;
  }
  // without a type of version 1 nobody needs the area, but it has to be nowhere
  if (!hasPrefix && iparea !== 0) return `iparea_offset ${iparea} without prefix`;
  const hasV2 = header.typeV2 !== SMC_TYPE.N;
  const v2At = hasV2 ? v2ExtensionAt(view, bytes.length) : undefined;
  if (hasV2 && v2At === undefined) return 'the v2 extension is missing';
  const v2 = v2At === undefined ? undefined : readPart(V2_EXT, view, v2At);
  const eids = v2?.eid_cnt ?? 0;
  if (eids > SMC_CLC_MAX_UEID) return `${eids} EIDs`;
  const smcd = smcdIndicated(header.typeV2);
  const gids = smcd ? (v2?.ism_gid_cnt ?? 0) : 0;
  if (gids > SMC_CLC_MAX_ISM) return `${gids} GIDs`;
  const sum = proposalLength({ prefix: hasPrefix, ipv6, v2: hasV2, eids, smcd, gids });
  return header.length === sum ? undefined : `length ${header.length}, parts of ${sum} bytes`;
}

/** smc_get_clc_v2_ext */
function v2ExtensionAt(view: DataView, length: number): number | undefined {
  const offset = readPart(PROPOSAL_SMCD, view, BASE_END).v2_ext_offset;
  if (offset === 0 || offset > MAX_V2_EXT_OFFSET) return undefined;
  const at = V2_EXT_FROM + offset;
  return at + V2_EXT.size + TRAILER.size <= length ? at : undefined;
}

/** smc_get_clc_smcd_v2_ext */
function smcdExtensionAt(view: DataView, v2At: number, length: number): number | undefined {
  const offset = readPart(V2_EXT, view, v2At).smcd_v2_ext_offset;
  if (offset === 0 || offset > MAX_SMCD_V2_EXT_OFFSET) return undefined;
  const at = v2At + SMCD_V2_EXT_FROM + offset;
  return at + SMCD_V2_EXT.size + TRAILER.size <= length ? at : undefined;
}

/** A well-formed proposal. */
export function decodeProposal(bytes: Uint8Array): Proposal {
  const view = bufferView(bytes);
  const { version, typeV1, typeV2 } = readHeader(bytes);
  const base = readPart(PROPOSAL_BASE, view, CLC_HDR.size);
  const smcd = readPart(PROPOSAL_SMCD, view, BASE_END);
  const v2At = version > 1 && typeV2 !== SMC_TYPE.N ? v2ExtensionAt(view, bytes.length) : undefined;
  const v2 = v2At === undefined ? undefined : decodeV2(view, v2At, typeV2, bytes.length);
  const prefix =
    typeV1 === SMC_TYPE.N ? undefined : decodePrefix(view, BASE_END + base.iparea_offset);
  return {
    version,
    typeV1,
    typeV2: version > 1 ? typeV2 : SMC_TYPE.N,
    peerId: base['peer id'],
    roceGid: base['roce gid'],
    mac: base.mac,
    ism: { gid: smcd['ism.gid'], chid: smcd['ism.chid'] },
    ...(prefix ? { prefix } : {}),
    ...(v2 ? { v2 } : {}),
  };
}

/** `count` parts behind each other. */
function readParts<F extends Readonly<Record<string, AnyField>>>(
  part: Part<F>,
  view: DataView,
  at: number,
  count: number,
): ValuesOf<Part<F>>[] {
  return Array.from({ length: count }, (_, i) => readPart(part, view, at + i * part.size));
}

function decodePrefix(view: DataView, at: number): IpPrefix {
  const { outgoing_subnet, prefix_len, ipv6_prefixes_cnt } = readPart(PROPOSAL_PREFIX, view, at);
  const ipv6 = readParts(PREFIX_IPV6, view, at + PROPOSAL_PREFIX.size, ipv6_prefixes_cnt);
  return {
    subnet: outgoing_subnet,
    length: prefix_len,
    ipv6: ipv6.map((each) => ({ prefix: each.prefix, length: each.prefix_len })),
  };
}

function decodeV2(view: DataView, at: number, typeV2: number, length: number): ProposalV2 {
  const extension = readPart(V2_EXT, view, at);
  const smcdAt = smcdIndicated(typeV2) ? smcdExtensionAt(view, at, length) : undefined;
  return {
    eids: readParts(EID, view, at + V2_EXT.size, extension.eid_cnt).map(({ eid }) => eid),
    release: extension.flag.release,
    seidIndicated: extension.flag.seid === 1,
    roceGid: extension['roce gid v2'],
    maxConns: extension.max_conns,
    maxLinks: extension.max_links,
    featureMask: extension.feature_mask,
    ...(smcdAt === undefined ? {} : { smcd: decodeSmcdV2(view, at, smcdAt, length) }),
  };
}

function decodeSmcdV2(
  view: DataView,
  v2At: number,
  at: number,
  length: number,
): NonNullable<ProposalV2['smcd']> {
  return {
    systemEid: readPart(SMCD_V2_EXT, view, at).system_eid,
    gids: readParts(GID_CHID, view, at + SMCD_V2_EXT.size, gidsThatFit(view, v2At, at, length)),
  };
}

/** A wrong offset may put the list behind the end of the message. */
function gidsThatFit(view: DataView, v2At: number, smcdAt: number, length: number): number {
  const room = Math.floor((length - smcdAt - SMCD_V2_EXT.size) / GID_CHID.size);
  return Math.min(readPart(V2_EXT, view, v2At).ism_gid_cnt, room);
}

/** A well-formed accept or confirm of SMC-D. */
export function decodeAcceptConfirm(bytes: Uint8Array): AcceptConfirm {
  const view = viewOf(bytes);
  const header = readHeader(bytes);
  const { gid, token, dmbe_idx, dmbe_size, linkid } = readPart(ACCEPT_CONFIRM, view, CLC_HDR.size);
  const firstContact = isMarked(header);
  return {
    type: header.type === CLC_TYPE.ACCEPT ? CLC_TYPE.ACCEPT : CLC_TYPE.CONFIRM,
    version: header.version,
    gid,
    token,
    dmbeIdx: dmbe_idx,
    dmbeSize: dmbe_size.dmbe_size,
    linkId: linkid,
    firstContact,
    ...(header.version === 1 ? {} : { v2: decodeAcceptV2(view, firstContact) }),
  };
}

function decodeAcceptV2(view: DataView, isFirst: boolean): NonNullable<AcceptConfirm['v2']> {
  const at = CLC_HDR.size + ACCEPT_CONFIRM.size;
  const { chid, eid, gid_ext } = readPart(ACCEPT_CONFIRM_V2, view, at);
  const extension = isFirst ? decodeFirstContact(view, at + ACCEPT_CONFIRM_V2.size) : undefined;
  return { chid, eid, gidExt: gid_ext, ...(extension ? { firstContact: extension } : {}) };
}

function decodeFirstContact(view: DataView, at: number): FirstContact | undefined {
  if (at + FIRST_CONTACT.size + TRAILER.size > view.byteLength) return undefined;
  const { os_type, hostname } = readPart(FIRST_CONTACT, view, at);
  const v2xAt = at + FIRST_CONTACT.size;
  const fits = v2xAt + FIRST_CONTACT_V2X.size + TRAILER.size <= view.byteLength;
  const hasV2x = os_type.release > 0 && fits;
  return {
    release: os_type.release,
    hostname: new TextDecoder().decode(hostname).trimEnd(),
    featureMask: hasV2x ? readPart(FIRST_CONTACT_V2X, view, v2xAt).feature_mask : 0,
  };
}

/** A well-formed decline. */
export function decodeDecline(bytes: Uint8Array): Decline {
  const header = readHeader(bytes);
  const decline = readPart(DECLINE, viewOf(bytes), CLC_HDR.size);
  return {
    version: header.version,
    peerId: decline['peer id'],
    diagnosis: decline.peer_diagnosis,
    outOfSync: isMarked(header),
  };
}

/** Counts of the parts of a proposal that `describeMessage` prints one by one. */
export function partsOfProposal(bytes: Uint8Array): {
  readonly prefix: number | undefined;
  readonly ipv6: number;
  readonly v2: number | undefined;
  readonly eids: number;
  readonly smcd: number | undefined;
  readonly gids: number;
} {
  const view = bufferView(bytes);
  const { version, typeV1, typeV2 } = readHeader(bytes);
  const { iparea_offset } = readPart(PROPOSAL_BASE, view, CLC_HDR.size);
  const prefix = typeV1 === SMC_TYPE.N ? undefined : BASE_END + iparea_offset;
  const v2 = version > 1 && typeV2 !== SMC_TYPE.N ? v2ExtensionAt(view, bytes.length) : undefined;
  const smcd =
    v2 !== undefined && smcdIndicated(typeV2) ? smcdExtensionAt(view, v2, bytes.length) : undefined;
  return {
    prefix,
    ipv6: prefix === undefined ? 0 : readPart(PROPOSAL_PREFIX, view, prefix).ipv6_prefixes_cnt,
    v2,
    eids: v2 === undefined ? 0 : readPart(V2_EXT, view, v2).eid_cnt,
    smcd,
    gids: v2 === undefined || smcd === undefined ? 0 : gidsThatFit(view, v2, smcd, bytes.length),
  };
}
