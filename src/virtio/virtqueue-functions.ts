/**
 * The virtqueue interface as kernel functions, so that tracing sees each call the driver makes.
 *
 * Reference: drivers/virtio/virtio_ring.c of 6.12. The work is done in `split-ring-driver.ts`; a layout
 * beside split would be chosen here. A cookie the device returns wrongly is logged as BAD_RING does.
 */
import { ERRNO } from '../common/errno.js';
import type { KernelFunction } from '../kernel/function.js';
import type { VirtioNetHost } from './net-driver-common.js';
import {
  VRING_VIRTQUEUE,
  virtqueueAdd,
  virtqueueDisableCb,
  virtqueueEnableCb,
  virtqueueGetBuf,
  virtqueueKickPrepare,
  virtqueuePoll,
  type UsedBuffer,
} from './split-ring-driver.js';
import { toUint } from './struct.js';

export function virtqueueFunctions(host: VirtioNetHost): readonly KernelFunction[] {
  const getBuf: KernelFunction['body'] = (kernel, vq = 0n, len = 0n, ctx = 0n) => {
    const used: UsedBuffer = { data: 0n, length: 0, ctx: 0n };
    const broken = virtqueueGetBuf(kernel.memory, vq, used);
    if (broken !== undefined) {
      const index = kernel.memory.read32(vq + VRING_VIRTQUEUE.offset.index);
      const name = `${index % 2 === 0 ? 'input' : 'output'}.${index >> 1}`;
      kernel.printk(`virtio_net virtio0: ${name}:${broken}`);
    }
    if (used.data === 0n) return 0n;
    kernel.memory.write32(len, used.length);
    if (ctx !== 0n) kernel.memory.write64(ctx, used.ctx);
    return used.data;
  };

  return [
    {
      name: 'virtqueue_add_inbuf_ctx',
      prototype:
        'int virtqueue_add_inbuf_ctx(struct virtqueue *vq, struct scatterlist *sg, unsigned int num, ' +
        'void *data, void *ctx, gfp_t gfp)',
      parameters: 6,
      body: (kernel, vq = 0n, sg = 0n, num = 0n, data = 0n, ctx = 0n) =>
        BigInt(virtqueueAdd(kernel.memory, vq, sg, 0, toUint(num), data, ctx)),
    },
    {
      name: 'virtqueue_add_outbuf',
      prototype:
        'int virtqueue_add_outbuf(struct virtqueue *vq, struct scatterlist *sg, unsigned int num, ' +
        'void *data, gfp_t gfp)',
      parameters: 5,
      body: (kernel, vq = 0n, sg = 0n, num = 0n, data = 0n) => {
        const result = virtqueueAdd(kernel.memory, vq, sg, toUint(num), 0, data, 0n);
        // a full queue with something to send is the device's to empty
        if (result === -ERRNO.ENOSPC) host.notify(vq);
        return BigInt(result);
      },
    },
    {
      name: 'virtqueue_get_buf_ctx',
      prototype: 'void *virtqueue_get_buf_ctx(struct virtqueue *vq, unsigned int *len, void **ctx)',
      parameters: 3,
      body: getBuf,
    },
    {
      name: 'virtqueue_get_buf',
      prototype: 'void *virtqueue_get_buf(struct virtqueue *vq, unsigned int *len)',
      parameters: 2,
      body: (kernel, vq = 0n, len = 0n) => getBuf(kernel, vq, len, 0n),
    },
    {
      name: 'virtqueue_kick_prepare',
      prototype: 'bool virtqueue_kick_prepare(struct virtqueue *vq)',
      parameters: 1,
      body: (kernel, vq = 0n) => (virtqueueKickPrepare(kernel.memory, vq) ? 1n : 0n),
    },
    {
      name: 'virtqueue_notify',
      prototype: 'bool virtqueue_notify(struct virtqueue *vq)',
      parameters: 1,
      body: (kernel, vq = 0n) => {
        if (kernel.memory.read8(vq + VRING_VIRTQUEUE.offset.broken) !== 0) return 0n;
        host.notify(vq);
        return 1n;
      },
    },
    {
      name: 'virtqueue_disable_cb',
      prototype: 'void virtqueue_disable_cb(struct virtqueue *vq)',
      parameters: 1,
      body: (kernel, vq = 0n) => virtqueueDisableCb(kernel.memory, vq),
    },
    {
      name: 'virtqueue_enable_cb_prepare',
      prototype: 'unsigned int virtqueue_enable_cb_prepare(struct virtqueue *vq)',
      parameters: 1,
      body: (kernel, vq = 0n) => {
        virtqueueEnableCb(kernel.memory, vq);
        return BigInt(kernel.memory.read16(vq + VRING_VIRTQUEUE.offset.last_used_idx));
      },
    },
    {
      name: 'virtqueue_poll',
      prototype: 'bool virtqueue_poll(struct virtqueue *vq, unsigned int last_used_idx)',
      parameters: 2,
      body: (kernel, vq = 0n) => {
        if (kernel.memory.read8(vq + VRING_VIRTQUEUE.offset.broken) !== 0) return 0n;
        return virtqueuePoll(kernel.memory, vq) ? 1n : 0n;
      },
    },
  ];
}
