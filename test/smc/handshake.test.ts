/** The handshake: exact bytes, every outcome of the table, link groups, selection. */
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { bytesToHex } from '../../src/common/bytes.js';
import { encodeAcceptConfirm, encodeDecline, encodeProposal } from '../../src/smc/clc/messages.js';
import { blankPadded } from '../../src/smc/clc/values.js';
import { describeMessage } from '../../src/smc/clc/describe.js';
import { decodeDecline, decodeProposal, messageProblem } from '../../src/smc/clc/parse.js';
import { SMC_CLC_DECL, SMC_STATE } from '../../src/smc/constants.js';
import { SELECTION_POLICIES } from '../../src/smc/device/devices.js';
import type { Smc } from '../../src/smc/smc.js';
import { listLinkGroups } from '../../src/smc/state.js';
import type { TcpSocket } from '../../src/smc/socket/tcp.js';
import { ADDRESS, UEID, bootSmc, connectPair, type SmcMachine } from './pair.js';
import { EXT, GID, PROPOSAL, connectTo, declineCode, propose } from './peers.js';

const zeros = (bytes: number): string => '00'.repeat(bytes);
/** Section 5.2: loopback only, one UEID, no SMC-R, no SEID. */
const VECTOR = [
  `e2d4c3d90100e026${zeros(32)}`,
  `${zeros(8)}0000001c${zeros(28)}`,
  `01020010000000400000000000000000000000000000000000000001${zeros(12)}`,
  bytesToHex(blankPadded(UEID)),
  zeros(48),
  '1122334455667788ffff99aabbccddeeff00ffff',
  'e2d4c3d9',
].join('');

describe('bytes', () => {
  it('of the proposal of 224 bytes', () => {
    const bytes = encodeProposal(PROPOSAL);
    expect(bytes.length).toBe(224);
    expect(bytesToHex(bytes)).toBe(VECTOR);
    expect(decodeProposal(bytes)).toEqual(PROPOSAL);
  });

  it('of accept and confirm: 48, 78, 114 and 130', () => {
    const base = {
      type: 2,
      gid: GID,
      token: 0x0102030405060708n,
      dmbeIdx: 0,
      dmbeSize: 2,
      linkId: 0x300,
    } as const;
    const v2 = { chid: 0xffff, eid: blankPadded(UEID), gidExt: EXT };
    const contact = { release: 1, hostname: '(none)', featureMask: 1 };
    const v1 = encodeAcceptConfirm({ ...base, version: 1, firstContact: false });
    expect(bytesToHex(v1)).toBe(
      `e2d4c3c402003011112233445566778801020304050607080020${'0000'}00030000${zeros(12)}e2d4c3c4`,
    );
    const later = encodeAcceptConfirm({ ...base, version: 2, firstContact: false, v2 });
    expect(bytesToHex(later)).toBe(
      `e2d4c3c402004e2111223344556677880102030405060708002000000003${'0000'}ffff` +
        `${bytesToHex(blankPadded(UEID))}99aabbccddeeff00e2d4c3c4`,
    );
    const first = { ...base, version: 2, firstContact: true } as const;
    const release1 = encodeAcceptConfirm({ ...first, v2: { ...v2, firstContact: contact } });
    expect([release1.length, release1[7]]).toEqual([130, 0x29]);
    expect(bytesToHex(release1.subarray(74, 126))).toBe(
      `00210000${bytesToHex(blankPadded('(none)'))}00000001${zeros(12)}`,
    );
    const release0 = { ...contact, release: 0 };
    const old = encodeAcceptConfirm({ ...first, v2: { ...v2, firstContact: release0 } });
    expect([old.length, bytesToHex(old.subarray(74, 78))]).toEqual([114, '00200000']);
    for (const bytes of [v1, later, release1, old]) expect(messageProblem(bytes)).toBeUndefined();
  });

  it('of declines: 28 without OS, 44 with', () => {
    const decline = { peerId: new Uint8Array(8), diagnosis: 0x03030007, outOfSync: false };
    const sync = { ...decline, diagnosis: SMC_CLC_DECL.SYNCERR, outOfSync: true };
    expect(bytesToHex(encodeDecline({ ...decline, version: 1 }))).toBe(
      `e2d4c3d904001c10${zeros(8)}0303000700000000e2d4c3d9`,
    );
    expect(bytesToHex(encodeDecline({ ...sync, version: 2 }))).toBe(
      `e2d4c3d904002c28${zeros(8)}0400000020000000${zeros(16)}e2d4c3d9`,
    );
  });

  // laxer than one would think: vectors/smc, measured on 6.12.117
  it.each<[string, number, number, boolean]>([
    ['length one less', 6, 0xdf, false],
    ['eid_cnt off by one', 80, 2, false],
    ['9 EIDs', 80, 9, false],
    ['ism_gid_cnt off by one', 81, 3, false],
    ['9 GIDs', 81, 9, false],
    ['v2_ext_offset 0', 51, 0, false],
    ['v2_ext_offset 29', 51, 29, false],
    ['iparea_offset 40 without prefix', 39, 40, false],
    ['iparea_offset 41', 39, 41, false],
    ['type 5', 4, 5, false],
    ['version 1 without its type', 7, 0x16, false],
    ['head eyecatcher', 0, 0, false],
    ['trailer', 223, 0, false],
    ['SMCD at the head', 3, 0xc4, true],
    ['SMCD at the trailer', 223, 0xc4, true],
    ['smcd_v2_ext_offset 0', 87, 0, true],
    ['smcd_v2_ext_offset 65', 87, 65, true],
    ['version 3', 7, 0x36, true],
    ['release 2', 83, 0x20, true],
  ])('%s', (_what, offset, value, isFine) => {
    const bytes = encodeProposal(PROPOSAL);
    bytes[offset] = value;
    expect(messageProblem(bytes) === undefined).toBe(isFine);
  });
});

it('whatever is in a message: malformed, or read and shown', () => {
  const messages = [
    encodeProposal(PROPOSAL),
    encodeProposal({ ...PROPOSAL, typeV1: 3, prefix: { subnet: 1, length: 8, ipv6: [] } }),
    encodeDecline({ version: 2, peerId: new Uint8Array(8), diagnosis: 1, outOfSync: false }),
  ];
  const change = fc.tuple(fc.nat(260), fc.integer({ min: 0, max: 255 }));
  let wellFormed = 0;
  fc.assert(
    fc.property(
      fc.constantFrom(...messages),
      fc.array(change, { maxLength: 4 }),
      (message, changes) => {
        const bytes = message.slice();
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        if (messageProblem(bytes) !== undefined) return;
        wellFormed++;
        if (bytes[4] === 1) decodeProposal(bytes);
        if (bytes[4] === 4) decodeDecline(bytes);
        expect(describeMessage(bytes).length).toBeGreaterThan(3);
      },
    ),
    { numRuns: 3000 },
  );
  expect(wellFormed).toBeGreaterThan(300);
  // short ones, of every length
  for (const message of messages) {
    for (let size = 0; size < message.length; size++) {
      const bytes = message.slice(0, size);
      if (size > 7) bytes.set([size >> 8, size & 0xff], 5);
      expect(messageProblem(bytes)).toBeDefined();
    }
  }
});

describe('outcomes', () => {
  it.each([true, false])('SMC-D with the same UEID, nocopy %s', async (nocopy) => {
    const { kernel, smc } = await bootSmc({ nocopy });
    const pair = await connectPair(smc);
    expect([pair.client.state, pair.server.state]).toEqual([1, 1]);
    expect([pair.client.isFallback, pair.server.isFallback]).toEqual([false, false]);
    expect(smc.messages.map(({ bytes }) => bytes.length)).toEqual([224, 130, 130]);
    const second = await connectPair(smc);
    expect(smc.messages.slice(3).map(({ bytes }) => bytes.length)).toEqual([224, 78, 78]);
    expect(smc.messages.slice(3).map(({ bytes }) => bytes[7])).toEqual([0x26, 0x21, 0x21]);
    // both ends of the second connection find the server's group first
    expect(listLinkGroups(smc).map(({ role, connections }) => [role, connections])).toEqual([
      ['server', 3],
      ['client', 1],
    ]);
    pair.close();
    second.close();
    smc.advance(600_000);
    expect([smc.dmbCount(smc.device('loopback')), listLinkGroups(smc)]).toEqual([0, []]);
    kernel.close();
  });

  it('without UEID: declined, both TCP', async () => {
    const { kernel, smc } = await bootSmc({ ueid: false });
    const pair = await connectPair(smc);
    expect(pair.client.fallbackReason).toBe(SMC_CLC_DECL.PEERDECL);
    expect(pair.client.peerDiagnosis).toBe(SMC_CLC_DECL.NOUEID);
    expect(pair.server.fallbackReason).toBe(SMC_CLC_DECL.NOUEID);
    // no decline is echoed
    expect(smc.messages.length).toBe(2);
    expect(pair.client.sendNow(Uint8Array.of(1, 2, 3))).toBe(3);
    expect([...(await pair.server.recv(10))]).toEqual([1, 2, 3]);
    pair.close();
    kernel.close();
  });

  it('gid_ext that does not follow: no device', async () => {
    const { kernel, smc } = await bootSmc();
    const gids = [{ gid: smc.device('loopback').gid, chid: 0xffff }];
    const smcd = { systemEid: new Uint8Array(32), gids };
    const reply = await propose(smc, encodeProposal({ ...PROPOSAL, v2: { ...PROPOSAL.v2, smcd } }));
    expect(declineCode(reply)).toBe('03030007');
    kernel.close();
  });

  it('both ends with the same trouble: who falls back first says so', async () => {
    const { kernel, smc } = await bootSmc({ netdev: { ipsec: true } });
    const pair = await connectPair(smc);
    const { IPSEC, PEERDECL } = SMC_CLC_DECL;
    expect([pair.client.fallbackReason, pair.server.fallbackReason]).toEqual([IPSEC, PEERDECL]);
    // nothing of the decline is left in the stream
    expect(pair.client.sendNow(Uint8Array.of(1, 2, 3))).toBe(3);
    expect([...(await pair.server.recv(100))]).toEqual([1, 2, 3]);
    pair.close();
    kernel.close();
  });

  it('one slot: the client has none, and the server is told', async () => {
    const { kernel, smc } = await bootSmc({ maxDmbs: 1 });
    const pair = await connectPair(smc);
    expect(pair.client.fallbackReason).toBe(SMC_CLC_DECL.MAX_DMB);
    expect(pair.server.fallbackReason).toBe(SMC_CLC_DECL.PEERDECL);
    expect(pair.server.peerDiagnosis).toBe(SMC_CLC_DECL.MAX_DMB);
    pair.close();
    kernel.close();
  });

  it('TCP_FASTOPEN_CONNECT and a peer without SMC', async () => {
    const { kernel, smc } = await bootSmc();
    const listener = smc.socket();
    const to = { address: ADDRESS, port: 9001 };
    listener.listen(to);
    const client = smc.socket();
    await client.connect(to, { fastopen: true });
    const server = await listener.accept();
    expect(client.fallbackReason).toBe(SMC_CLC_DECL.OPTUNSUPP);
    expect(server.fallbackReason).toBe(SMC_CLC_DECL.PEERNOSMC);
    expect(smc.messages).toEqual([]);
    await expect(client.connect(to)).rejects.toThrow('-EISCONN');
    const other = smc.socket();
    await other.connect(to);
    const peer = await listener.accept();
    await expect(other.connect(to)).rejects.toThrow('-EISCONN');
    peer.shutdownNow('wr');
    await expect(other.connect(to)).rejects.toThrow('-EINVAL');
    await expect(listener.connect(to)).rejects.toThrow('-EINVAL');
    // a handshake that goes on: nobody answers the proposal
    const silent = connectTo(smc).client;
    await expect(silent.connect(to)).rejects.toThrow('-EALREADY');
    const lost = smc.socket();
    await expect(lost.connect({ address: ADDRESS, port: 1 })).rejects.toThrow('-ECONNREFUSED');
    kernel.close();
  });
});

describe('a client whose server misbehaves', () => {
  let machine: SmcMachine | undefined;
  afterAll(() => machine?.kernel.close());
  const accept = (chid: number, first: boolean): Uint8Array =>
    encodeAcceptConfirm({
      type: 2,
      version: 2,
      gid: GID,
      token: 5n,
      dmbeIdx: 0,
      dmbeSize: 0,
      linkId: 0x100,
      firstContact: first,
      v2: {
        chid,
        eid: blankPadded(UEID),
        gidExt: EXT,
        ...(first ? { firstContact: { release: 1, hostname: 'x', featureMask: 1 } } : {}),
      },
    });

  it.each<[string, (peer: TcpSocket, smc: Smc) => void, number]>([
    ['closes', (peer) => peer.close(), 104],
    ['is silent for six seconds', (_peer, smc) => smc.advance(6000), 110],
    ['sends garbage', (peer) => peer.send(new Uint8Array(44).fill(7)), 71],
    // an empty slot has CHID 0 too (found with 6.1.176)
    ['accepts CHID 0', (peer) => peer.send(accept(0, true)), 71],
    ['accepts a CHID that was not offered', (peer) => peer.send(accept(0x1234, true)), 71],
  ])('%s', async (_what, act, error) => {
    machine ??= await bootSmc();
    const { smc } = machine;
    const { client, peer } = connectTo(smc);
    act(peer, smc);
    smc.run();
    expect([client.state, client.takeError(), client.isFallback]).toEqual([
      SMC_STATE.INIT,
      error,
      false,
    ]);
    expect(client.takeError()).toBe(0);
    client.closeNow();
  });

  it('knows no such token: falls back with MEM; reuses what it does not have: SYNCERR', async () => {
    const { kernel, smc } = await bootSmc();
    const first = connectTo(smc);
    first.peer.read(300);
    first.peer.send(accept(0xffff, true));
    smc.run();
    expect(first.client.fallbackReason).toBe(SMC_CLC_DECL.MEM);
    expect(bytesToHex(first.peer.read(44).subarray(16, 20))).toBe('01010000');
    expect(smc.dmbCount(smc.device('loopback'))).toBe(0);

    const second = connectTo(smc);
    second.peer.read(300);
    second.peer.send(accept(0xffff, false));
    smc.run();
    expect(second.client.fallbackReason).toBe(SMC_CLC_DECL.SYNCERR);
    const decline = second.peer.read(44);
    expect([decline[7], bytesToHex(decline.subarray(16, 20))]).toEqual([0x28, '04000000']);
    kernel.close();
  });
});

describe('selection', () => {
  const names = (smc: Smc): string[] => smc.devices.list.map(({ name }) => name);

  it('landed: loopback before ISM; maintainer: ISM before loopback', async () => {
    const ism = [{ chid: 0x700 }];
    for (const [policy, order, chosen] of [
      [SELECTION_POLICIES.landed, ['loopback-ism', 'ism'], 0xffff],
      [SELECTION_POLICIES.maintainer, ['ism', 'loopback-ism'], 0x700],
    ] as const) {
      const { kernel, smc } = await bootSmc({ ism, policy });
      expect(names(smc)).toEqual(order);
      const pair = await connectPair(smc);
      const accept = smc.messages[1]?.bytes ?? new Uint8Array(0);
      expect(((accept[32] ?? 0) << 8) | (accept[33] ?? 0)).toBe(chosen);
      // ISM can only copy
      pair.client.sendNow(new Uint8Array(1000));
      expect(smc.stats.deviceCopied).toBe(chosen === 0x700 ? 1000 : 0);
      pair.close();
      kernel.close();
    }
  });

  it('ISM without PNETID goes behind a leading loopback, one with PNETID to the end', async () => {
    const ism = [
      { name: 'a', chid: 1, pnetid: 'NET1' },
      { name: 'b', chid: 2 },
      { name: 'c', chid: 3 },
    ];
    const { kernel, smc } = await bootSmc({ ism });
    expect(names(smc)).toEqual(['loopback-ism', 'c', 'b', 'a']);
    kernel.close();
  });

  it('takes the next device when one has no slot left', async () => {
    const { kernel, smc } = await bootSmc({ ism: [{ chid: 0x700 }], maxDmbs: 0 });
    const pair = await connectPair(smc);
    expect(pair.client.isFallback).toBe(false);
    expect(listLinkGroups(smc)[0]?.device).toBe('ism');
    pair.close();
    kernel.close();
  });

  it('RoCE is offered last and never connected', async () => {
    const roce = {
      name: 'rxe0',
      pnetid: '',
      gid: new Uint8Array(16),
      mac: new Uint8Array(6),
      systemId: new Uint8Array(8),
    };
    const { kernel, smc } = await bootSmc({ loopback: 'none', roce: [roce] });
    const pair = await connectPair(smc);
    expect(smc.messages[0]?.bytes[7]).toBe(0x22);
    expect(pair.client.peerDiagnosis).toBe(SMC_CLC_DECL.NOSMCRDEV);
    pair.close();
    kernel.close();
  });
});

describe('the RFC', () => {
  it('v1: 92, 48 and 48 bytes, CHID 0, no UEID needed', async () => {
    const { kernel, smc } = await bootSmc({ loopback: 'rfc', ueid: false });
    const pair = await connectPair(smc);
    expect(smc.messages.map(({ bytes }) => [bytes.length, bytes[7]])).toEqual([
      [92, 0x19],
      [48, 0x19],
      [48, 0x19],
    ]);
    expect(pair.client.isFallback).toBe(false);
    expect(pair.client.sendNow(new Uint8Array(100))).toBe(100);
    expect((await pair.server.recv(200)).length).toBe(100);
    pair.close();
    kernel.close();
  });

  it('attachment: v2 with a SEID whose bytes 24 and 28 are not 0', async () => {
    const { kernel, smc } = await bootSmc({ loopback: 'rfc-attachment', ueid: false });
    const pair = await connectPair(smc);
    const [proposal, accept] = smc.messages.map(({ bytes }) => bytes);
    expect(proposal?.length).toBe(224 - 32 - 10);
    expect(new TextDecoder().decode(accept?.subarray(34, 66))).toBe(
      'SMC-SYSZ-LOSEID00000000010001000',
    );
    expect(pair.client.isFallback).toBe(false);
    pair.close();
    kernel.close();
  });

  it('a handler that answers from within the send takes its lock twice', async () => {
    const { kernel, smc } = await bootSmc({ loopback: 'rfc', nocopy: false });
    const pair = await connectPair(smc, { rcvbuf: 16384, sndbuf: 16384 });
    const chunk = new Uint8Array(16384);
    // both rings full and more prepared on both sides
    while (pair.client.sendNow(chunk) > 0);
    while (pair.server.sendNow(chunk) > 0);
    // consumed and not told: the next record of the client returns space, and the server wants to use it
    pair.client.recvNow(new Uint8Array(1));
    expect(() => pair.server.recvNow(new Uint8Array(16384))).toThrow('spinlock recursion');
    kernel.close();
  });
});
