/**
 * The virtqueue interface as kernel functions, so that tracing sees each call the driver makes.
 *
 * Reference: drivers/virtio/virtio_ring.c of 6.12. The work is done in `virtqueue.ts`. What the device
 * returns wrongly is logged as BAD_RING does.
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import type { VirtioNetHost } from '../driver/common.js';
import {
  virtqueueAdd,
  virtqueueDetachUnusedBuf,
  virtqueueDisableCb,
  virtqueueEnableCb,
  virtqueueEnableCbDelayed,
  virtqueueGetBuf,
  virtqueueIsBroken,
  virtqueueKickPrepare,
  virtqueueLastUsed,
  virtqueuePoll,
} from './virtqueue.js';
import { SCATTERLIST, VRING_VIRTQUEUE, type UsedBuffer } from './vring-virtqueue.js';

const VQ = VRING_VIRTQUEUE.offset;

export function virtqueueFunctions(host: VirtioNetHost): readonly KernelFunction[] {
  // filled and read within one call
  const used: UsedBuffer = { data: 0, length: 0, ctx: 0 };

  function getBuf(kernel: KernelContext, vq: number, len: number, ctx: number): number {
    const { ram } = kernel.memory;
    const broken = virtqueueGetBuf(kernel, vq, used);
    if (broken !== undefined) {
      const index = ram.u32(vq + VQ.index);
      const name = `${index % 2 === 0 ? 'input' : 'output'}.${index >> 1}`;
      kernel.printk(`virtio_net virtio0: ${name}:${broken}`);
    }
    if (used.data === 0) return 0;
    ram.set32(len, used.length);
    if (ctx !== 0) ram.setWord(ctx, used.ctx);
    return used.data;
  }

  function add(
    kernel: KernelContext,
    vq: number,
    sg: number,
    out: number,
    input: number,
    data: number,
    ctx: number,
  ): number {
    const result = virtqueueAdd(kernel, vq, sg, out, input, data, ctx);
    // the next one would make the difference of the indexes 0, and no kick would be due
    if (kernel.memory.ram.u16(vq + VQ.num_added) === 0xffff) kick(kernel, vq);
    return result;
  }

  function notify(kernel: KernelContext, vq: number): number {
    if (virtqueueIsBroken(kernel.memory, vq)) return 0;
    host.notify(vq);
    return 1;
  }

  function kick(kernel: KernelContext, vq: number): number {
    return virtqueueKickPrepare(kernel.memory, vq) ? notify(kernel, vq) : 1;
  }

  function poll(kernel: KernelContext, vq: number, lastUsed: number): number {
    if (virtqueueIsBroken(kernel.memory, vq)) return 0;
    return virtqueuePoll(kernel.memory, vq, lastUsed) ? 1 : 0;
  }

  return [
    atomic({
      prototype:
        'int virtqueue_add_inbuf_ctx(struct virtqueue *vq, struct scatterlist *sg, unsigned int num, ' +
        'void *data, void *ctx, gfp_t gfp)',
      numbers: ['ctx'],
      body: (kernel, vq, sg, num, data, ctx) => add(kernel, vq, sg, 0, num, data, ctx),
    }),
    atomic({
      prototype:
        'int virtqueue_add_inbuf(struct virtqueue *vq, struct scatterlist *sg, unsigned int num, ' +
        'void *data, gfp_t gfp)',
      body: (kernel, vq, sg, num, data) => add(kernel, vq, sg, 0, num, data, 0),
    }),
    atomic({
      prototype:
        'int virtqueue_add_sgs(struct virtqueue *vq, struct scatterlist **sgs, ' +
        'unsigned int out_sgs, unsigned int in_sgs, void *data, gfp_t gfp)',
      body: addSgs,
    }),
    atomic({
      prototype:
        'int virtqueue_add_outbuf(struct virtqueue *vq, struct scatterlist *sg, unsigned int num, ' +
        'void *data, gfp_t gfp)',
      body: (kernel, vq, sg, num, data) => {
        const result = add(kernel, vq, sg, num, 0, data, 0);
        // a full split queue with something to send is the device's to empty
        const isPacked = kernel.memory.ram.u8(vq + VQ.packed_ring) !== 0;
        if (result === -ERRNO.ENOSPC && !isPacked) host.notify(vq);
        return result;
      },
    }),
    atomic({
      prototype: 'void *virtqueue_get_buf_ctx(struct virtqueue *vq, unsigned int *len, void **ctx)',
      body: getBuf,
    }),
    atomic({
      prototype: 'void *virtqueue_get_buf(struct virtqueue *vq, unsigned int *len)',
      body: (kernel, vq, len) => getBuf(kernel, vq, len, 0),
    }),
    atomic({
      prototype: 'bool virtqueue_kick_prepare(struct virtqueue *vq)',
      body: (kernel, vq) => (virtqueueKickPrepare(kernel.memory, vq) ? 1 : 0),
    }),
    atomic({
      prototype: 'bool virtqueue_notify(struct virtqueue *vq)',
      body: notify,
    }),
    atomic({
      prototype: 'bool virtqueue_kick(struct virtqueue *vq)',
      body: kick,
    }),
    atomic({
      prototype: 'void virtqueue_disable_cb(struct virtqueue *vq)',
      body: (kernel, vq) => virtqueueDisableCb(kernel.memory, vq),
    }),
    atomic({
      prototype: 'unsigned int virtqueue_enable_cb_prepare(struct virtqueue *vq)',
      body: (kernel, vq) => {
        virtqueueEnableCb(kernel.memory, vq);
        return virtqueueLastUsed(kernel.memory, vq);
      },
    }),
    atomic({
      prototype: 'bool virtqueue_poll(struct virtqueue *vq, unsigned int last_used_idx)',
      body: poll,
    }),
    atomic({
      prototype: 'bool virtqueue_enable_cb(struct virtqueue *vq)',
      body: (kernel, vq) => {
        virtqueueEnableCb(kernel.memory, vq);
        return poll(kernel, vq, virtqueueLastUsed(kernel.memory, vq)) === 0 ? 1 : 0;
      },
    }),
    atomic({
      prototype: 'bool virtqueue_enable_cb_delayed(struct virtqueue *vq)',
      body: (kernel, vq) => (virtqueueEnableCbDelayed(kernel.memory, vq) ? 1 : 0),
    }),
    atomic({
      prototype: 'void *virtqueue_detach_unused_buf(struct virtqueue *vq)',
      body: (kernel, vq) => virtqueueDetachUnusedBuf(kernel, vq, used),
    }),
    atomic({
      prototype: 'bool virtqueue_is_broken(const struct virtqueue *vq)',
      body: (kernel, vq) => (virtqueueIsBroken(kernel.memory, vq) ? 1 : 0),
    }),
    atomic({
      prototype: 'unsigned int virtqueue_get_vring_size(const struct virtqueue *vq)',
      body: (kernel, vq) => kernel.memory.ram.u32(vq + VQ.num),
    }),
  ];
}

/** Each of `sgs` points to pieces that end with one at address 0. */
function addSgs(
  kernel: KernelContext,
  vq: number,
  sgs: number,
  outSgs: number,
  inSgs: number,
  data: number,
): number {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const pieces: number[] = [];
  let out = 0;
  for (let i = 0; i < outSgs + inSgs; i++) {
    let piece = ram.pointer(sgs + 8 * i);
    for (; ram.pointer(piece + SCATTERLIST.offset.address) !== 0; piece += SCATTERLIST.size) {
      pieces.push(piece);
      if (i < outSgs) out++;
    }
  }
  const flat = physical.alloc(SCATTERLIST.size * pieces.length);
  for (const [i, piece] of pieces.entries()) {
    ram.copy(flat + SCATTERLIST.size * i, piece, SCATTERLIST.size);
  }
  const result = virtqueueAdd(kernel, vq, flat, out, pieces.length - out, data, 0);
  physical.free(flat);
  return result;
}
