/**
 * Functions on the paths of packets carry fentry and fexit programs and an ftrace_ops each while traffic flows, and
 * nothing that traffic shows is different then.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadNothing } from '../../src/lab/museum/programs.js';
import { buildFrame } from '../../src/lab/csum/frames.js';
import { VethDevice } from '../../src/stack/veth.js';
import { XdpSocket } from '../../src/stack/xsk-socket.js';
import type { VirtioNet } from '../../src/virtio/virtio-net.js';
import { Rig } from '../stack/support.js';
import { VERDICT, makeFrame } from './helpers/programs.js';

/** By path; every one has to be called. */
const PATHS = {
  receive: [
    'skb_recv_done virtnet_poll virtnet_receive virtnet_receive_packets receive_buf receive_mergeable',
    'receive_small receive_big page_to_skb virtnet_receive_done napi_complete_done',
    'try_fill_recv add_recvbuf_mergeable add_recvbuf_small add_recvbuf_big',
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
  ],
  stack: [
    'napi_gro_receive dev_gro_receive netif_receive_skb eth_type_trans ip_rcv ip_rcv_finish ip_local_deliver',
    'udp_rcv udp_queue_rcv_skb udp_recvmsg tcp_v4_rcv ipv6_rcv ip6_rcv_finish udpv6_rcv kfree_skb_reason',
    'ip_forward ip_output neigh_resolve_output dev_queue_xmit validate_xmit_skb skb_checksum_help',
    'dev_hard_start_xmit start_xmit',
  ],
  generic: [
    'do_xdp_generic bpf_prog_run_generic_xdp xdp_do_generic_redirect dev_map_generic_redirect',
    'dev_map_redirect_multi skb_clone generic_xdp_tx veth_xmit xsk_generic_rcv cpu_map_generic_redirect',
  ],
  virtqueues: [
    'virtqueue_add_inbuf_ctx virtqueue_add_inbuf virtqueue_add_outbuf virtqueue_add_sgs virtqueue_get_buf',
    'virtqueue_get_buf_ctx virtqueue_kick_prepare virtqueue_notify virtqueue_disable_cb',
    'virtqueue_enable_cb_prepare virtqueue_poll',
  ],
} as const;
const FUNCTIONS = Object.values(PATHS).flatMap((lines) => lines.flatMap((line) => line.split(' ')));

const PEER = Uint8Array.of(0x52, 0x54, 0, 0, 0, 1);
const FEATURES = ['CSUM', 'GUEST_CSUM', 'CTRL_VQ', 'CTRL_GUEST_OFFLOADS', 'GUEST_TSO4'] as const;
const FILTERS = ['CTRL_RX', 'CTRL_VLAN', 'CTRL_MAC_ADDR'] as const;

let rig: Rig;
/** With a network behind it; the others are without. */
let net: VirtioNet;
let veth: VethDevice;

beforeAll(async () => {
  rig = await Rig.boot({ network: true });
  const { network } = rig;
  net = rig.driver.probe({ network, queueSize: 16, features: [...FEATURES, ...FILTERS] });
  veth = new VethDevice(rig.stack, { name: 'eth1', ifindex: 3 });
  for (const address of ['10.0.0.2', 'fd00::2']) network.addAddress(address);
  const dev = rig.kernel.memory.ram.virtToPhys(net.dev);
  network.addRoute({ to: '10.0.0.0/16', dev, neighbour: PEER });
  network.bindUdp(2000);
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
  ['udp4', '10.0.9.2'],
] as const;
const PACKETS = DESTINATIONS.flatMap(([l4, destination]) =>
  (['P', 'V', 'Ubad'] as const).map((kind) => buildFrame({ l4, kind, destination, payload: 20 })),
);

function changes(device: VirtioNet, before: Readonly<Record<string, number>>): unknown {
  const after = Object.entries(device.counters());
  return after.map(([name, value]) => [name, value - (before[name] ?? 0)]);
}

/** Packets to sockets and through the host. */
function stackTraffic(): unknown {
  net.setTxChecksum(false);
  const before = { ...net.counters() };
  for (const { frame, header } of PACKETS) net.receive(frame, { header });
  net.poll();
  const sent = net.transmitted().map(({ header, frame }) => [header, frame]);
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
function nativeTraffic(rx: 'small' | 'mergeable' | 'big'): unknown {
  // a big buffer takes 19 descriptors
  const device = rig.driver.probe({ rx, ifindex: 5, queueSize: rx === 'big' ? 64 : 16 });
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
  return net.controlLog();
}

function traffic(socket: XdpSocket): unknown[] {
  return [
    stackTraffic(),
    genericTraffic(socket),
    ...(['small', 'mergeable', 'big'] as const).map(nativeTraffic),
    controlTraffic(),
  ];
}

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
