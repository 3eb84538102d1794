/**
 * The parts of CLC messages as tables of fields: encoder, parser and `smc handshake` read these and nothing else.
 *
 * Reference: struct smc_clc_msg_hdr, smc_clc_msg_proposal, smc_clc_msg_smcd, smc_clc_v2_extension,
 * smc_clc_smcd_v2_extension, smc_clc_msg_accept_confirm, smc_clc_first_contact_ext, smc_clc_msg_decline in
 * net/smc/smc_clc.h of 6.12.
 */
import { declineName, uncompressBufsize } from '../constants.js';
import { bits, bytes, littleEndian32, part, text32, u16, u32, u64, u8 } from './field.js';
import { CLC_TYPE, SMC_EYECATCHER, SMC_FIRST_CONTACT_MASK } from './values.js';

const SMC_TYPE_NAMES = 'RDNB';
/** Where every message has its type. */
const TYPE_AT = 4;

export function typeName(type: number): string | undefined {
  return Object.entries(CLC_TYPE)
    .find(([, value]) => value === type)?.[0]
    .toLowerCase();
}

const eyecatcherName = (value: number): string => (value === SMC_EYECATCHER ? 'SMCR' : 'SMCD');
const featureNames = (mask: number): string => ((mask & 1) !== 0 ? 'Emulated-ISM' : 'none');

function chidName(chid: number): string {
  if (chid === 0xffff) return 'loopback';
  if (chid >= 0xff00) return 'virtio-ism';
  return chid === 0 ? 'none' : 'ISM';
}

/** What byte 7 says hangs on the message. */
function flagsText(
  {
    version,
    typev2,
    typev1,
  }: { readonly version: number; readonly typev2: number; readonly typev1: number },
  message: DataView,
): string {
  const type = message.getUint8(TYPE_AT);
  const start = `version ${version}`;
  const v1 = SMC_TYPE_NAMES[typev1] ?? '';
  if (type === CLC_TYPE.PROPOSAL) return `${start}, v2 ${SMC_TYPE_NAMES[typev2] ?? ''}, v1 ${v1}`;
  const isSet = (typev2 & SMC_FIRST_CONTACT_MASK) !== 0;
  if (type === CLC_TYPE.DECLINE) return isSet ? `${start}, out of sync` : start;
  return `${start}, type ${v1}${isSet ? ', first contact' : ''}`;
}

export const CLC_HDR = part('header', 8, {
  eyecatcher: u32(0, eyecatcherName),
  type: u8(TYPE_AT, (type) => typeName(type) ?? '?'),
  length: u16(5),
  flags: bits(7, { version: [4, 4], typev2: [2, 2], typev1: [0, 2] }, flagsText),
});

export const PROPOSAL_BASE = part('proposal', 32, {
  'peer id': bytes(0, 8),
  'roce gid': bytes(8, 16),
  mac: bytes(24, 6),
  /** From behind this field to the IP prefix. */
  iparea_offset: u16(30),
});

export const PROPOSAL_SMCD = part('smcd', 40, {
  'ism.gid': u64(0),
  'ism.chid': u16(8, chidName),
  /** From behind this field. */
  v2_ext_offset: u16(10),
  vendor_oui: bytes(12, 3),
  vendor_exp_options: bytes(15, 5),
});

export const PROPOSAL_PREFIX = part('ip prefix', 8, {
  outgoing_subnet: u32(0),
  prefix_len: u8(4),
  ipv6_prefixes_cnt: u8(7),
});

export const PREFIX_IPV6 = part('ipv6 prefix', 17, { prefix: bytes(0, 16), prefix_len: u8(16) });

export const V2_EXT = part('v2 extension', 40, {
  eid_cnt: u8(0),
  ism_gid_cnt: u8(1),
  flag: bits(
    3,
    { release: [4, 4], seid: [0, 1] },
    ({ release, seid }) => `release ${release}, SEID ${seid === 1 ? 'offered' : 'not offered'}`,
  ),
  /** From behind this field. */
  smcd_v2_ext_offset: u16(6),
  'roce gid v2': bytes(8, 16),
  max_conns: u8(24),
  max_links: u8(25),
  feature_mask: u16(26, featureNames),
});

export const EID = part('user eid', 32, { eid: text32(0) });

export const SMCD_V2_EXT = part('smcd v2 extension', 48, { system_eid: text32(0) });

export const GID_CHID = part('gid, chid', 10, { gid: u64(0), chid: u16(8, chidName) });

export const ACCEPT_CONFIRM = part('smcd', 24, {
  gid: u64(0),
  token: u64(8),
  dmbe_idx: u8(16),
  dmbe_size: bits(
    17,
    { dmbe_size: [4, 4] },
    (size) => `${uncompressBufsize(size.dmbe_size)} bytes`,
  ),
  linkid: littleEndian32(20),
});

export const ACCEPT_CONFIRM_V1 = part('v1', 12, {});

export const ACCEPT_CONFIRM_V2 = part('v2', 42, {
  chid: u16(0, chidName),
  eid: text32(2),
  gid_ext: u64(34),
});

export const FIRST_CONTACT = part('first contact extension', 36, {
  v2_direct: bits(0, { v2_direct: [7, 1] }, () => ''),
  os_type: bits(
    1,
    { os_type: [4, 4], release: [0, 4] },
    (os) => `OS ${os.os_type}, release ${os.release}`,
  ),
  hostname: text32(4),
});

export const FIRST_CONTACT_V2X = part('first contact extension v2.1', 16, {
  max_conns: u8(0),
  max_links: u8(1),
  feature_mask: u16(2, featureNames),
  vendor_exp_options: bytes(4, 4),
});

export const DECLINE = part('decline', 16, {
  'peer id': bytes(0, 8),
  peer_diagnosis: u32(8, declineName),
  os_type: bits(12, { os_type: [4, 4] }, (os) =>
    os.os_type === 0 ? 'not told' : `OS ${os.os_type}`,
  ),
});

export const DECLINE_V2 = part('decline v2', 16, { peer_diagnosis_v2: bytes(0, 16) });

export const TRAILER = part('trailer', 4, { eyecatcher: u32(0, eyecatcherName) });
