/**
 * Direct memory buffers of a device: slots, tokens, references, and writing into them.
 *
 * Reference: smc_lo_register_dmb, smc_lo_unregister_dmb, smc_lo_attach_dmb, smc_lo_detach_dmb,
 * smc_lo_move_data in net/smc/smc_loopback.c of 6.12.117, whose put drops count and hash entry as one.
 * A token here has 53 random bits (in Linux 64): what a number in a function's body holds exactly.
 */
import { ERRNO } from '../../common/errno.js';
import { KernelError } from '../../common/errors.js';
import type { Random } from '../../common/random.js';
import type { SmcContext } from '../context.js';
import { SMCD_DEV, SMCD_DMB, SMC_CONNECTION, SMC_LO_DEV, SMC_LO_DMB_NODE } from '../structs.js';
import { bucketOf, type SmcdDevice } from './devices.js';

const DMB = SMCD_DMB.offset;
const NODE = SMC_LO_DMB_NODE.offset;
const LO = SMC_LO_DEV.offset;
const DEV = SMCD_DEV.offset;

/** What smc_lo_register_dmb stores as dma_addr: unregistering skips 0. */
const NO_DMA_ADDR = 0xffff_ffff_ffff_ffffn;

export class DmbTable {
  readonly #smc: SmcContext;
  readonly #random: Random;

  constructor(smc: SmcContext, random: Random) {
    this.#smc = smc;
    this.#random = random;
  }

  /** 0, or -ENOSPC, -ENOMEM. */
  register(dev: number, dmb: number): number {
    const { ram, kernel } = this.#smc;
    const lo = ram.pointer(dev + DEV.priv);
    const slots = ram.pointer(lo + LO.sba_idx_mask);
    const max = ram.u32(lo + LO.max_dmbs);
    const free = ram.bytes.subarray(slots, slots + max).indexOf(0);
    if (free < 0) return -ERRNO.ENOSPC;
    const len = ram.u32(dmb + DMB.dmb_len);
    const cpuAddr = this.#allocate(len);
    if (cpuAddr === 0) return -ERRNO.ENOMEM;
    const node = kernel.physical.alloc(SMC_LO_DMB_NODE.size);
    ram.set8(slots + free, 1);
    let token = this.#newToken();
    while (this.find(lo, token) !== 0) token = this.#newToken();
    setToken(ram, node + NODE.token, token);
    ram.set32(node + NODE.len, len);
    ram.set32(node + NODE.sba_idx, free);
    ram.setPointer(node + NODE.cpu_addr, cpuAddr);
    ram.set64(node + NODE.dma_addr, NO_DMA_ADDR);
    ram.set32(node + NODE.refcnt, 1);
    const bucket = ram.pointer(lo + LO.dmb_ht) + 8 * bucketOf(token);
    ram.setPointer(node + NODE.list, ram.pointer(bucket));
    ram.setPointer(bucket, node);
    ram.set32(lo + LO.dmb_cnt, ram.u32(lo + LO.dmb_cnt) + 1);
    this.#fill(dmb, node);
    return 0;
  }

  /** 0, or -EINVAL. */
  attach(dev: number, dmb: number): number {
    const { ram } = this.#smc;
    const node = this.find(ram.pointer(dev + DEV.priv), ram.u53(dmb + DMB.dmb_tok));
    if (node === 0) return -ERRNO.EINVAL;
    ram.set32(node + NODE.refcnt, ram.u32(node + NODE.refcnt) + 1);
    this.#fill(dmb, node);
    return 0;
  }

  /** Drops a reference: unregister and detach. 0, or -EINVAL. */
  put(dev: number, token: number): number {
    const { ram, kernel } = this.#smc;
    const lo = ram.pointer(dev + DEV.priv);
    const node = this.find(lo, token);
    if (node === 0) return -ERRNO.EINVAL;
    const count = ram.u32(node + NODE.refcnt) - 1;
    ram.set32(node + NODE.refcnt, count);
    if (count > 0) return 0;
    this.#unhash(lo, node, token);
    ram.set8(ram.pointer(lo + LO.sba_idx_mask) + ram.u32(node + NODE.sba_idx), 0);
    kernel.physical.free(ram.pointer(node + NODE.cpu_addr));
    kernel.physical.free(node);
    ram.set32(lo + LO.dmb_cnt, ram.u32(lo + LO.dmb_cnt) - 1);
    return 0;
  }

  /** Writes, and signals the receiver if `signal`. 0, or -EINVAL, -EPIPE (with the bytes written). */
  move(
    device: SmcdDevice,
    token: number,
    signal: boolean,
    offset: number,
    data: number,
    size: number,
  ): number {
    const { ram, stats } = this.#smc;
    // sender and receiver share the ring: nothing to move, and the token is not looked at
    if (device.nocopy && !signal) return 0;
    const lo = ram.pointer(device.address + DEV.priv);
    const node = this.find(lo, token);
    if (node === 0) return -ERRNO.EINVAL;
    if (offset + size > ram.u32(node + NODE.len)) return -ERRNO.EINVAL;
    ram.copy(ram.pointer(node + NODE.cpu_addr) + offset, data, size);
    if (!signal) {
      stats.deviceCopied += size;
      return 0;
    }
    stats.cdcCopied += size;
    return this.#signal(device, ram.u32(node + NODE.sba_idx));
  }

  /** The node with a token, or 0. */
  find(lo: number, token: number): number {
    const { ram } = this.#smc;
    let node = ram.pointer(ram.pointer(lo + LO.dmb_ht) + 8 * bucketOf(token));
    while (node !== 0 && ram.u53(node + NODE.token) !== token) {
      node = ram.pointer(node + NODE.list);
    }
    return node;
  }

  #signal(device: SmcdDevice, index: number): number {
    const { ram, stats, kernel } = this.#smc;
    const conn = ram.pointer(ram.pointer(device.address + DEV.conn) + 8 * index);
    const C = SMC_CONNECTION.offset;
    if (conn === 0 || ram.u8(conn + C.killed) !== 0) {
      return device.signalChecked ? -ERRNO.EPIPE : 0;
    }
    stats.signals++;
    if (device.signal === 'tasklet') this.#smc.scheduleTasklet(conn);
    else kernel.invoke('smcd_cdc_rx_tsklet', conn + C.rx_tsklet);
    return 0;
  }

  #fill(dmb: number, node: number): void {
    const { ram } = this.#smc;
    ram.set64(dmb + DMB.dmb_tok, ram.u64(node + NODE.token));
    ram.set32(dmb + DMB.dmb_len, ram.u32(node + NODE.len));
    ram.set32(dmb + DMB.sba_idx, ram.u32(node + NODE.sba_idx));
    ram.setPointer(dmb + DMB.cpu_addr, ram.pointer(node + NODE.cpu_addr));
    ram.set64(dmb + DMB.dma_addr, ram.u64(node + NODE.dma_addr));
  }

  #unhash(lo: number, node: number, token: number): void {
    const { ram } = this.#smc;
    let link = ram.pointer(lo + LO.dmb_ht) + 8 * bucketOf(token);
    while (ram.pointer(link) !== node) link = ram.pointer(link) + NODE.list;
    ram.setPointer(link, ram.pointer(node + NODE.list));
  }

  #newToken(): number {
    return (this.#random.u32() & 0x1fffff) * 0x1_0000_0000 + this.#random.u32();
  }

  #allocate(size: number): number {
    try {
      return this.#smc.kernel.physical.alloc(size);
    } catch (error) {
      if (error instanceof KernelError && error.errno === 'ENOMEM') return 0;
      throw error;
    }
  }
}

function setToken(ram: SmcContext['ram'], at: number, token: number): void {
  ram.set32(at, token % 0x1_0000_0000);
  ram.set32(at + 4, Math.floor(token / 0x1_0000_0000));
}
