/** The kernels that records of `vectors/smc` are replayed on: which devices they have. */
import { hexToBytes } from '../../../common/bytes.js';
import type { Smc, SmcOptions } from '../../../smc/smc.js';
import type { RoceDevice } from '../../../smc/device/devices.js';
import type { TcpSocket } from '../../../smc/socket/tcp.js';

/** The user EID of all recorded kernels. */
export const UEID = 'SMCTEST-UEID-1';
const LOCALHOST = 0x7f000001;
const PROPOSAL_PORT = 21500;

/** The InfiniBand device of the runs that proposed SMC-R: its first link was never confirmed. */
const ROCE: RoceDevice = {
  name: 'rxe1',
  pnetid: '',
  gid: hexToBytes('00000000000000000000ffff0a080001'),
  mac: hexToBytes('7ab0d6d4c080'),
  systemId: hexToBytes('d3b87ab0d6d4c080'),
  refusal: 'TIMEOUT_CL',
};

/** The prefix that the crafted proposals of version 1 name. */
const netdev = { prefix: { subnet: 0x0a080000, length: 24, ipv6: [] } };

export const SETTINGS = {
  none: { loopback: 'none', netdev },
  /** 6.1 knows no release 1. */
  none61: { loopback: 'none', netdev, release: 0 },
  /** Counted since boot: for one record each. */
  counted: { loopback: 'none', netdev },
  counted61: { loopback: 'none', netdev, release: 0 },
  roce: { loopback: 'none', roce: [ROCE], netdev },
  whole: { nocopy: false, wholeRings: true },
  /** net.core.rmem_max and wmem_max were raised. */
  raised: { nocopy: false, wholeRings: true, memMax: 1 << 23 },
} as const satisfies Record<string, SmcOptions>;

export type Setting = keyof typeof SETTINGS;

/** The one kernel of a setting. */
export type Machine = (setting: Setting) => Promise<Smc>;

/** A peer of TCP that a client connects to; its SYN-ACK has the SMC option or not. */
export function rawServer(
  smc: Smc,
  port: number,
  hasOption: boolean,
): { readonly connected: () => TcpSocket | undefined; close(): void } {
  const listener = smc.tcp.create();
  let peer: TcpSocket | undefined;
  const { synackOption } = smc.tcp;
  smc.tcp.synackOption = () => hasOption;
  smc.tcp.bind(listener, { address: LOCALHOST, port });
  smc.tcp.listen(listener, (socket) => (peer = socket));
  return {
    connected: () => peer,
    close: () => {
      smc.tcp.synackOption = synackOption;
      if (peer) smc.tcp.release(peer);
      smc.tcp.release(listener);
      smc.run();
    },
  };
}

/** What a client of this kernel proposes. */
export function firstProposal(smc: Smc): Uint8Array {
  smc.eids.flush();
  smc.eids.add(UEID);
  const server = rawServer(smc, PROPOSAL_PORT, true);
  const client = smc.socket();
  client.connectNow({ address: '127.0.0.1', port: PROPOSAL_PORT });
  const bytes = server.connected()?.read(1024) ?? new Uint8Array(0);
  client.closeNow();
  server.close();
  return bytes;
}
