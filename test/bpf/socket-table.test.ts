import { describe, expect, it } from 'vitest';
import { hexToBytes } from '../../src/common/bytes.js';
import { SocketTable, type SocketQuery } from '../../src/bpf/socket-table.js';
import type { Socket } from '../../src/bpf/socket.js';

const end = (address: string, port: number): { address: Uint8Array; port: number } => ({
  address: hexToBytes(address),
  port,
});

const LOCAL = end('0a000001', 80);
const ANY = end('00000000', 80);
const ANY6 = end('00'.repeat(16), 80);
const PEER = end('0a000002', 999);
const LOCAL6 = end('fd'.repeat(16), 80);
const PEER6 = end('fe'.repeat(16), 999);
const QUERY: SocketQuery = { local: LOCAL, remote: PEER, ifindex: 2 };
const QUERY6: SocketQuery = { local: LOCAL6, remote: PEER6, ifindex: 2 };

const tcp = (socket: Omit<Socket, 'protocol'>): Socket => ({ protocol: 'tcp', ...socket });
const udp = (socket: Omit<Socket, 'protocol'>): Socket => ({ protocol: 'udp', ...socket });

describe('of several sockets', () => {
  // the last one of each row is found
  it.each<[string, SocketQuery, readonly Socket[]]>([
    ['the connection', QUERY, [tcp({ local: LOCAL }), tcp({ local: LOCAL, remote: PEER })]],
    ['the one on the address', QUERY, [tcp({ local: ANY }), tcp({ local: LOCAL })]],
    ['the one on the device', QUERY, [tcp({ local: ANY }), tcp({ local: ANY, boundDevice: 2 })]],
    ['that of the family', QUERY, [tcp({ local: ANY6 }), tcp({ local: ANY })]],
    ['one of IPv6 for IPv4', QUERY, [tcp({ local: ANY, boundDevice: 1 }), tcp({ local: ANY6 })]],
    ['one of IPv6', QUERY6, [tcp({ local: ANY }), tcp({ local: ANY6 })]],
    ['a connection of IPv6', QUERY6, [tcp({ local: LOCAL6, remote: PEER6 })]],
    [
      'the connected UDP socket',
      QUERY,
      [udp({ local: LOCAL }), udp({ local: LOCAL, remote: PEER })],
    ],
    [
      'the unconnected UDP socket',
      QUERY,
      [udp({ local: LOCAL, remote: end('0a000003', 999) }), udp({ local: ANY })],
    ],
  ])('%s', (_what, query, sockets) => {
    const table = new SocketTable();
    for (const socket of sockets) table.add(socket);
    const last = sockets.at(-1);
    expect(last && table.find(last.protocol, query)).toBe(last);
  });

  it.each<[string, SocketQuery, Socket]>([
    ['another port', QUERY, tcp({ local: end('0a000001', 81) })],
    ['another address', QUERY, tcp({ local: end('0a000009', 80) })],
    ['another device', QUERY, tcp({ local: ANY, boundDevice: 1 })],
    ['another peer', QUERY, tcp({ local: LOCAL, remote: end('0a000002', 998) })],
    ['the other protocol', QUERY, udp({ local: LOCAL })],
    ['IPv6 only', QUERY, tcp({ local: ANY6, ipv6Only: true })],
    ['IPv4 for IPv6', QUERY6, tcp({ local: ANY })],
    ['a closed one', QUERY, tcp({ local: LOCAL, state: 'CLOSE' })],
    ['another namespace', QUERY, tcp({ local: LOCAL, namespace: 3 })],
  ])('none for %s', (_what, query, socket) => {
    const table = new SocketTable();
    table.add(socket);
    expect(table.find('tcp', query)).toBeUndefined();
  });

  it('none that was removed; ends of two families are refused', () => {
    const table = new SocketTable();
    const socket = tcp({ local: LOCAL });
    table.add(socket);
    table.remove(socket);
    expect(table.find('tcp', QUERY)).toBeUndefined();
    expect(() => table.add(tcp({ local: LOCAL, remote: PEER6 }))).toThrow(/different families/);
    expect(() => table.add(tcp({ local: end('0a', 1) }))).toThrow(/address of 1 bytes/);
  });
});
