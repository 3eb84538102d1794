/**
 * The loopback device: both ends of a connection are in this kernel, and may share the receiver's buffer.
 *
 * Reference: net/smc/smc_loopback.c of 6.12.117; the RFC's smcd-loopback-dev of December 2022.
 *
 * | form           | GID      | CHID    | announced by       | signal                    | signal to nobody |
 * | -------------- | -------- | ------- | ------------------ | ------------------------- | ---------------- |
 * | 6.12           | 128 bits | 0xffff  | v2, two entries    | tasklet                   | EPIPE            |
 * | rfc            | 64 bits  | 0       | v1, any interface  | handler called in the send| nothing          |
 * | rfc-attachment | 64 bits  | 0xffff  | v2 with a SEID     | handler called in the send| nothing          |
 *
 * Only the RFC's forms have operations for VLANs and events, and these do nothing and say yes.
 * The RFC waits in unregister_dmb until nobody is attached; here the last to let go frees in all forms.
 */
import type { Random } from '../../common/random.js';
import { atomic, type KernelFunction } from '../../kernel/function.js';
import { ERRNO } from '../../common/errno.js';
import type { SmcContext } from '../context.js';
import { SMCD_DEV, SMCD_DMB, SMC_LO_DEV } from '../structs.js';
import type { SmcdDeviceSpec, SmcdOps } from './devices.js';
import type { DmbTable } from './dmb.js';

export const LOOPBACK_FORMS = ['6.12', 'rfc', 'rfc-attachment'] as const;
export type LoopbackForm = (typeof LOOPBACK_FORMS)[number];

/** SMC_LO_MAX_DMBS */
const MAX_DMBS = 5000;
const LOOPBACK_CHID = 0xffff;

/** The SEID that the mail's attachment makes v2 capable with. */
export const RFC_SYSTEM_EID = 'SMC-SYSZ-LOSEID00000000010001000';

const OPS: SmcdOps = {
  query_remote_gid: 'smc_lo_query_rgid',
  register_dmb: 'smc_lo_register_dmb',
  unregister_dmb: 'smc_lo_unregister_dmb',
  move_data: 'smc_lo_move_data',
  supports_v2: 'smc_lo_supports_v2',
  get_local_gid: 'smc_lo_get_local_gid',
  get_chid: 'smc_lo_get_chid',
};

/** The RFC's: stubs that say yes. */
const RFC_OPS: Partial<SmcdOps> = {
  add_vlan_id: 'smc_lo_add_vlan_id',
  del_vlan_id: 'smc_lo_del_vlan_id',
  signal_event: 'smc_lo_signal_event',
};

const NOCOPY_OPS: Partial<SmcdOps> = {
  support_dmb_nocopy: 'smc_lo_support_dmb_nocopy',
  attach_dmb: 'smc_lo_attach_dmb',
  detach_dmb: 'smc_lo_detach_dmb',
};

export interface LoopbackOptions {
  readonly form: LoopbackForm;
  readonly nocopy: boolean;
  readonly maxDmbs?: number;
}

export function loopbackDevice(
  random: Random,
  { form, nocopy, maxDmbs = MAX_DMBS }: LoopbackOptions,
): SmcdDeviceSpec {
  const isMerged = form === '6.12';
  return {
    kind: 'loopback',
    name: isMerged ? 'loopback-ism' : 'smcd-loopback-dev',
    ops: { ...OPS, ...(isMerged ? {} : RFC_OPS), ...(nocopy ? NOCOPY_OPS : {}) },
    gid: random.u64(),
    gidExt: isMerged ? random.u64() : 0n,
    chid: form === 'rfc' ? 0 : LOOPBACK_CHID,
    maxDmbs,
    pnetid: '',
    supportsV2: form !== 'rfc',
    nocopy,
    signal: isMerged ? 'tasklet' : 'synchronous',
    signalChecked: isMerged,
    v1: form === 'rfc',
    listed: !isMerged,
    emulated: isMerged,
  };
}

export function loopbackFunctions(smc: SmcContext, table: DmbTable): readonly KernelFunction[] {
  const { ram } = smc;
  const localGid = (dev: number): number =>
    ram.pointer(dev + SMCD_DEV.offset.priv) + SMC_LO_DEV.offset.local_gid;
  return [
    atomic({
      prototype:
        'int smc_lo_query_rgid(struct smcd_dev *smcd, struct smcd_gid *rgid, u32 vid_valid, u32 vid)',
      body: (_kernel, dev, gid) => {
        const own = localGid(dev);
        const isSame = ram.u64(own) === ram.u64(gid) && ram.u64(own + 8) === ram.u64(gid + 8);
        return isSame ? 0 : -ERRNO.ENETUNREACH;
      },
    }),
    atomic({
      prototype:
        'int smc_lo_register_dmb(struct smcd_dev *smcd, struct smcd_dmb *dmb, void *client_priv)',
      body: (_kernel, dev, dmb) => table.register(dev, dmb),
    }),
    atomic({
      prototype: 'int smc_lo_unregister_dmb(struct smcd_dev *smcd, struct smcd_dmb *dmb)',
      body: (_kernel, dev, dmb) => table.put(dev, ram.u53(dmb + SMCD_DMB.offset.dmb_tok)),
    }),
    atomic({
      prototype: 'int smc_lo_support_dmb_nocopy(struct smcd_dev *smcd)',
      body: () => 1,
    }),
    atomic({
      prototype: 'int smc_lo_attach_dmb(struct smcd_dev *smcd, struct smcd_dmb *dmb)',
      body: (_kernel, dev, dmb) => table.attach(dev, dmb),
    }),
    atomic({
      prototype: 'int smc_lo_detach_dmb(struct smcd_dev *smcd, u64 token)',
      body: (_kernel, dev, token) => table.put(dev, token),
    }),
    atomic({
      prototype:
        'int smc_lo_move_data(struct smcd_dev *smcd, u64 dmb_tok, unsigned int idx, bool sf, ' +
        'unsigned int offset, void *data, unsigned int size)',
      calls: true,
      body: (_kernel, dev, token, _idx, sf, offset, data, size) =>
        table.move(smc.devices.of(dev), token, sf !== 0, offset, data, size),
    }),
    atomic({
      prototype: 'int smc_lo_add_vlan_id(struct smcd_dev *smcd, u64 vlan_id)',
      body: () => 0,
    }),
    atomic({
      prototype: 'int smc_lo_del_vlan_id(struct smcd_dev *smcd, u64 vlan_id)',
      body: () => 0,
    }),
    atomic({
      prototype:
        'int smc_lo_signal_event(struct smcd_dev *dev, struct smcd_gid *rgid, u32 trigger_irq, ' +
        'u32 event_code, u64 info)',
      body: () => 0,
    }),
    atomic({ prototype: 'int smc_lo_supports_v2(void)', body: () => 1 }),
    atomic({
      prototype: 'void smc_lo_get_local_gid(struct smcd_dev *smcd, struct smcd_gid *smcd_gid)',
      body: (_kernel, dev, gid) => ram.copy(gid, localGid(dev), 16),
    }),
    atomic({
      prototype: 'u16 smc_lo_get_chid(struct smcd_dev *smcd)',
      body: (_kernel, dev) =>
        ram.u16(ram.pointer(dev + SMCD_DEV.offset.priv) + SMC_LO_DEV.offset.chid),
    }),
  ];
}
