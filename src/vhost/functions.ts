/**
 * The functions of QEMU's shadow virtqueue, given entries in the kernel's text as if they were the kernel's.
 *
 * They are functions of a user space process, which ftrace and BPF programs could not trace by name; the lab
 * lays them beside the kernel's so that the same tools show the way of a command, from virtnet_send_command in the
 * guest's driver on. Names and order of parameters are QEMU 10.0's (hw/virtio/vhost-shadow-virtqueue.c,
 * net/vhost-vdpa.c); those of the copy mode are the proposal's.
 *
 * Usage:
 *   const vmm = defineShadowVirtqueue(kernel);
 *   vmm.createDevice(netOptions, { mode: 'copy-v8' });
 */
import { InputError } from '../common/errors.js';
import { hex64 } from '../common/bytes.js';
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import type { NetDeviceOptions } from '../virtio/device/net-device.js';
import type { FunctionDefiner } from '../stack/net-stack.js';
import { add, kick } from './add.js';
import { handleCtrlAvailLanded } from './control-landed.js';
import { handleCtrlAvailStrict } from './control-strict.js';
import { addCopy, allocBuffer, handleCtrl, unmapElem } from './copy-descriptors.js';
import { handleGuestKick, start, stop } from './life-cycle.js';
import { GOT, type SvqMode, type SvqQueue } from './queue.js';
import { SHADOW_VIRTQUEUE, SVQ_ELEMENT_FIELDS } from './structs.js';
import { flush, getBuf, poll, pushElem, type Got } from './used.js';
import { VhostVdpaNet, type SvqOptions, type SvqRegistry } from './vhost-vdpa.js';

const S = SHADOW_VIRTQUEUE.offset;
const E = SVQ_ELEMENT_FIELDS;

type ControlHandler = (
  kernel: KernelContext,
  net: VhostVdpaNet,
  queue: SvqQueue,
  elem: number,
) => number;

/** How a command goes, by mode. The proposal does not look at it. */
const CONTROL_HANDLERS: Readonly<Record<SvqMode, ControlHandler>> = {
  translate: handleCtrlAvailStrict,
  'copy-v8': (kernel, _net, queue, elem) =>
    kernel.invoke('vhost_svq_add_element', queue.address, elem),
  landed: handleCtrlAvailLanded,
  transactional: handleCtrlAvailStrict,
};

/** A VMM in a kernel: its functions are defined, devices can be made. */
export interface ShadowVirtqueueVmm {
  createDevice(netOptions: NetDeviceOptions, options?: SvqOptions): VhostVdpaNet;
}

/** Defines the functions; once per kernel. */
export function defineShadowVirtqueue(kernel: KernelContext & FunctionDefiner): ShadowVirtqueueVmm {
  const registry: SvqRegistry = { kernel, queues: new Map(), devices: new Map() };
  for (const fn of shadowVirtqueueFunctions(registry)) kernel.define(fn);
  return {
    createDevice: (netOptions, options = {}) => new VhostVdpaNet(registry, netOptions, options),
  };
}

function shadowVirtqueueFunctions({
  kernel,
  queues,
  devices,
}: SvqRegistry): readonly KernelFunction[] {
  const { ram } = kernel.memory;
  const unknown = (svq: number): InputError =>
    new InputError(`no shadow virtqueue at ${hex64(ram.physToVirt(svq))}`);
  const queueOf = (svq: number): SvqQueue => {
    const queue = queues.get(svq);
    if (!queue) throw unknown(svq);
    return queue;
  };
  const deviceOf = (svq: number): VhostVdpaNet => {
    const device = devices.get(svq);
    if (!device) throw unknown(svq);
    return device;
  };
  // filled and read within one call
  const got: Got = { kind: GOT.NONE, head: 0, elem: 0, len: 0 };
  const SVQ = 'struct VhostShadowVirtqueue *svq';
  const ELEM = 'struct VirtQueueElement *elem';
  const STATE = 'struct VhostVDPAState *s';

  return [
    atomic({
      prototype: `bool vhost_svq_start(${SVQ})`,
      body: (context, svq) => {
        start(context, queueOf(svq));
        return 1;
      },
    }),
    atomic({
      prototype: `void vhost_svq_stop(${SVQ})`,
      calls: true,
      body: (context, svq) => stop(context, queueOf(svq)),
    }),
    atomic({
      prototype: `void vhost_handle_guest_kick(${SVQ})`,
      calls: true,
      body: (context, svq) => handleGuestKick(context, queueOf(svq)),
    }),
    atomic({
      prototype:
        `int vhost_svq_add(${SVQ}, const struct iovec *out_sg, size_t out_num, ` +
        'const u64 *out_addr, const struct iovec *in_sg, size_t in_num, const u64 *in_addr, ' +
        `${ELEM})`,
      calls: true,
      body: (context, ...args) => {
        const [svq = 0, outSg = 0, outNum = 0, outAddr = 0, inSg = 0, inNum = 0, inAddr = 0] = args;
        const out = { sg: outSg, num: outNum, addr: outAddr };
        const input = { sg: inSg, num: inNum, addr: inAddr };
        return add(context, queueOf(svq), out, input, args[7] ?? 0);
      },
    }),
    atomic({
      prototype: `int vhost_svq_add_element(${SVQ}, ${ELEM})`,
      calls: true,
      body: (context, svq, elem) =>
        ram.u8(svq + S.copy_descs) !== 0
          ? addCopy(context, queueOf(svq), elem)
          : context.invoke(
              'vhost_svq_add',
              svq,
              ram.pointer(elem + E.out_sg),
              ram.u32(elem + E.out_num),
              ram.pointer(elem + E.out_addr),
              ram.pointer(elem + E.in_sg),
              ram.u32(elem + E.in_num),
              ram.pointer(elem + E.in_addr),
              elem,
            ),
    }),
    atomic({
      prototype: `void vhost_svq_kick(${SVQ})`,
      body: (context, svq) => kick(context, queueOf(svq)),
    }),
    atomic({
      prototype: `struct VirtQueueElement *vhost_svq_get_buf(${SVQ}, u32 *len)`,
      body: (context, svq, len) => {
        getBuf(context, queueOf(svq), got);
        ram.set8(svq + S.scratch_kind, got.kind);
        ram.set32(svq + S.scratch_head, got.head);
        ram.set32(len, got.len);
        return got.elem;
      },
    }),
    atomic({
      prototype: `void vhost_svq_flush(${SVQ}, bool check_for_avail_queue)`,
      calls: true,
      body: (context, svq, check) => flush(context, queueOf(svq), check !== 0),
    }),
    atomic({
      prototype: `void vhost_svq_handle_call(${SVQ})`,
      calls: true,
      body: (context, svq) => void context.invoke('vhost_svq_flush', svq, 1),
    }),
    atomic({
      prototype: `size_t vhost_svq_poll(${SVQ}, size_t num)`,
      calls: true,
      body: (context, svq, count) => poll(context, queueOf(svq), count),
    }),
    atomic({
      prototype: `void vhost_svq_push_elem(${SVQ}, const ${ELEM}, u32 len)`,
      calls: true,
      body: (context, svq, elem, len) => pushElem(context, queueOf(svq), elem, len),
    }),
    atomic({
      prototype: `void *vhost_svq_alloc_buffer(${SVQ}, const struct iovec *iov, size_t num, bool write)`,
      body: (context, svq, iov, num, write) =>
        allocBuffer(context, queueOf(svq), iov, num, write !== 0),
    }),
    atomic({
      prototype: `bool vhost_svq_unmap_elem(${SVQ}, ${ELEM}, u32 len, bool copy_in)`,
      body: (context, svq, elem, len, copyIn) =>
        unmapElem(context, queueOf(svq), elem, len, copyIn !== 0) ? 1 : 0,
    }),
    atomic({
      prototype: `int vhost_vdpa_net_handle_ctrl_avail(${SVQ}, ${ELEM}, ${STATE})`,
      calls: true,
      body: (context, svq, elem) => {
        const queue = queueOf(svq);
        const handler = CONTROL_HANDLERS[queue.mode];
        return handler(context, deviceOf(svq), queue, elem);
      },
    }),
    atomic({
      prototype: `void vhost_vdpa_net_handle_ctrl(${SVQ}, ${ELEM}, u32 len)`,
      body: (context, svq, elem, len) => handleCtrl(context, deviceOf(svq), elem, len),
    }),
  ];
}
