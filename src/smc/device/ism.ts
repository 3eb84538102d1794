/**
 * A model of the ISM device of s390: the firmware copies between partitions, and nothing can be shared.
 *
 * Reference: drivers/s390/net/ism_drv.c of 6.12 for the names of its operations; the thread says why it has
 * to copy (partitions have no common page tables). Both partitions are this kernel here. Its GID has 8 bytes;
 * which fabric it is on says the CHID. A software event reaches the device whose GID it names. `supportsV2` stands for a successful add of VLAN 0x1fff at probe.
 */
import type { Random } from '../../common/random.js';
import { atomic, type KernelFunction } from '../../kernel/function.js';
import { ERRNO } from '../../common/errno.js';
import type { SmcContext } from '../context.js';
import { ISM_EVENT, raiseIsmEvent } from '../core/ism-events.js';
import { SMCD_DEV, SMCD_DMB, SMC_LO_DEV } from '../structs.js';
import type { SmcdDeviceSpec, SmcdOps } from './devices.js';
import type { DmbTable } from './dmb.js';

/** ISM_NR_DMBS */
const MAX_DMBS = 1920;

const OPS: SmcdOps = {
  query_remote_gid: 'smcd_query_rgid',
  register_dmb: 'smcd_register_dmb',
  unregister_dmb: 'smcd_unregister_dmb',
  move_data: 'smcd_move',
  supports_v2: 'smcd_supports_v2',
  get_local_gid: 'smcd_get_local_gid',
  get_chid: 'smcd_get_chid',
  add_vlan_id: 'smcd_add_vlan_id',
  del_vlan_id: 'smcd_del_vlan_id',
  signal_event: 'smcd_signal_ieq',
};

export interface IsmOptions {
  /** Default 0x0740. */
  readonly chid?: number;
  /** Default none. */
  readonly pnetid?: string;
  /** Default true. */
  readonly supportsV2?: boolean;
  readonly name?: string;
}

export function ismDevice(random: Random, options: IsmOptions): SmcdDeviceSpec {
  return {
    kind: 'ism',
    name: options.name ?? 'ism',
    ops: OPS,
    gid: random.u64(),
    gidExt: 0n,
    chid: options.chid ?? 0x0740,
    maxDmbs: MAX_DMBS,
    pnetid: options.pnetid ?? '',
    supportsV2: options.supportsV2 ?? true,
    nocopy: false,
    signal: 'tasklet',
    signalChecked: false,
    v1: false,
    listed: true,
    emulated: false,
  };
}

export function ismFunctions(smc: SmcContext, table: DmbTable): readonly KernelFunction[] {
  const { ram } = smc;
  const priv = (dev: number): number => ram.pointer(dev + SMCD_DEV.offset.priv);
  const vlan = (name: string): KernelFunction =>
    atomic({ prototype: `int ${name}(struct smcd_dev *smcd, u64 vlan_id)`, body: () => 0 });
  return [
    atomic({
      prototype:
        'int smcd_query_rgid(struct smcd_dev *smcd, struct smcd_gid *rgid, u32 vid_valid, u32 vid)',
      body: (_kernel, dev, gid) => {
        const own = ram.u64(priv(dev) + SMC_LO_DEV.offset.local_gid);
        return own === ram.u64(gid) ? 0 : -ERRNO.ENETUNREACH;
      },
    }),
    atomic({
      prototype: 'int smcd_register_dmb(struct smcd_dev *smcd, struct smcd_dmb *dmb, void *client)',
      body: (_kernel, dev, dmb) => table.register(dev, dmb),
    }),
    atomic({
      prototype: 'int smcd_unregister_dmb(struct smcd_dev *smcd, struct smcd_dmb *dmb)',
      body: (_kernel, dev, dmb) => table.put(dev, ram.u53(dmb + SMCD_DMB.offset.dmb_tok)),
    }),
    atomic({
      prototype:
        'int smcd_move(struct smcd_dev *smcd, u64 dmb_tok, unsigned int idx, bool sf, ' +
        'unsigned int offset, void *data, unsigned int size)',
      calls: true,
      body: (_kernel, dev, token, _idx, sf, offset, data, size) =>
        table.move(smc.devices.of(dev), token, sf !== 0, offset, data, size),
    }),
    atomic({ prototype: 'int smcd_supports_v2(void)', body: () => 1 }),
    atomic({
      prototype: 'void smcd_get_local_gid(struct smcd_dev *smcd, struct smcd_gid *smcd_gid)',
      body: (_kernel, dev, gid) => ram.copy(gid, priv(dev) + SMC_LO_DEV.offset.local_gid, 16),
    }),
    atomic({
      prototype: 'u16 smcd_get_chid(struct smcd_dev *smcd)',
      body: (_kernel, dev) => ram.u16(priv(dev) + SMC_LO_DEV.offset.chid),
    }),
    vlan('smcd_add_vlan_id'),
    vlan('smcd_del_vlan_id'),
    atomic({
      prototype:
        'int smcd_signal_ieq(struct smcd_dev *smcd, struct smcd_gid *rgid, u32 trigger_irq, ' +
        'u32 event_code, u64 info)',
      calls: true,
      body: (_kernel, dev, rgid, _trigger, code, info) => {
        const peer = smc.devices.list.find(
          ({ kind, gid }) => kind === 'ism' && gid === ram.u64(rgid),
        );
        if (!peer) return -ERRNO.ENETUNREACH;
        const tok = smc.devices.of(dev).gid;
        raiseIsmEvent(smc, peer.address, { type: ISM_EVENT.SWR, code, tok, info: BigInt(info) });
        return 0;
      },
    }),
  ];
}
