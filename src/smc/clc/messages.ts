/**
 * CLC messages as values, and their exact bytes.
 *
 * Reference: smc_clc_send_proposal, smc_clc_send_confirm_accept, smc_clc_send_decline in net/smc/smc_clc.c of
 * 6.12. Leaves out accept and confirm of SMC-R.
 *
 * Usage:
 *   const bytes = encodeProposal({ ...proposal, v2: { eids: [eid], ... } });
 */
import { viewOf } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
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
} from './fields.js';

/** "SMCR" and "SMCD" in EBCDIC. */
export const SMC_EYECATCHER = 0xe2d4c3d9;
export const SMCD_EYECATCHER = 0xe2d4c3c4;

export const CLC_TYPE = { PROPOSAL: 1, ACCEPT: 2, CONFIRM: 3, DECLINE: 4 } as const;

/** smc_type_v1, smc_type_v2 */
export const SMC_TYPE = { R: 0, D: 1, N: 2, B: 3 } as const;

export function smcdIndicated(type: number): boolean {
  return type === SMC_TYPE.D || type === SMC_TYPE.B;
}

export function smcrIndicated(type: number): boolean {
  return type === SMC_TYPE.R || type === SMC_TYPE.B;
}

/** smc_indicated_type */
export function indicatedType(isSmcd: boolean, isSmcr: boolean): number {
  if (isSmcd) return isSmcr ? SMC_TYPE.B : SMC_TYPE.D;
  return isSmcr ? SMC_TYPE.R : SMC_TYPE.N;
}

/** In byte 7 of accept and confirm; in a decline: out of sync. */
export const SMC_FIRST_CONTACT_MASK = 0x08;
export const SMC_RELEASE = 1;
/** Emulated-ISM is supported. */
export const SMC_FEATURE_MASK = 0x0001;
export const SMC_CLC_OS_LINUX = 2;
export const SMC_CLC_MAX_UEID = 8;
export const SMC_CLC_MAX_ISM = 8;
export const SMC_CLC_MAX_V6_PREFIX = 8;
/** Offsets in a message count from behind the field: iparea_offset 40, v2_ext_offset 28, smcd_v2_ext_offset 32. */
const SMCD_AREA_OFFSET = PROPOSAL_SMCD.size;
const V2_EXT_GAP = 28;
const SMCD_V2_EXT_GAP = 32;

export interface IpPrefix {
  /** IPv4 network as a number, 0 for IPv6. */
  readonly subnet: number;
  readonly length: number;
  readonly ipv6: readonly { readonly prefix: Uint8Array; readonly length: number }[];
}

export interface GidChid {
  readonly gid: bigint;
  readonly chid: number;
}

export interface ProposalV2 {
  readonly eids: readonly Uint8Array[];
  readonly release: number;
  readonly seidIndicated: boolean;
  readonly roceGid: Uint8Array;
  readonly maxConns: number;
  readonly maxLinks: number;
  readonly featureMask: number;
  /** Present when SMC-Dv2 is proposed. An emulated ISM device has two entries. */
  readonly smcd?: { readonly systemEid: Uint8Array; readonly gids: readonly GidChid[] };
}

export interface Proposal {
  readonly version: number;
  readonly typeV1: number;
  readonly typeV2: number;
  readonly peerId: Uint8Array;
  readonly roceGid: Uint8Array;
  readonly mac: Uint8Array;
  readonly ism: GidChid;
  /** Present unless typeV1 is N. */
  readonly prefix?: IpPrefix;
  /** Present unless typeV2 is N. */
  readonly v2?: ProposalV2;
}

export interface FirstContact {
  readonly release: number;
  readonly hostname: string;
  readonly featureMask: number;
}

export interface AcceptConfirm {
  readonly type: typeof CLC_TYPE.ACCEPT | typeof CLC_TYPE.CONFIRM;
  readonly version: number;
  readonly gid: bigint;
  readonly token: bigint;
  readonly dmbeIdx: number;
  /** Compressed. */
  readonly dmbeSize: number;
  /** As it lies in memory. */
  readonly linkId: number;
  readonly firstContact: boolean;
  /** Version 2. */
  readonly v2?: {
    readonly chid: number;
    readonly eid: Uint8Array;
    readonly gidExt: bigint;
    /** Present on first contact. */
    readonly firstContact?: FirstContact;
  };
}

export interface Decline {
  readonly version: number;
  readonly peerId: Uint8Array;
  readonly diagnosis: number;
  readonly outOfSync: boolean;
}

/** Appends parts to a message. */
class Writer {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  /** Where the current part begins. */
  #part = 0;
  #end = 0;

  constructor(size: number) {
    this.#bytes = new Uint8Array(size);
    this.#view = viewOf(this.#bytes);
  }

  begin({ size }: { readonly size: number }): this {
    this.#part = this.#end;
    this.#end += size;
    return this;
  }

  u8(offset: number, value: number): this {
    this.#view.setUint8(this.#part + offset, value);
    return this;
  }

  u16(offset: number, value: number): this {
    this.#view.setUint16(this.#part + offset, value);
    return this;
  }

  u32(offset: number, value: number): this {
    this.#view.setUint32(this.#part + offset, value);
    return this;
  }

  u64(offset: number, value: bigint): this {
    this.#view.setBigUint64(this.#part + offset, value);
    return this;
  }

  bytes(offset: number, value: Uint8Array): this {
    this.#bytes.set(value, this.#part + offset);
    return this;
  }

  header(type: number, eyecatcher: number, flags: number): this {
    const length = this.#bytes.length;
    return this.begin(CLC_HDR).u32(0, eyecatcher).u8(4, type).u16(5, length).u8(7, flags);
  }

  /** The message, closed by its trailer. */
  finish(eyecatcher: number): Uint8Array {
    this.begin(TRAILER).u32(0, eyecatcher);
    if (this.#end !== this.#bytes.length) throw new InputError('parts and length differ');
    return this.#bytes;
  }
}

/** Bytes of a proposal with these numbers of parts. */
export function proposalLength(counts: {
  readonly prefix: boolean;
  readonly ipv6: number;
  readonly v2: boolean;
  readonly eids: number;
  readonly smcd: boolean;
  readonly gids: number;
}): number {
  const { prefix, ipv6, v2, eids, smcd, gids } = counts;
  return (
    CLC_HDR.size +
    PROPOSAL_BASE.size +
    PROPOSAL_SMCD.size +
    (prefix ? PROPOSAL_PREFIX.size + ipv6 * PREFIX_IPV6.size : 0) +
    (v2 ? V2_EXT.size + eids * EID.size : 0) +
    (smcd ? SMCD_V2_EXT.size + gids * GID_CHID.size : 0) +
    TRAILER.size
  );
}

export function encodeProposal(proposal: Proposal): Uint8Array {
  const { prefix, v2 } = proposal;
  const ipv6 = prefix?.ipv6 ?? [];
  const eids = v2?.eids ?? [];
  const gids = v2?.smcd?.gids ?? [];
  const writer = new Writer(
    proposalLength({
      prefix: prefix !== undefined,
      ipv6: ipv6.length,
      v2: v2 !== undefined,
      eids: eids.length,
      smcd: v2?.smcd !== undefined,
      gids: gids.length,
    }),
  );
  const prefixBytes = prefix ? PROPOSAL_PREFIX.size + ipv6.length * PREFIX_IPV6.size : 0;
  const flags = (proposal.version << 4) | (proposal.typeV2 << 2) | proposal.typeV1;
  writer
    .header(CLC_TYPE.PROPOSAL, SMC_EYECATCHER, flags)
    .begin(PROPOSAL_BASE)
    .bytes(0, proposal.peerId)
    .bytes(8, proposal.roceGid)
    .bytes(24, proposal.mac)
    .u16(30, prefix ? SMCD_AREA_OFFSET : 0)
    .begin(PROPOSAL_SMCD)
    .u64(0, proposal.ism.gid)
    .u16(8, proposal.ism.chid)
    .u16(10, v2 ? V2_EXT_GAP + prefixBytes : 0);
  if (prefix) {
    writer
      .begin(PROPOSAL_PREFIX)
      .u32(0, prefix.subnet)
      .u8(4, prefix.length)
      .u8(7, prefix.ipv6.length);
    for (const { prefix: bytes, length } of prefix.ipv6) {
      writer.begin(PREFIX_IPV6).bytes(0, bytes).u8(16, length);
    }
  }
  if (v2) writeV2(writer, v2);
  return writer.finish(SMC_EYECATCHER);
}

function writeV2(writer: Writer, v2: ProposalV2): void {
  writer
    .begin(V2_EXT)
    .u8(0, v2.eids.length)
    .u8(1, v2.smcd?.gids.length ?? 0)
    .u8(3, (v2.release << 4) | (v2.seidIndicated ? 1 : 0))
    .u16(6, v2.smcd ? SMCD_V2_EXT_GAP + EID.size * v2.eids.length : 0)
    .bytes(8, v2.roceGid)
    .u8(24, v2.maxConns)
    .u8(25, v2.maxLinks)
    .u16(26, v2.featureMask);
  for (const eid of v2.eids) writer.begin(EID).bytes(0, eid);
  if (!v2.smcd) return;
  writer.begin(SMCD_V2_EXT).bytes(0, v2.smcd.systemEid);
  for (const { gid, chid } of v2.smcd.gids) writer.begin(GID_CHID).u64(0, gid).u16(8, chid);
}

export function encodeAcceptConfirm(message: AcceptConfirm): Uint8Array {
  const { v2 } = message;
  const extension = v2?.firstContact;
  const hasV2x = extension !== undefined && extension.release > 0;
  const size =
    CLC_HDR.size +
    ACCEPT_CONFIRM.size +
    (v2 ? ACCEPT_CONFIRM_V2.size : ACCEPT_CONFIRM_V1.size) +
    (extension ? FIRST_CONTACT.size : 0) +
    (hasV2x ? FIRST_CONTACT_V2X.size : 0) +
    TRAILER.size;
  const flags =
    (message.version << 4) | SMC_TYPE.D | (message.firstContact ? SMC_FIRST_CONTACT_MASK : 0);
  const writer = new Writer(size)
    .header(message.type, SMCD_EYECATCHER, flags)
    .begin(ACCEPT_CONFIRM)
    .u64(0, message.gid)
    .u64(8, message.token)
    .u8(16, message.dmbeIdx)
    .u8(17, message.dmbeSize << 4)
    .u32(20, swap32(message.linkId));
  if (v2) {
    writer.begin(ACCEPT_CONFIRM_V2).u16(0, v2.chid).bytes(2, v2.eid).u64(34, v2.gidExt);
  } else {
    writer.begin(ACCEPT_CONFIRM_V1);
  }
  if (extension) {
    writer
      .begin(FIRST_CONTACT)
      .u8(1, (SMC_CLC_OS_LINUX << 4) | extension.release)
      .bytes(4, blankPadded(extension.hostname));
  }
  if (hasV2x) writer.begin(FIRST_CONTACT_V2X).u16(2, extension.featureMask);
  return writer.finish(SMCD_EYECATCHER);
}

export function encodeDecline(decline: Decline): Uint8Array {
  const isV1 = decline.version === 1;
  const size = CLC_HDR.size + DECLINE.size + (isV1 ? 0 : DECLINE_V2.size) + TRAILER.size;
  const flags = (decline.version << 4) | (decline.outOfSync ? SMC_FIRST_CONTACT_MASK : 0);
  const writer = new Writer(size)
    .header(CLC_TYPE.DECLINE, SMC_EYECATCHER, flags)
    .begin(DECLINE)
    .bytes(0, decline.peerId)
    .u32(8, decline.diagnosis)
    .u8(12, isV1 ? 0 : SMC_CLC_OS_LINUX << 4);
  if (!isV1) writer.begin(DECLINE_V2);
  return writer.finish(SMC_EYECATCHER);
}

/** 32 bytes of ASCII with blanks behind: EIDs and host names. */
export function blankPadded(text: string): Uint8Array {
  return new TextEncoder().encode(text.slice(0, 32).padEnd(32));
}

export function swap32(value: number): number {
  return (
    ((value & 0xff) << 24) |
    ((value & 0xff00) << 8) |
    ((value >>> 8) & 0xff00) |
    ((value >>> 24) & 0xff)
  );
}
