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
import {
  CLC_TYPE,
  SMC_CLC_MAX_ISM,
  SMC_CLC_MAX_UEID,
  SMC_CLC_MAX_V6_PREFIX,
  SMC_EYECATCHER,
  SMC_FIRST_CONTACT_MASK,
  SMC_TYPE,
  SMCD_EYECATCHER,
  proposalLength,
  smcdIndicated,
  swap32,
  type AcceptConfirm,
  type Decline,
  type FirstContact,
  type GidChid,
  type IpPrefix,
  type Proposal,
  type ProposalV2,
} from './messages.js';

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
  const view = viewOf(bytes);
  const flags = view.getUint8(7);
  return {
    eyecatcher: view.getUint32(0),
    type: view.getUint8(4),
    length: view.getUint16(5),
    version: flags >> 4,
    typeV2: (flags >> 2) & 3,
    typeV1: flags & 3,
  };
}

function isEyecatcher(value: number): boolean {
  return value === SMC_EYECATCHER || value === SMCD_EYECATCHER;
}

/** Why the receiver of a whole message takes it for malformed (EPROTO); undefined when it is well-formed. */
export function messageProblem(bytes: Uint8Array): string | undefined {
  if (bytes.length < CLC_HDR.size + TRAILER.size) return `only ${bytes.length} bytes`;
  const header = readHeader(bytes);
  if (!isEyecatcher(header.eyecatcher)) return 'the eyecatcher is wrong';
  const problem = bodyProblem(header, bytes);
  if (problem !== undefined) return problem;
  if (header.type === CLC_TYPE.DECLINE && header.version > 1) return undefined;
  const trailer = viewOf(bytes).getUint32(header.length - TRAILER.size);
  return isEyecatcher(trailer) ? undefined : 'the trailer is wrong';
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
  const view = viewOf(bytes);
  const iparea = view.getUint16(BASE_END - 2);
  if (iparea > PROPOSAL_SMCD.size) return `iparea_offset ${iparea}`;
  const prefixAt = BASE_END + iparea;
  const hasPrefix = header.typeV1 !== SMC_TYPE.N;
  const needed = hasPrefix ? prefixAt + PROPOSAL_PREFIX.size : SMCD_END;
  if (bytes.length < needed) return `a proposal of ${bytes.length} bytes`;
  const ipv6 = hasPrefix ? view.getUint8(prefixAt + 7) : 0;
  if (ipv6 > SMC_CLC_MAX_V6_PREFIX) return `${ipv6} IPv6 prefixes`;
  if (header.version === 1) {
    if (!hasPrefix) return 'version 1 without a type of version 1';
    const v1 = prefixAt + PROPOSAL_PREFIX.size + ipv6 * PREFIX_IPV6.size + TRAILER.size;
    return header.length === v1 ? undefined : `length ${header.length}, parts of ${v1} bytes`;
  }
  // without a type of version 1 nobody needs the area, but it has to be nowhere
  if (!hasPrefix && iparea !== 0) return `iparea_offset ${iparea} without prefix`;
  const hasV2 = header.typeV2 !== SMC_TYPE.N;
  const v2At = hasV2 ? v2ExtensionAt(view) : undefined;
  if (hasV2 && v2At === undefined) return 'the v2 extension is missing';
  const eids = v2At === undefined ? 0 : view.getUint8(v2At);
  if (eids > SMC_CLC_MAX_UEID) return `${eids} EIDs`;
  const smcd = smcdIndicated(header.typeV2);
  const gids = smcd && v2At !== undefined ? view.getUint8(v2At + 1) : 0;
  if (gids > SMC_CLC_MAX_ISM) return `${gids} GIDs`;
  const sum = proposalLength({ prefix: hasPrefix, ipv6, v2: hasV2, eids, smcd, gids });
  return header.length === sum ? undefined : `length ${header.length}, parts of ${sum} bytes`;
}

/** smc_get_clc_v2_ext */
function v2ExtensionAt(view: DataView): number | undefined {
  const offset = view.getUint16(V2_EXT_FROM - 2);
  if (offset === 0 || offset > MAX_V2_EXT_OFFSET) return undefined;
  const at = V2_EXT_FROM + offset;
  return at + V2_EXT.size + TRAILER.size <= view.byteLength ? at : undefined;
}

/** smc_get_clc_smcd_v2_ext */
function smcdExtensionAt(view: DataView, v2At: number): number | undefined {
  const offset = view.getUint16(v2At + 6);
  if (offset === 0 || offset > MAX_SMCD_V2_EXT_OFFSET) return undefined;
  const at = v2At + SMCD_V2_EXT_FROM + offset;
  return at + SMCD_V2_EXT.size + TRAILER.size <= view.byteLength ? at : undefined;
}

/** A well-formed proposal. */
export function decodeProposal(bytes: Uint8Array): Proposal {
  const view = viewOf(bytes);
  const { version, typeV1, typeV2 } = readHeader(bytes);
  const v2At = version > 1 && typeV2 !== SMC_TYPE.N ? v2ExtensionAt(view) : undefined;
  const v2 = v2At === undefined ? undefined : decodeV2(bytes, view, v2At, typeV2);
  const prefix = typeV1 === SMC_TYPE.N ? undefined : decodePrefix(bytes, view);
  return {
    version,
    typeV1,
    typeV2: version > 1 ? typeV2 : SMC_TYPE.N,
    peerId: bytes.slice(8, 16),
    roceGid: bytes.slice(16, 32),
    mac: bytes.slice(32, 38),
    ism: { gid: view.getBigUint64(BASE_END), chid: view.getUint16(BASE_END + 8) },
    ...(prefix ? { prefix } : {}),
    ...(v2 ? { v2 } : {}),
  };
}

function decodePrefix(bytes: Uint8Array, view: DataView): IpPrefix {
  const at = BASE_END + view.getUint16(BASE_END - 2);
  return {
    subnet: view.getUint32(at),
    length: view.getUint8(at + 4),
    ipv6: Array.from({ length: view.getUint8(at + 7) }, (_, i) => {
      const entry = at + PROPOSAL_PREFIX.size + i * PREFIX_IPV6.size;
      return { prefix: bytes.slice(entry, entry + 16), length: view.getUint8(entry + 16) };
    }),
  };
}

function decodeV2(bytes: Uint8Array, view: DataView, at: number, typeV2: number): ProposalV2 {
  const flags = view.getUint8(at + 3);
  const smcdAt = smcdIndicated(typeV2) ? smcdExtensionAt(view, at) : undefined;
  const eidAt = (i: number): number => at + V2_EXT.size + i * EID.size;
  const count = smcdAt === undefined ? 0 : gidsThatFit(view, at, smcdAt);
  const gids = Array.from({ length: count }, (_, i): GidChid => {
    const entry = (smcdAt ?? 0) + SMCD_V2_EXT.size + i * GID_CHID.size;
    return { gid: view.getBigUint64(entry), chid: view.getUint16(entry + 8) };
  });
  return {
    eids: Array.from({ length: view.getUint8(at) }, (_, i) => bytes.slice(eidAt(i), eidAt(i + 1))),
    release: flags >> 4,
    seidIndicated: (flags & 1) !== 0,
    roceGid: bytes.slice(at + 8, at + 24),
    maxConns: view.getUint8(at + 24),
    maxLinks: view.getUint8(at + 25),
    featureMask: view.getUint16(at + 26),
    ...(smcdAt === undefined
      ? {}
      : { smcd: { systemEid: bytes.slice(smcdAt, smcdAt + 32), gids } }),
  };
}

/** A wrong offset may put the list behind the end of the message. */
function gidsThatFit(view: DataView, v2At: number, smcdAt: number): number {
  const room = Math.floor((view.byteLength - smcdAt - SMCD_V2_EXT.size) / GID_CHID.size);
  return Math.min(view.getUint8(v2At + 1), room);
}

/** A well-formed accept or confirm of SMC-D. */
export function decodeAcceptConfirm(bytes: Uint8Array): AcceptConfirm {
  const view = viewOf(bytes);
  const { type, version } = readHeader(bytes);
  const firstContact = (view.getUint8(7) & SMC_FIRST_CONTACT_MASK) !== 0;
  const at = CLC_HDR.size;
  const v2At = at + ACCEPT_CONFIRM.size;
  return {
    type: type === CLC_TYPE.ACCEPT ? CLC_TYPE.ACCEPT : CLC_TYPE.CONFIRM,
    version,
    gid: view.getBigUint64(at),
    token: view.getBigUint64(at + 8),
    dmbeIdx: view.getUint8(at + 16),
    dmbeSize: view.getUint8(at + 17) >> 4,
    linkId: swap32(view.getUint32(at + 20)) >>> 0,
    firstContact,
    ...(version === 1
      ? {}
      : {
          v2: {
            chid: view.getUint16(v2At),
            eid: bytes.slice(v2At + 2, v2At + 34),
            gidExt: view.getBigUint64(v2At + 34),
            ...(firstContact ? decodeFirstContact(bytes, v2At + ACCEPT_CONFIRM_V2.size) : {}),
          },
        }),
  };
}

function decodeFirstContact(bytes: Uint8Array, at: number): { firstContact?: FirstContact } {
  if (at + FIRST_CONTACT.size + TRAILER.size > bytes.length) return {};
  const release = (bytes[at + 1] ?? 0) & 0xf;
  const v2xAt = at + FIRST_CONTACT.size;
  const hasV2x = release > 0 && v2xAt + FIRST_CONTACT_V2X.size + TRAILER.size <= bytes.length;
  return {
    firstContact: {
      release,
      hostname: new TextDecoder().decode(bytes.subarray(at + 4, at + 36)).trimEnd(),
      featureMask: hasV2x ? viewOf(bytes).getUint16(v2xAt + 2) : 0,
    },
  };
}

/** A well-formed decline. */
export function decodeDecline(bytes: Uint8Array): Decline {
  const view = viewOf(bytes);
  return {
    version: readHeader(bytes).version,
    peerId: bytes.slice(8, 16),
    diagnosis: view.getUint32(16),
    outOfSync: (view.getUint8(7) & SMC_FIRST_CONTACT_MASK) !== 0,
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
  const view = viewOf(bytes);
  const { version, typeV1, typeV2 } = readHeader(bytes);
  const prefix = typeV1 === SMC_TYPE.N ? undefined : BASE_END + view.getUint16(BASE_END - 2);
  const v2 = version > 1 && typeV2 !== SMC_TYPE.N ? v2ExtensionAt(view) : undefined;
  const smcd = v2 !== undefined && smcdIndicated(typeV2) ? smcdExtensionAt(view, v2) : undefined;
  return {
    prefix,
    ipv6: prefix === undefined ? 0 : view.getUint8(prefix + 7),
    v2,
    eids: v2 === undefined ? 0 : view.getUint8(v2),
    smcd,
    gids: v2 === undefined || smcd === undefined ? 0 : gidsThatFit(view, v2, smcd),
  };
}
