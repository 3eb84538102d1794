/**
 * Between SMC-D and its devices: the smc_ism_* functions, which call smcd_dev.ops.
 *
 * Reference: net/smc/smc_ism.c of 6.12. smc_ism_write is inline in Linux and in `smcd_tx_ism_write` here.
 */
import { atomic, type KernelFunction } from '../../kernel/function.js';
import { ERRNO } from '../../common/errno.js';
import type { SmcContext } from '../context.js';
import { SMCD_DMB } from '../structs.js';
import { BUF, C, DEV, LGR } from './fields.js';

const DMB = SMCD_DMB.offset;

/** ISM_RESERVED_VLANID: what v2 asks reachability with. */
export const ISM_RESERVED_VLANID = 0x1fff;

export function ismFunctionsOfCore(smc: SmcContext): readonly KernelFunction[] {
  const { ram, kernel, devices } = smc;
  /** A smcd_dmb that is on Linux's stack. */
  const dmb = kernel.physical.alloc(SMCD_DMB.size);
  const fromDmb = (desc: number): void => {
    ram.set64(desc + BUF.token, ram.u64(dmb + DMB.dmb_tok));
    ram.set32(desc + BUF.sba_idx, ram.u32(dmb + DMB.sba_idx));
    ram.setPointer(desc + BUF.cpu_addr, ram.pointer(dmb + DMB.cpu_addr));
    ram.set64(desc + BUF.dma_addr, ram.u64(dmb + DMB.dma_addr));
    ram.set32(desc + BUF.len, ram.u32(dmb + DMB.dmb_len));
  };
  return [
    atomic({
      prototype:
        'int smc_ism_cantalk(struct smcd_gid *peer_gid, unsigned short vlan_id, struct smcd_dev *smcd)',
      calls: true,
      body: (_kernel, gid, vlan, dev) =>
        kernel.invoke(
          devices.of(dev).ops.query_remote_gid,
          dev,
          gid,
          vlan === ISM_RESERVED_VLANID || vlan === 0 ? 0 : 1,
          vlan,
        ),
    }),
    atomic({
      prototype:
        'int smc_ism_register_dmb(struct smc_link_group *lgr, int dmb_len, struct smc_buf_desc *dmb_desc)',
      calls: true,
      body: (_kernel, lgr, length, desc) => {
        const dev = ram.pointer(lgr + LGR.smcd);
        ram.zero(dmb, SMCD_DMB.size);
        ram.set32(dmb + DMB.dmb_len, length);
        ram.set32(dmb + DMB.vlan_id, ram.u16(lgr + LGR.vlan_id));
        ram.set64(dmb + DMB.rgid, ram.u64(lgr + LGR.peer_gid));
        const rc = kernel.invoke(devices.of(dev).ops.register_dmb, dev, dmb, 0);
        if (rc === 0) fromDmb(desc);
        return rc;
      },
    }),
    atomic({
      prototype: 'int smc_ism_unregister_dmb(struct smcd_dev *smcd, struct smc_buf_desc *dmb_desc)',
      calls: true,
      body: (_kernel, dev, desc) => {
        // nothing was registered
        if (ram.u64(desc + BUF.dma_addr) === 0n) return 0;
        ram.zero(dmb, SMCD_DMB.size);
        ram.set64(dmb + DMB.dmb_tok, ram.u64(desc + BUF.token));
        return kernel.invoke(devices.of(dev).ops.unregister_dmb, dev, dmb);
      },
    }),
    atomic({
      prototype: 'bool smc_ism_support_dmb_nocopy(struct smcd_dev *smcd)',
      calls: true,
      body: (_kernel, dev) => {
        const { support_dmb_nocopy: ask } = devices.of(dev).ops;
        return ask !== undefined && kernel.invoke(ask, dev) !== 0 ? 1 : 0;
      },
    }),
    atomic({
      prototype:
        'int smc_ism_attach_dmb(struct smcd_dev *dev, u64 token, struct smc_buf_desc *dmb_desc)',
      calls: true,
      body: (_kernel, dev, token, desc) => {
        const { attach_dmb: attach } = devices.of(dev).ops;
        if (attach === undefined) return -ERRNO.EINVAL;
        ram.zero(dmb, SMCD_DMB.size);
        ram.set32(dmb + DMB.dmb_tok, token % 0x1_0000_0000);
        ram.set32(dmb + DMB.dmb_tok + 4, Math.floor(token / 0x1_0000_0000));
        const rc = kernel.invoke(attach, dev, dmb);
        if (rc === 0) fromDmb(desc);
        return rc;
      },
    }),
    atomic({
      prototype: 'int smc_ism_detach_dmb(struct smcd_dev *dev, u64 token)',
      calls: true,
      body: (_kernel, dev, token) => {
        const { detach_dmb: detach } = devices.of(dev).ops;
        return detach === undefined ? -ERRNO.EINVAL : kernel.invoke(detach, dev, token);
      },
    }),
    atomic({
      prototype: 'u16 smc_ism_get_chid(struct smcd_dev *smcd)',
      calls: true,
      body: (_kernel, dev) => kernel.invoke(devices.of(dev).ops.get_chid, dev),
    }),
    atomic({
      prototype: 'bool smc_ism_is_v2_capable(void)',
      body: () => (devices.isV2Capable ? 1 : 0),
    }),
    atomic({
      prototype: 'void smc_ism_get_system_eid(u8 **eid)',
      body: (_kernel, eid) => ram.setPointer(eid, systemEid(smc)),
    }),
  ];
}

const SEID_SYMBOL = new WeakMap<SmcContext, number>();

/** smc_ism_v2_system_eid in kernel memory. */
function systemEid(smc: SmcContext): number {
  const known = SEID_SYMBOL.get(smc);
  if (known !== undefined) return known;
  const at = smc.kernel.physical.alloc(32);
  smc.ram.bytes.set(smc.eids.systemEid, at);
  SEID_SYMBOL.set(smc, at);
  return at;
}

/** smc_ism_set_conn, smc_ism_unset_conn: who is told when the buffer of a connection was written to. */
export function setIsmConn(smc: SmcContext, conn: number, on: boolean): void {
  const { ram } = smc;
  const desc = ram.pointer(conn + C.rmb_desc);
  if (desc === 0) return;
  const dev = ram.pointer(ram.pointer(conn + C.lgr) + LGR.smcd);
  const slot = ram.pointer(dev + DEV.conn) + 8 * ram.u32(desc + BUF.sba_idx);
  ram.setPointer(slot, on ? conn : 0);
}

/** The GID that a device says is its own: gid at `to`, gid_ext behind it. */
export function getLocalGid(smc: SmcContext, dev: number, to: number): void {
  smc.kernel.invoke(smc.devices.of(dev).ops.get_local_gid, dev, to);
}
