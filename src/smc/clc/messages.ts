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
import { writePart, type AnyField, type Part, type ValuesOf } from './field.js';
import {
  CLC_TYPE,
  SMCD_EYECATCHER,
  SMC_CLC_OS_LINUX,
  SMC_EYECATCHER,
  SMC_FIRST_CONTACT_MASK,
  SMC_TYPE,
  blankPadded,
} from './values.js';

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
  readonly #view: DataView;
  #end = 0;

  constructor(size: number) {
    this.#view = viewOf(new Uint8Array(size));
  }

  add<F extends Readonly<Record<string, AnyField>>>(
    part: Part<F>,
    values: Partial<ValuesOf<Part<F>>> = {},
  ): this {
    writePart(part, this.#view, this.#end, values);
    this.#end += part.size;
    return this;
  }

  header(type: number, eyecatcher: number, flags: ValuesOf<typeof CLC_HDR>['flags']): this {
    return this.add(CLC_HDR, { eyecatcher, type, length: this.#view.byteLength, flags });
  }

  /** The message, closed by its trailer. */
  finish(eyecatcher: number): Uint8Array {
    this.add(TRAILER, { eyecatcher });
    if (this.#end !== this.#view.byteLength) throw new InputError('parts and length differ');
    return new Uint8Array(this.#view.buffer);
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
  const { version, typeV1, typeV2 } = proposal;
  writer
    .header(CLC_TYPE.PROPOSAL, SMC_EYECATCHER, { version, typev2: typeV2, typev1: typeV1 })
    .add(PROPOSAL_BASE, {
      'peer id': proposal.peerId,
      'roce gid': proposal.roceGid,
      mac: proposal.mac,
      iparea_offset: prefix ? SMCD_AREA_OFFSET : 0,
    })
    .add(PROPOSAL_SMCD, {
      'ism.gid': proposal.ism.gid,
      'ism.chid': proposal.ism.chid,
      v2_ext_offset: v2 ? V2_EXT_GAP + prefixBytes : 0,
    });
  if (prefix) {
    writer.add(PROPOSAL_PREFIX, {
      outgoing_subnet: prefix.subnet,
      prefix_len: prefix.length,
      ipv6_prefixes_cnt: ipv6.length,
    });
    for (const each of ipv6) {
      writer.add(PREFIX_IPV6, { prefix: each.prefix, prefix_len: each.length });
    }
  }
  if (v2) writeV2(writer, v2);
  return writer.finish(SMC_EYECATCHER);
}

function writeV2(writer: Writer, v2: ProposalV2): void {
  writer.add(V2_EXT, {
    eid_cnt: v2.eids.length,
    ism_gid_cnt: v2.smcd?.gids.length ?? 0,
    flag: { release: v2.release, seid: v2.seidIndicated ? 1 : 0 },
    smcd_v2_ext_offset: v2.smcd ? SMCD_V2_EXT_GAP + EID.size * v2.eids.length : 0,
    'roce gid v2': v2.roceGid,
    max_conns: v2.maxConns,
    max_links: v2.maxLinks,
    feature_mask: v2.featureMask,
  });
  for (const eid of v2.eids) writer.add(EID, { eid });
  if (!v2.smcd) return;
  writer.add(SMCD_V2_EXT, { system_eid: v2.smcd.systemEid });
  for (const { gid, chid } of v2.smcd.gids) writer.add(GID_CHID, { gid, chid });
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
  const writer = new Writer(size)
    .header(message.type, SMCD_EYECATCHER, {
      version: message.version,
      typev2: message.firstContact ? SMC_FIRST_CONTACT_MASK : 0,
      typev1: SMC_TYPE.D,
    })
    .add(ACCEPT_CONFIRM, {
      gid: message.gid,
      token: message.token,
      dmbe_idx: message.dmbeIdx,
      dmbe_size: { dmbe_size: message.dmbeSize },
      linkid: message.linkId,
    });
  if (v2) writer.add(ACCEPT_CONFIRM_V2, { chid: v2.chid, eid: v2.eid, gid_ext: v2.gidExt });
  else writer.add(ACCEPT_CONFIRM_V1);
  if (extension) {
    writer.add(FIRST_CONTACT, {
      os_type: { os_type: SMC_CLC_OS_LINUX, release: extension.release },
      hostname: blankPadded(extension.hostname),
    });
  }
  if (hasV2x) writer.add(FIRST_CONTACT_V2X, { feature_mask: extension.featureMask });
  return writer.finish(SMCD_EYECATCHER);
}

export function encodeDecline(decline: Decline): Uint8Array {
  const { version, diagnosis } = decline;
  const isV1 = version === 1;
  const size = CLC_HDR.size + DECLINE.size + (isV1 ? 0 : DECLINE_V2.size) + TRAILER.size;
  const writer = new Writer(size)
    .header(CLC_TYPE.DECLINE, SMC_EYECATCHER, {
      version,
      typev2: decline.outOfSync ? SMC_FIRST_CONTACT_MASK : 0,
      typev1: SMC_TYPE.R,
    })
    .add(DECLINE, {
      'peer id': decline.peerId,
      peer_diagnosis: diagnosis,
      os_type: { os_type: isV1 ? 0 : SMC_CLC_OS_LINUX },
    });
  if (!isV1) writer.add(DECLINE_V2);
  return writer.finish(SMC_EYECATCHER);
}
