/**
 * The parts of CLC messages as tables of fields: what encoder, parser and `smc handshake` all read.
 *
 * Reference: struct smc_clc_msg_hdr, smc_clc_msg_proposal, smc_clc_msg_smcd, smc_clc_v2_extension,
 * smc_clc_smcd_v2_extension, smc_clc_msg_accept_confirm, smc_clc_first_contact_ext, smc_clc_msg_decline in
 * net/smc/smc_clc.h of 6.12. All numbers are big-endian; `raw` is four bytes as they lie in memory.
 */

export type FieldKind = 'hex' | 'number' | 'text' | 'eyecatcher' | 'raw';

export interface MessageField {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  readonly kind: FieldKind;
}

export interface MessagePart {
  readonly name: string;
  readonly size: number;
  readonly fields: readonly MessageField[];
}

function part(
  name: string,
  size: number,
  fields: readonly (readonly [name: string, offset: number, size: number, kind?: FieldKind])[],
): MessagePart {
  return {
    name,
    size,
    fields: fields.map(([each, offset, bytes, kind = 'hex']) => ({
      name: each,
      offset,
      size: bytes,
      kind,
    })),
  };
}

export const CLC_HDR = part('header', 8, [
  ['eyecatcher', 0, 4, 'eyecatcher'],
  ['type', 4, 1, 'number'],
  ['length', 5, 2, 'number'],
  ['version:4 typev2:2 typev1:2', 7, 1],
]);

export const PROPOSAL_BASE = part('proposal', 32, [
  ['peer id', 0, 8],
  ['roce gid', 8, 16],
  ['mac', 24, 6],
  ['iparea_offset', 30, 2, 'number'],
]);

export const PROPOSAL_SMCD = part('smcd', 40, [
  ['ism.gid', 0, 8],
  ['ism.chid', 8, 2],
  ['v2_ext_offset', 10, 2, 'number'],
  ['vendor_oui', 12, 3],
  ['vendor_exp_options', 15, 5],
]);

export const PROPOSAL_PREFIX = part('ip prefix', 8, [
  ['outgoing_subnet', 0, 4],
  ['prefix_len', 4, 1, 'number'],
  ['ipv6_prefixes_cnt', 7, 1, 'number'],
]);

export const PREFIX_IPV6 = part('ipv6 prefix', 17, [
  ['prefix', 0, 16],
  ['prefix_len', 16, 1, 'number'],
]);

export const V2_EXT = part('v2 extension', 40, [
  ['eid_cnt', 0, 1, 'number'],
  ['ism_gid_cnt', 1, 1, 'number'],
  ['release:4 seid:1', 3, 1],
  ['smcd_v2_ext_offset', 6, 2, 'number'],
  ['roce gid v2', 8, 16],
  ['max_conns', 24, 1, 'number'],
  ['max_links', 25, 1, 'number'],
  ['feature_mask', 26, 2],
]);

export const EID = part('user eid', 32, [['eid', 0, 32, 'text']]);

export const SMCD_V2_EXT = part('smcd v2 extension', 48, [['system_eid', 0, 32, 'text']]);

export const GID_CHID = part('gid, chid', 10, [
  ['gid', 0, 8],
  ['chid', 8, 2],
]);

export const ACCEPT_CONFIRM = part('smcd', 24, [
  ['gid', 0, 8],
  ['token', 8, 8],
  ['dmbe_idx', 16, 1, 'number'],
  ['dmbe_size:4', 17, 1],
  ['linkid', 20, 4, 'raw'],
]);

export const ACCEPT_CONFIRM_V1 = part('v1', 12, []);

export const ACCEPT_CONFIRM_V2 = part('v2', 42, [
  ['chid', 0, 2],
  ['eid', 2, 32, 'text'],
  ['gid_ext', 34, 8],
]);

export const FIRST_CONTACT = part('first contact extension', 36, [
  ['v2_direct:1', 0, 1],
  ['os_type:4 release:4', 1, 1],
  ['hostname', 4, 32, 'text'],
]);

export const FIRST_CONTACT_V2X = part('first contact extension v2.1', 16, [
  ['max_conns', 0, 1, 'number'],
  ['max_links', 1, 1, 'number'],
  ['feature_mask', 2, 2],
  ['vendor_exp_options', 4, 4],
]);

export const DECLINE = part('decline', 16, [
  ['peer id', 0, 8],
  ['peer_diagnosis', 8, 4],
  ['os_type:4', 12, 1],
]);

export const DECLINE_V2 = part('decline v2', 16, [['peer_diagnosis_v2', 0, 16]]);

export const TRAILER = part('trailer', 4, [['eyecatcher', 0, 4, 'eyecatcher']]);
