/** Every reason for falling back to TCP: who gives it, what goes over the wire, what each end says afterwards. */
import { afterAll, expect, it } from 'vitest';
import {
  encodeAcceptConfirm,
  encodeDecline,
  encodeProposal,
  type AcceptConfirm,
  type Proposal,
} from '../../src/smc/clc/messages.js';
import { blankPadded } from '../../src/smc/clc/values.js';
import { decodeAcceptConfirm } from '../../src/smc/clc/parse.js';
import { SMC_CLC_DECL } from '../../src/smc/constants.js';
import { ROCE_REFUSALS, type RoceDevice, type RoceRefusal } from '../../src/smc/device/devices.js';
import { DECLINE_REASONS } from '../../src/smc/reasons.js';
import type { Smc, SmcOptions } from '../../src/smc/smc.js';
import { bootSmc, connectPair, type SmcMachine } from './pair.js';
import { EXT, GID, PROPOSAL, connectTo, declineCode, propose } from './peers.js';

type Name = keyof typeof SMC_CLC_DECL;
type Options = SmcOptions & { readonly ueid?: false };

const shown = (name: Name): string => SMC_CLC_DECL[name].toString(16).padStart(8, '0');

const proven = new Set<Name>();
afterAll(() => {
  const open = DECLINE_REASONS.filter(({ name, by }) => by !== 'nobody' && !proven.has(name));
  expect(open.map(({ name }) => name)).toEqual([]);
});

/** Rows with the same options share a kernel. */
const machines = new Map<string, SmcMachine>();
afterAll(() => {
  for (const { kernel } of machines.values()) kernel.close();
});
async function boot(options: Options): Promise<Smc> {
  const key = JSON.stringify(options, (_name, each: unknown) => each ?? null);
  const machine = machines.get(key) ?? (await bootSmc(options, { ram: 24 << 20 }));
  machines.set(key, machine);
  return machine.smc;
}

const NO_BYTES = new Uint8Array(0);
const ROCE: RoceDevice = {
  name: 'rxe0',
  pnetid: 'NET1',
  gid: new Uint8Array(16),
  mac: new Uint8Array(6),
  systemId: new Uint8Array(8),
};
const { v2: _v2, ...NOTHING } = { ...PROPOSAL, typeV2: 2 };
const V1: Proposal = {
  ...NOTHING,
  version: 1,
  typeV1: 1,
  prefix: { subnet: 0x7f000000, length: 8, ipv6: [] },
};
const { smcd: _smcd, ...SMCR_V2 } = { ...PROPOSAL.v2, maxConns: 255, maxLinks: 2 };
const R_V2: Proposal = { ...PROPOSAL, typeV2: 0, v2: SMCR_V2 };

/** A proposal that the loopback device of this kernel fits. */
function fitting(smc: Smc): Proposal {
  const { gid, gidExt } = smc.device('loopback');
  const gids = [gid, gidExt].map((each) => ({ gid: each, chid: 0xffff }));
  return { ...PROPOSAL, v2: { ...PROPOSAL.v2, smcd: { ...PROPOSAL.v2.smcd, gids } } };
}

function without(smc: Smc, missing: 'eids' | 'smcd' | 'extension'): Uint8Array {
  const proposal = fitting(smc);
  const eids = missing === 'eids' ? [] : (proposal.v2?.eids ?? []);
  const bytes = encodeProposal({ ...proposal, v2: { ...PROPOSAL.v2, ...proposal.v2, eids } });
  // smcd_v2_ext_offset
  if (missing === 'smcd') bytes[87] = 0;
  return bytes;
}

/** Leaves no room for a buffer, and gives it back. */
function exhaust({ kernel }: Smc, block = 16384): () => void {
  const taken: number[] = [];
  try {
    for (;;) taken.push(kernel.physical.alloc(block));
  } catch {
    return () => taken.forEach((each) => kernel.physical.free(each));
  }
}

interface ServerRow {
  readonly reason: Name;
  readonly options?: Options;
  readonly proposal: (smc: Smc) => Uint8Array;
  readonly confirm?: (accept: Uint8Array) => Uint8Array;
  readonly version?: 1 | 2;
}

const encode =
  (proposal: Proposal): (() => Uint8Array) =>
  () =>
    encodeProposal(proposal);

const SERVER: readonly ServerRow[] = [
  { reason: 'PEERNOSMC', proposal: encode(NOTHING) },
  { reason: 'IPSEC', options: { netdev: { ipsec: true } }, proposal: encode(PROPOSAL) },
  { reason: 'IPSEC', options: { netdev: { ipsec: true } }, proposal: encode(V1), version: 1 },
  { reason: 'NOSMCDEV', proposal: encode({ ...V1, typeV1: 0 }), version: 1 },
  { reason: 'NOSMCDDEV', proposal: encode(V1), version: 1 },
  {
    reason: 'NOSMCDDEV',
    options: { ueid: false },
    proposal: (smc) => encodeProposal(fitting(smc)),
  },
  { reason: 'NOSMCRDEV', proposal: encode(R_V2) },
  // without a user EID in common nobody looks for an InfiniBand device
  { reason: 'NOSMCDEV', options: { ueid: false }, proposal: encode(R_V2) },
  { reason: 'NOISM2SUPP', options: { loopback: 'none' }, proposal: encode(PROPOSAL) },
  { reason: 'NOV2DEXT', proposal: (smc) => without(smc, 'smcd') },
  { reason: 'NOUEID', proposal: (smc) => without(smc, 'eids') },
  { reason: 'NOSMCD2DEV', proposal: encode(PROPOSAL) },
  { reason: 'MAXCONNERR', proposal: encode({ ...R_V2, v2: { ...SMCR_V2, maxConns: 15 } }) },
  { reason: 'MAXLINKERR', proposal: encode({ ...R_V2, v2: { ...SMCR_V2, maxLinks: 0 } }) },
  {
    reason: 'RELEASEERR',
    proposal: (smc) => encodeProposal(fitting(smc)),
    confirm: (received) => {
      const { v2, ...rest } = decodeAcceptConfirm(received);
      const contact = { release: 0, hostname: 'x', featureMask: 0 };
      return encodeAcceptConfirm({
        ...rest,
        type: 3,
        v2: { chid: 0xffff, eid: NO_BYTES, gidExt: 0n, ...v2, firstContact: contact },
      });
    },
  },
  {
    reason: 'PEERDECL',
    proposal: (smc) => encodeProposal(fitting(smc)),
    confirm: () =>
      encodeDecline({
        version: 2,
        peerId: new Uint8Array(8),
        diagnosis: SMC_CLC_DECL.MEM,
        outOfSync: false,
      }),
  },
  {
    reason: 'DIFFPREFIX',
    options: { loopback: 'rfc' },
    proposal: encode({ ...V1, prefix: { subnet: 0x0a000000, length: 8, ipv6: [] } }),
    version: 1,
  },
  {
    reason: 'GETVLANERR',
    options: { loopback: 'rfc', netdev: { vlanFails: true } },
    proposal: encode(V1),
    version: 1,
  },
  { reason: 'MAX_DMB', options: { maxDmbs: 0 }, proposal: (smc) => encodeProposal(fitting(smc)) },
];

async function serverDeclines(smc: Smc, row: ServerRow): Promise<void> {
  const { reason, version = 2 } = row;
  const reply = await propose(smc, row.proposal(smc), row.confirm);
  const isEchoed = reason === 'PEERDECL';
  if (isEchoed) expect(reply.bytes).toEqual(NO_BYTES);
  else {
    expect([declineCode(reply), reply.bytes.length]).toEqual([
      shown(reason),
      version === 1 ? 28 : 44,
    ]);
  }
  const { server } = reply;
  expect([
    server?.state,
    server?.isFallback,
    server?.fallbackReason,
    server?.peerDiagnosis,
  ]).toEqual([1, true, SMC_CLC_DECL[reason], isEchoed ? SMC_CLC_DECL.MEM : 0]);
  server?.closeNow();
  smc.advance(600_000);
  if (smc.devices.list.length > 0) expect(smc.dmbCount(smc.device('loopback'))).toBe(0);
  proven.add(reason);
}

it.each(SERVER)('server: $reason', async (row) => {
  await serverDeclines(await boot(row.options ?? {}), row);
});

it('server: what the connection over an InfiniBand device ends with', async () => {
  const device = { ...ROCE, refusal: ROCE_REFUSALS[0] as RoceRefusal };
  const { kernel, smc } = await bootSmc({ roce: [device] });
  for (const reason of ROCE_REFUSALS) {
    device.refusal = reason;
    await serverDeclines(smc, { reason, proposal: encode(R_V2) });
  }
  kernel.close();
});

it('server: MEM', async () => {
  const { kernel, smc } = await bootSmc({}, { ram: 24 << 20 });
  const proposal = encodeProposal(fitting(smc));
  const release = exhaust(smc);
  const reply = await propose(smc, proposal);
  expect(declineCode(reply)).toBe(shown('MEM'));
  expect(reply.server?.fallbackReason).toBe(SMC_CLC_DECL.MEM);
  reply.server?.closeNow();
  release();
  kernel.close();
});

const ACCEPT: AcceptConfirm = {
  type: 2,
  version: 2,
  gid: GID,
  token: 5n,
  dmbeIdx: 0,
  dmbeSize: 0,
  linkId: 0x100,
  firstContact: true,
  v2: {
    chid: 0xffff,
    eid: blankPadded('SMC-LAB'),
    gidExt: EXT,
    firstContact: { release: 1, hostname: 'x', featureMask: 1 },
  },
};

function accept(
  changes: Partial<AcceptConfirm>,
  v2: Partial<AcceptConfirm['v2']> = {},
): Uint8Array {
  return encodeAcceptConfirm({
    ...ACCEPT,
    ...changes,
    v2: { chid: 0, eid: NO_BYTES, gidExt: 0n, ...ACCEPT.v2, ...v2 },
  });
}

/** Accept of SMC-R: 160 bytes of version 2 with first contact. */
function smcrAccept(): Uint8Array {
  const bytes = new Uint8Array(160);
  bytes.set([0xe2, 0xd4, 0xc3, 0xd9, 2, 0, 160, 0x28]);
  bytes.set([0xe2, 0xd4, 0xc3, 0xd9], 156);
  return bytes;
}

interface ClientRow {
  readonly reason: Name;
  readonly options?: Options;
  /** Nothing: the client falls back before it proposes. */
  readonly answer?: Uint8Array;
  readonly version?: 1 | 2;
}

const later = { firstContact: { release: 2, hostname: 'x', featureMask: 1 } };
const CLIENT: readonly ClientRow[] = [
  { reason: 'MEM', answer: accept({}) },
  { reason: 'IPSEC', options: { netdev: { ipsec: true } } },
  { reason: 'NOSMCDEV', options: { loopback: 'none' }, version: 1 },
  // an InfiniBand device needs a user EID for version 2 and a PNETID for version 1
  { reason: 'NOSMCDEV', options: { loopback: 'none', roce: [ROCE], ueid: false }, version: 1 },
  {
    reason: 'CNFERR',
    options: { loopback: 'rfc', netdev: { prefix: undefined } },
    version: 1,
  },
  { reason: 'MODEUNSUPP', answer: smcrAccept() },
  { reason: 'MODEUNSUPP', options: { loopback: 'none', roce: [ROCE] }, answer: accept({}) },
  { reason: 'VERSMISMAT', answer: accept({}, later) },
  { reason: 'VERSMISMAT', options: { release: 0 }, answer: accept({}) },
  { reason: 'MAX_DMB', options: { maxDmbs: 0 }, answer: accept({}) },
  { reason: 'ISMVLANERR', options: { netdev: { vlan: 7 } }, answer: accept({}) },
  {
    reason: 'SYNCERR',
    answer: accept({ firstContact: false }, { firstContact: undefined } as never),
  },
];

function clientDeclines(smc: Smc, { reason, options = {}, answer, version = 2 }: ClientRow): void {
  const { client, peer } = connectTo(smc);
  if (answer) {
    expect(peer.read(300)[4]).toBe(1);
    peer.send(answer);
    smc.run();
  }
  const decline = peer.read(300);
  expect([client.state, client.isFallback, client.fallbackReason]).toEqual([
    1,
    true,
    SMC_CLC_DECL[reason],
  ]);
  expect([declineCode({ bytes: decline, server: undefined }), decline.length]).toEqual([
    shown(reason),
    version === 1 ? 28 : 44,
  ]);
  // the peer is told of a group that is out of step
  expect((decline[7] ?? 0) & 8).toBe(reason === 'SYNCERR' ? 8 : 0);
  // bytes go over TCP now
  expect([client.sendNow(Uint8Array.of(7)), ...peer.read(10)]).toEqual([1, 7]);
  client.closeNow();
  smc.tcp.release(peer);
  smc.advance(600_000);
  if (options.loopback === undefined) expect(smc.dmbCount(smc.device('loopback'))).toBe(0);
  proven.add(reason);
}

it.each(CLIENT)('client: $reason', async (row) => {
  clientDeclines(await boot(row.options ?? {}), row);
});

it('client: what the connection over an InfiniBand device ends with', async () => {
  const device = { ...ROCE, refusal: ROCE_REFUSALS[0] as RoceRefusal };
  const options = { loopback: 'none', roce: [device] } as const;
  const { kernel, smc } = await bootSmc(options);
  for (const reason of ROCE_REFUSALS) {
    device.refusal = reason;
    clientDeclines(smc, { reason, options, answer: smcrAccept() });
  }
  kernel.close();
});

it('without the SMC option, or with TCP_FASTOPEN: no message at all', async () => {
  const { kernel, smc } = await bootSmc();
  const listener = smc.socket();
  const to = { address: '127.0.0.1', port: 9001 };
  listener.listen(to);
  const reasons: number[] = [];
  for (const fastopen of [true, false]) {
    const client = smc.socket();
    if (!fastopen) smc.tcp.synackOption = () => false;
    await client.connect(to, { fastopen });
    const server = await listener.accept();
    reasons.push(client.fallbackReason, server.fallbackReason);
    expect(client.sendNow(new Uint8Array(3))).toBe(3);
    expect(server.recvNow(new Uint8Array(3))).toBe(3);
  }
  const { OPTUNSUPP, PEERNOSMC } = SMC_CLC_DECL;
  expect(reasons).toEqual([OPTUNSUPP, PEERNOSMC, PEERNOSMC, PEERNOSMC]);
  proven.add('OPTUNSUPP');
  proven.add('PEERNOSMC');
  expect(smc.messages).toEqual([]);
  kernel.close();
});

it('a peer that declines with any code: PEERDECL, its code kept, nothing echoed', async () => {
  const smc = await boot({});
  for (const { code } of DECLINE_REASONS) {
    for (const version of [1, 2]) {
      const { client, peer } = connectTo(smc);
      peer.read(300);
      const outOfSync = code === SMC_CLC_DECL.SYNCERR;
      peer.send(encodeDecline({ version, peerId: new Uint8Array(8), diagnosis: code, outOfSync }));
      smc.run();
      expect([client.state, client.fallbackReason, client.peerDiagnosis, peer.unread]).toEqual([
        1,
        SMC_CLC_DECL.PEERDECL,
        code,
        0,
      ]);
      client.closeNow();
      smc.tcp.release(peer);
    }
  }
});

it('a server that is told of SYNCERR gives up the group', async () => {
  const { kernel, smc } = await bootSmc();
  const pair = await connectPair(smc);
  // the second connection reuses the group; its client does not know it
  const { SYNCERR, PEERDECL } = SMC_CLC_DECL;
  const reply = await propose(smc, encodeProposal(fitting(smc)), () =>
    encodeDecline({ version: 2, peerId: new Uint8Array(8), diagnosis: SYNCERR, outOfSync: true }),
  );
  expect([reply.server?.fallbackReason, reply.server?.peerDiagnosis]).toEqual([PEERDECL, SYNCERR]);
  // the client's group is its own, and is told by the abort
  expect([pair.server.takeError(), pair.client.takeError()]).toEqual([103, 104]);
  kernel.close();
});

it('what nobody returns is said to be so', () => {
  const nobody = DECLINE_REASONS.filter(({ by }) => by === 'nobody').map(({ name }) => name);
  expect(nobody).toEqual(['NOV2EXT', 'NOSEID']);
  const roce = DECLINE_REASONS.filter(({ by }) => by === 'roce').map(({ name }) => name);
  expect(roce.filter((name) => !(ROCE_REFUSALS as readonly string[]).includes(name))).toEqual([]);
});
