/** Peers whose bytes are ours: what a real end makes of them. */
import { bytesToHex } from '../../src/common/bytes.js';
import { blankPadded } from '../../src/smc/clc/values.js';
import type { Smc } from '../../src/smc/smc.js';
import type { SmcSocket } from '../../src/smc/socket/smc-socket.js';
import type { TcpSocket } from '../../src/smc/socket/tcp.js';
import { ADDRESS, UEID } from './pair.js';

export const GID = 0x1122334455667788n;
export const EXT = 0x99aabbccddeeff00n;
/** Section 5.2: loopback only, one UEID, no SMC-R, no SEID. */
export const PROPOSAL = {
  version: 2,
  typeV1: 2,
  typeV2: 1,
  peerId: new Uint8Array(8),
  roceGid: new Uint8Array(16),
  mac: new Uint8Array(6),
  ism: { gid: 0n, chid: 0 },
  v2: {
    eids: [blankPadded(UEID)],
    release: 1,
    seidIndicated: false,
    roceGid: new Uint8Array(16),
    maxConns: 0,
    maxLinks: 0,
    featureMask: 1,
    smcd: {
      systemEid: new Uint8Array(32),
      gids: [
        { gid: GID, chid: 0xffff },
        { gid: EXT, chid: 0xffff },
      ],
    },
  },
} as const;

const LOCALHOST = 0x7f000001;

/** What came back, and the socket that the server's application gets. */
export interface Reply {
  readonly bytes: Uint8Array;
  readonly server: SmcSocket | undefined;
}

/** Proposes to a listening socket; `confirm` answers what came back. */
export async function propose(
  smc: Smc,
  proposal: Uint8Array,
  confirm?: (accept: Uint8Array) => Uint8Array,
): Promise<Reply> {
  const listener = smc.socket();
  listener.listen({ address: ADDRESS, port: 9000 });
  const peer = smc.tcp.connectRaw({ to: { address: LOCALHOST, port: 9000 }, smcOption: true });
  if (!peer) throw new Error('refused');
  smc.run();
  peer.send(proposal);
  smc.run();
  let bytes = peer.read(300);
  if (confirm) {
    peer.send(confirm(bytes));
    smc.run();
    bytes = peer.read(300);
  }
  const server = listener.acceptNow();
  smc.tcp.release(peer);
  smc.run();
  listener.closeNow();
  return { bytes, server };
}

/** The diagnosis of a decline, as hexadecimal. */
export function declineCode({ bytes }: Reply): string {
  return bytesToHex(bytes.subarray(16, 20));
}

/** A client that connects to a peer whose bytes are ours. */
export function connectTo(smc: Smc): { readonly client: SmcSocket; readonly peer: TcpSocket } {
  const listener = smc.tcp.create();
  let peer: TcpSocket | undefined;
  const { synackOption } = smc.tcp;
  smc.tcp.synackOption = () => true;
  smc.tcp.bind(listener, { address: LOCALHOST, port: 9100 });
  smc.tcp.listen(listener, (socket) => (peer = socket));
  const client = smc.socket();
  client.connectNow({ address: ADDRESS, port: 9100 });
  smc.tcp.release(listener);
  smc.tcp.synackOption = synackOption;
  if (!peer) throw new Error('not connected');
  return { client, peer };
}
