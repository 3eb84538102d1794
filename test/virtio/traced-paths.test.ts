/**
 * Every function of driver, virtqueues and stack carries fentry and fexit programs and an ftrace_ops while traffic
 * flows, and nothing that traffic shows is different then.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadNothing } from '../../src/lab/museum/programs.js';
import { buildFrame, ipv4Header, type CsumFrame } from '../../src/lab/csum/frames.js';
import { parseIpv4 } from '../../src/net/address.js';
import { netStackFunctions } from '../../src/stack/functions.js';
import { stackFunctions } from '../../src/stack/redirect-targets.js';
import { VethDevice } from '../../src/stack/veth.js';
import { XdpSocket } from '../../src/stack/xsk-socket.js';
import { virtioNetFunctions } from '../../src/virtio/driver/functions.js';
import { virtqueueOf } from '../../src/virtio/driver/queue-reset.js';
import type { VirtioNet, VirtioNetOptions } from '../../src/virtio/virtio-net.js';
import { Rig } from '../stack/support.js';
import { VERDICT, makeFrame } from './helpers/programs.js';

/** By path; every one has to be called. */
const PATHS = {
  receive: [
    'skb_recv_done virtnet_poll virtnet_receive virtnet_receive_packets receive_buf receive_mergeable',
    'receive_small receive_big page_to_skb virtnet_receive_done napi_complete_done',
    'virtnet_xsk_pool_setup virtnet_add_recvbuf_xsk virtnet_receive_xsk_bufs virtnet_receive_xsk_buf',
    'try_fill_recv add_recvbuf_mergeable add_recvbuf_small add_recvbuf_big virtnet_xdp_rx_hash',
  ],
  xdp: [
    'virtnet_xdp_set virtnet_xdp_handler virtnet_xdp_xmit xdp_linearize_page xdp_do_redirect xdp_do_flush',
    'bpf_warn_invalid_xdp_action dev_map_enqueue dev_map_enqueue_multi dev_xdp_enqueue bq_xmit_all',
    '__dev_flush dev_map_bpf_prog_run veth_xdp_xmit cpu_map_enqueue __cpu_map_flush cpu_map_bpf_prog_run',
    'cpu_map_kthread_run __xdp_build_skb_from_frame netif_receive_skb_list',
    '__xsk_map_redirect xsk_rcv __xsk_map_flush xsk_generic_xmit',
  ],
  control: [
    'virtnet_send_command_reply virtnet_set_rx_mode virtnet_set_guest_offloads virtnet_clear_guest_offloads',
    'virtnet_restore_guest_offloads virtnet_set_queues _virtnet_set_queues virtnet_set_mac_address',
    'virtnet_vlan_rx_add_vid virtnet_vlan_rx_kill_vid virtnet_set_features __netdev_update_features',
    'virtnet_send_command dev_disable_gro_hw virtnet_set_channels virtnet_set_rxfh virtnet_commit_rss_command',
    'virtnet_ack_link_announce virtnet_send_tx_notf_coal_cmds virtnet_send_rx_notf_coal_cmds',
    'virtnet_send_ctrl_coal_vq_cmd virtnet_get_vq_coal',
  ],
  stack: [
    'napi_gro_receive dev_gro_receive netif_receive_skb eth_type_trans ip_rcv ip_rcv_finish ip_local_deliver',
    'udp_rcv udp_queue_rcv_skb udp_recvmsg tcp_v4_rcv ipv6_rcv ip6_rcv_finish udpv6_rcv kfree_skb_reason',
    'ip_forward ip_output neigh_resolve_output dev_queue_xmit validate_xmit_skb skb_checksum_help',
    'dev_hard_start_xmit start_xmit free_old_xmit skb_xmit_done virtnet_poll_tx skb_gso_segment tunnel4_rcv ip_local_out',
    'ip6_input ip6_forward ip6_output ip6_local_out tcp_v6_rcv',
  ],
  generic: [
    'do_xdp_generic bpf_prog_run_generic_xdp xdp_do_generic_redirect dev_map_generic_redirect',
    'dev_map_redirect_multi skb_clone generic_xdp_tx veth_xmit xsk_generic_rcv cpu_map_generic_redirect',
  ],
  virtqueues: [
    'virtqueue_add_inbuf_ctx virtqueue_add_inbuf virtqueue_add_outbuf virtqueue_add_sgs virtqueue_get_buf',
    'virtqueue_get_buf_ctx virtqueue_kick_prepare virtqueue_notify virtqueue_disable_cb',
    'virtqueue_enable_cb_prepare virtqueue_poll virtqueue_is_broken virtqueue_kick virtqueue_enable_cb',
    'virtqueue_enable_cb_delayed virtqueue_get_vring_size virtqueue_detach_unused_buf',
  ],
} as const;
const FUNCTIONS = Object.values(PATHS).flatMap((lines) => lines.flatMap((line) => line.split(' ')));

const PEER = Uint8Array.of(0x52, 0x54, 0, 0, 0, 1);
const FEATURES = ['CSUM', 'GUEST_CSUM', 'CTRL_VQ', 'CTRL_GUEST_OFFLOADS', 'GUEST_TSO4'] as const;
const FILTERS = ['CTRL_RX', 'CTRL_VLAN', 'CTRL_MAC_ADDR'] as const;
const SETTINGS = ['GUEST_ANNOUNCE', 'NOTF_COAL', 'VQ_NOTF_COAL', 'RSS', 'HASH_REPORT'] as const;
/** In each mode of receive buffers; rings and commands as they may be, too. */
const NATIVE = [
  { rx: 'small', ring: 'packed' },
  { rx: 'mergeable' },
  // a big buffer takes 19 descriptors
  { rx: 'big', queueSize: 64, version: '6.1' },
] as const;

let rig: Rig;
/** With a network behind it; the others are without. */
let net: VirtioNet;
let veth: VethDevice;

beforeAll(async () => {
  rig = await Rig.boot({ network: true });
  const { network } = rig;
  net = rig.driver.probe({ network, queueSize: 16, features: [...FEATURES, ...FILTERS] });
  veth = new VethDevice(rig.stack, { name: 'eth1', ifindex: 3 });
  for (const address of ['10.0.0.2', '172.16.0.2', 'fd00::2']) network.addAddress(address);
  const dev = rig.kernel.memory.ram.virtToPhys(net.dev);
  for (const to of ['10.0.0.0/16', 'fd00::/8']) network.addRoute({ to, dev, neighbour: PEER });
  network.bindUdp(2000);
  network.listenTcp(80);
  network.openTunnel();
});
afterAll(() => {
  veth.close();
  net.close();
  rig.close();
});

const DESTINATIONS = [
  ['udp4', '10.0.0.2'],
  ['tcp4', '10.0.0.2'],
  ['udp6', 'fd00::2'],
  ['tcp6', 'fd00::2'],
  ['udp4', '10.0.9.2'],
  ['udp6', 'fd09::2'],
] as const;
const PACKETS = DESTINATIONS.flatMap(([l4, destination]) =>
  (['P', 'V', 'Ubad'] as const).map((kind) => buildFrame({ l4, kind, destination, payload: 20 })),
);

/** An IPIP packet, and a TCP packet to be segmented on its way through the host. */
function oddPackets(): readonly CsumFrame[] {
  const inner = buildFrame({ l4: 'udp4', kind: 'U', destination: '10.0.0.2', payload: 20 }).frame;
  const [from, to] = [parseIpv4('172.16.0.1'), parseIpv4('172.16.0.2')];
  const outer = ipv4Header(from, to, 4, inner.length - 14);
  const tunnelled = Uint8Array.from([...inner.subarray(0, 14), ...outer, ...inner.subarray(14)]);
  const large = buildFrame({ l4: 'tcp4', kind: 'P', destination: '10.0.9.2', payload: 400 });
  const header = { ...large.header, gso_type: 1, gso_size: 100, hdr_len: 54 };
  return [
    { frame: tunnelled, header: {} },
    { frame: large.frame, header },
  ];
}

function changes(device: VirtioNet, before: Readonly<Record<string, number>>): unknown {
  const after = Object.entries(device.counters());
  return after.map(([name, value]) => [name, value - (before[name] ?? 0)]);
}

/** A SYN-ACK up to its own sequence number, which is another each time. */
function withoutNumber(frame: Uint8Array): Uint8Array {
  const tcp = frame[12] === 0x86 ? 54 : 34;
  return frame[tcp + 13] === 0x12 ? frame.subarray(0, tcp + 4) : frame;
}

/** Packets to sockets and through the host. */
function stackTraffic(): unknown {
  net.setTxChecksum(false);
  const before = { ...net.counters() };
  rig.network.expireRequests();
  for (const { frame, header } of [...PACKETS, ...oddPackets()]) {
    net.receive(frame, { header });
    net.poll();
  }
  const sent = net.transmitted().map(({ header, frame }) => [header, withoutNumber(frame)]);
  return [rig.network.received(), sent, changes(net, before)];
}

/** Each verdict of generic XDP, and redirects of skbs. */
function genericTraffic(socket: XdpSocket): unknown {
  const maps = [
    [rig.map('DEVMAP', { 0: 3 }), 0],
    [rig.map('DEVMAP', { 0: 3, 1: 2 }), 8],
    [rig.map('XSKMAP', { 0: socket.descriptor }), 0],
    [rig.map('CPUMAP', { 0: 8 }), 0],
  ] as const;
  const runners = maps.map(([map, flags]) => rig.toMap(map, 0, flags));
  for (const runner of runners) {
    net.attachGenericXdp(runner);
    net.receive(makeFrame(90));
    net.poll();
  }
  net.attachGenericXdp(undefined);
  for (const [map] of maps) map.free();
  return [veth.received(), net.transmitted(), socket.receive()];
}

/** Verdicts and redirects of native XDP, in each mode of receive buffers. */
function nativeTraffic(options: VirtioNetOptions): unknown {
  const device = rig.driver.probe({ ifindex: 5, queueSize: 16, ...options });
  const prog = rig.stack.programs.add({ attach: 'devmap', run: () => VERDICT.PASS });
  const socket = new XdpSocket(rig.stack);
  socket.bind(rig.kernel.memory.ram.virtToPhys(device.dev), 0);
  socket.fill();
  const maps = [
    rig.map('DEVMAP', { 0: [3, rig.stack.programs.idOf(prog)] }),
    rig.map('CPUMAP', { 0: 8 }),
    rig.map('XSKMAP', { 0: socket.descriptor }),
  ];
  const broadcast = rig.map('DEVMAP', { 0: 3, 1: 5 });
  const verdicts = [VERDICT.PASS, VERDICT.DROP, VERDICT.TX, VERDICT.ABORTED, 7];
  const runners = [
    ...verdicts.map((verdict) => ({ run: () => verdict })),
    ...maps.map((map) => rig.toMap(map)),
    rig.toMap(broadcast, 0, 8),
    rig.toDevice(3),
  ];
  for (const runner of runners) {
    device.attachXdp(runner);
    for (let i = 0; i < 4; i++) device.receive(makeFrame(90 + i));
    device.poll();
  }
  socket.send(makeFrame(70));
  socket.sendto();
  device.attachXdp(undefined);
  const shown = [
    device.delivered(),
    device.transmitted(),
    device.exceptions(),
    device.counters(),
    veth.received(),
    socket.receive(),
  ];
  for (const map of [...maps, broadcast]) map.free();
  socket.close();
  rig.stack.programs.remove(prog);
  device.close();
  return shown;
}

/** A receive queue with the chunks of a socket. */
function chunkTraffic(): unknown {
  const device = rig.driver.probe({ ifindex: 7, queueSize: 16, features: ['RING_RESET'] });
  const socket = new XdpSocket(rig.stack);
  socket.fill();
  socket.bind(rig.kernel.memory.ram.virtToPhys(device.dev), 0, { zeroCopy: true });
  const map = rig.map('XSKMAP', { 0: socket.descriptor });
  for (const runner of [undefined, rig.toMap(map), { run: () => VERDICT.TX }]) {
    device.attachXdp(runner);
    device.receive(makeFrame(90));
    device.poll();
  }
  device.attachXdp(undefined);
  const shown = [device.delivered(), socket.receive(), device.counters()];
  map.free();
  socket.close();
  device.close();
  return shown;
}

/** What a user may set. */
function controlTraffic(): unknown {
  net.attachXdp({ run: () => VERDICT.PASS });
  net.attachXdp(undefined);
  net.setFeature('rx-gro-hw', false);
  net.setFeature('rx-gro-hw', true);
  net.setMac(Uint8Array.of(0x52, 0x54, 0, 0, 0, 2));
  net.setVlan(7, true);
  net.setVlan(7, false);
  net.setRxMode({});
  return [net.controlLog(), settings()];
}

/** Queue pairs, hashing, coalescing and an announcement, on a device that has all of it. */
function settings(): unknown {
  const { kernel } = rig;
  const { ram } = kernel.memory;
  const features = ['CTRL_VQ', 'MQ', ...SETTINGS] as const;
  const pairs = { cpus: 2, queuePairs: 2, maxQueuePairs: 2 };
  const device = rig.driver.probe({ ifindex: 6, queueSize: 16, features, ...pairs });
  const vi = ram.virtToPhys(device.vi);
  device.setQueuePairs(1);
  device.setRss({ table: device.rss()?.table.map(() => 0) ?? [] });
  device.device.requestAnnounce();
  kernel.invoke('virtnet_ack_link_announce', vi);
  const scratch = kernel.physical.alloc(16);
  const results = [
    kernel.invoke('virtnet_send_tx_notf_coal_cmds', vi, 10, 20),
    kernel.invoke('virtnet_send_rx_notf_coal_cmds', vi, 30, 40),
    kernel.invoke('virtnet_send_ctrl_coal_vq_cmd', vi, 0, 50, 60),
    kernel.invoke('virtnet_get_vq_coal', vi, 0, scratch),
    ram.u32(scratch),
  ];
  device.setFeature('rx-hashing', true);
  device.attachXdp({
    run: (_kernel, xdp) => {
      results.push(kernel.invoke('virtnet_xdp_rx_hash', xdp, scratch, scratch + 8));
      return VERDICT.DROP;
    },
  });
  device.receive(makeFrame(90));
  device.poll();
  device.attachXdp(undefined);
  // what other drivers call of a virtqueue
  const vq = virtqueueOf(kernel, vi, 1);
  results.push(
    kernel.invoke('virtqueue_is_broken', vq),
    kernel.invoke('virtqueue_kick', vq),
    kernel.invoke('virtqueue_enable_cb', vq),
    kernel.invoke('virtqueue_enable_cb_delayed', vq),
    kernel.invoke('virtqueue_get_vring_size', vq),
    kernel.invoke('virtqueue_detach_unused_buf', vq),
  );
  kernel.physical.free(scratch);
  const shown = [results, device.controlLog(), device.counters()];
  device.close();
  return shown;
}

function traffic(socket: XdpSocket): unknown[] {
  const native = [...NATIVE.map(nativeTraffic), chunkTraffic()];
  return [stackTraffic(), genericTraffic(socket), ...native, controlTraffic()];
}

test('no function is left out', () => {
  const { stack } = rig;
  const host = {} as never;
  const all = [...virtioNetFunctions(host), ...netStackFunctions(host), ...stackFunctions(stack)];
  expect(all.map(({ name }) => name).sort()).toEqual(FUNCTIONS.toSorted());
});

test('what traffic shows is the same when all functions on its way are traced', () => {
  const { kernel, stack } = rig;
  const socket = new XdpSocket(stack);
  socket.bind(kernel.memory.ram.virtToPhys(net.dev), 0);
  socket.fill();
  traffic(socket);
  const untraced = traffic(socket);
  kernel.bpf.statsEnabled = true;
  const programs = FUNCTIONS.map((name) => {
    const [entry, exit] = [loadNothing(kernel, `in_${name}`), loadNothing(kernel, `out_${name}`)];
    kernel.bpf.attach(entry, 'fentry', name);
    kernel.bpf.attach(exit, 'fexit', name);
    return { name, entry, exit };
  });
  kernel.tracing.start(FUNCTIONS);
  const traced = traffic(socket);
  kernel.tracing.stop();
  const calls = new Map<string, number>();
  for (const line of kernel.tracing.lines()) {
    const name = line.split(' ')[0] ?? '';
    calls.set(name, (calls.get(name) ?? 0) + 1);
  }
  socket.close();
  expect(traced).toEqual(untraced);
  const seen = programs.map(({ name, entry, exit }) => [name, entry.stats.runs, exit.stats.runs]);
  expect(seen).toEqual(
    FUNCTIONS.map((name) => [name, BigInt(calls.get(name) ?? 0), BigInt(calls.get(name) ?? 0)]),
  );
  expect(FUNCTIONS.filter((name) => !calls.has(name))).toEqual([]);
});
