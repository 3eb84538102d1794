/**
 * Exhibits 37 and 43: what redirects keep per CPU, kept too long.
 *
 * Reference: virtnet_poll of drivers/net/virtio_net.c, napi_complete_done of net/core/dev.c;
 * bpf_prog_run_xdp of include/net/xdp.h, bpf_redirect_info of net/core/filter.c.
 */
import { NET_DEVICE, XDP_DEV_BULK_QUEUE } from '../../stack/net-device.js';
import { VethDevice } from '../../stack/veth.js';
import { VERDICTS } from '../csum/programs.js';
import type { Exhibit } from './exhibit.js';
import { postXdpBuffers, testFrame, withNet } from './net-lab.js';

const RING = 16;
const REDIRECT = 23;
const TARGET = { name: 'eth1', ifindex: 3 } as const;
const ASK = `r1 = ${TARGET.ifindex}\nr2 = 0\ncall ${REDIRECT}`;

export const lateFlush: Exhibit = {
  number: 37,
  name: 'flush_behind_napi_complete',
  wing: 'network',
  fixedIn: '6.1.11',
  story:
    'Redirected frames wait in a queue of the CPU until the end of the poll. The poll gave up the device with ' +
    'napi_complete_done() first and flushed them after: in between another CPU may poll the same device, and what it ' +
    'receives overtakes them, or frees what they point to. Now they are flushed first.',
  run: (variant, boot) => {
    const bugs = variant === 'broken' ? (['flush after completion'] as const) : [];
    return withNet(boot, { device: { queueSize: RING, bugs } }, (lab) => {
      const { kernel, driver, net, program } = lab;
      const { ram } = kernel.memory;
      const veth = new VethDevice(driver.stack, TARGET);
      postXdpBuffers(net, RING);
      net.attachXdp(program(`${ASK}\nexit`));
      net.poll();
      let waiting = 0;
      kernel.kretprobes.register({
        name: 'completion',
        address: kernel.symbol('napi_complete_done'),
        handler: () => {
          const bulk = ram.pointer(veth.address + NET_DEVICE.offset.xdp_bulkq);
          waiting = ram.u32(bulk + XDP_DEV_BULK_QUEUE.offset.count);
        },
      });
      for (let i = 0; i < 3; i++) net.receive(testFrame(100));
      net.poll();
      return {
        lines: [
          '3 frames redirected to eth1 in one poll',
          `when napi_complete_done() has returned: ${waiting} of them in the bulk queue of CPU 0`,
          `at the end: ${veth.received().length} sent`,
        ],
        right: waiting === 0,
      };
    });
  },
};

export const staleRedirect: Exhibit = {
  number: 43,
  name: 'stale_redirect_target',
  wing: 'network',
  fixedIn: '6.1.137',
  story:
    'bpf_redirect() leaves the target in bpf_redirect_info of the CPU. A program that asked for one and then passed ' +
    'the packet left it there, and the next program that answered XDP_REDIRECT without asking got it. Now it is ' +
    'emptied before each program.',
  run: (variant, boot) => {
    const stack = { resetsRedirectInfo: variant === 'fixed' };
    return withNet(boot, { device: { queueSize: RING }, stack }, (lab) => {
      const { driver, net, program } = lab;
      const veth = new VethDevice(driver.stack, TARGET);
      postXdpBuffers(net, RING);
      driver.stack.events = [];
      for (const text of [
        `${ASK}\nr0 = ${VERDICTS.PASS}\nexit`,
        `r0 = ${VERDICTS.REDIRECT}\nexit`,
      ]) {
        net.attachXdp(program(text));
        net.receive(testFrame(100));
        net.poll();
      }
      const errors = driver.stack.events.flatMap((event) =>
        event.name === 'xdp_redirect_err' ? [`${event.name} err=${event.err}`] : [],
      );
      const sent = veth.received().length;
      return {
        lines: [
          'one program asks for eth1 and passes its packet; the next asks for nothing and says XDP_REDIRECT',
          `sent through eth1: ${sent}${errors.map((error) => `; ${error}`).join('')}`,
        ],
        right: sent === 0 && errors.length === 1,
      };
    });
  },
};
