/** Records of `vectors/smc` that stand for themselves: a socket call, a user EID, a sysctl, a listing. */
import { bytesToHex } from '../../../common/bytes.js';
import { ERRNO } from '../../../common/errno.js';
import { blankPadded } from '../../../smc/clc/values.js';
import type { Smc } from '../../../smc/smc.js';
import { listDevices, listLinkGroups, systemInfo } from '../../../smc/state.js';
import type { VectorRecord } from '../record.js';
import { addPadded, eidBytes, errnoOf, initialSocket, ueidRules } from './calls.js';
import { COUNTED, compareCounts } from './counts.js';
import { compareFields, differenceOf, skip, type Difference } from './compare.js';
import type { Machine } from './machines.js';

const ADDRESS = '127.0.0.1';
let nextPort = 600;

export async function compareSingle(record: VectorRecord, machine: Machine): Promise<Difference> {
  const is61 = record.text('run').includes('6.1.');
  const smc = await machine(is61 ? 'none61' : 'none');
  smc.eids.flush();
  switch (record.text('x')) {
    case 'sysctl':
      return sysctl(record, smc);
    case 'genl':
      if (COUNTED.has(record.text('what'))) {
        return compareCounts(record, await machine(is61 ? 'counted61' : 'counted'));
      }
      return listing(record, smc);
    case 'ueid_add_padded32':
      return compareFields(record, addPadded(smc, record.text('eid')));
    case 'ueid_add': {
      const r = errnoOf(() => smc.eids.add(eidBytes(record)));
      smc.eids.flush();
      return compareFields(record, { r, flush: 0 });
    }
    case 'ueid_rules':
      return compareFields(record, ueidRules(smc));
    case 'ueid_flush':
      smc.eids.flush();
      return compareFields(record, { r: 0, r2: 0 });
    case 'seid': {
      const set = (on: boolean): number => errnoOf(() => smc.eids.enableSeid(on));
      return compareFields(record, { enable: set(true), disable: set(false) });
    }
    case 'sock_init':
      return compareFields(record, initialSocket(smc));
    case 'sock_min': {
      const socket = smc.socket();
      socket.setOption('rcvbuf', 1);
      socket.setOption('sndbuf', 1);
      const result = { rcvbuf: socket.getOption('rcvbuf'), sndbuf: socket.getOption('sndbuf') };
      socket.closeNow();
      return compareFields(record, result);
    }
    case 'sock_proto1':
      return compareFields(record, { r: errnoOf(() => smc.socket(1, 1).closeNow()) });
    case 'sock_proto2':
      return compareFields(record, { r: errnoOf(() => smc.socket(1, 2).closeNow()) });
    case 'sock_dgram':
      return compareFields(record, { r: errnoOf(() => smc.socket(2).closeNow()) });
    case 'sock_inet_256': {
      if (is61) return skip('the lab has AF_INET sockets of SMC as 6.12 has');
      const socket = smc.inetSocket(1, 256);
      const protocol = socket?.protocol;
      socket?.closeNow();
      return compareFields(record, { r: socket ? 0 : -ERRNO.EPROTONOSUPPORT, protocol });
    }
    case 'sock_listen': {
      const socket = smc.socket();
      socket.listen({ address: ADDRESS, port: nextPort++ });
      const result = {
        send: socket.sendNow(new Uint8Array(1)),
        recv: socket.recvNow(new Uint8Array(1)),
      };
      socket.closeNow();
      return compareFields(record, result);
    }
    case 'ulp': {
      // TCP_ULP and TCP_NODELAY are TCP's own
      const socket = smc.socket();
      const TCP_CORK = errnoOf(() => socket.setOption('cork', true));
      socket.closeNow();
      return compareFields(record, { TCP_CORK });
    }
    default:
      return skip('the lab has no such call');
  }
}

function sysctl(record: VectorRecord, smc: Smc): Difference {
  const [, name] = /net\/smc\/(\w+)$/.exec(record.text('p')) ?? [];
  switch (name) {
    case 'rmem':
    case 'wmem': {
      const socket = smc.socket();
      const half = socket.getOption(name === 'rmem' ? 'rcvbuf' : 'sndbuf') / 2;
      socket.closeNow();
      return compareFields(record, { v: String(half) });
    }
    case 'limit_smc_hs':
      return compareFields(record, { v: Number.isFinite(smc.handshakeLimit) ? '1' : '0' });
    default:
      return skip('a sysctl of SMC-R, or of what SMC-D never does');
  }
}

/** A socket before it is connected, as it is listed. */
export async function unconnected(
  record: VectorRecord,
  machine: Machine,
): Promise<readonly (readonly [string, unknown, unknown])[] | undefined> {
  const at = record.text('at');
  if (at !== 'init' && at !== 'inet256 init' && at !== 'listen') return undefined;
  const smc = await machine('none');
  const socket = at === 'inet256 init' ? smc.inetSocket(1, 256) : smc.socket();
  if (at === 'listen') socket?.listen({ address: ADDRESS, port: nextPort++ });
  const [theirs] = record.records('socks');
  const compared: (readonly [string, unknown, unknown])[] = [
    ['state', socket?.state, theirs?.number('state')],
    ['reason', socket?.fallbackReason, Number(theirs?.text('fb_reason'))],
    ['peer diagnosis', socket?.peerDiagnosis, Number(theirs?.text('peer_diag'))],
  ];
  socket?.closeNow();
  return compared;
}

// ---- generic netlink

type Attribute = readonly [number: number, value: string | readonly Attribute[]];

/** Attributes of each message, by their numbers. */
function listing(record: VectorRecord, smc: Smc): Difference {
  const theirs = record.fields['attrs'] as readonly (readonly Attribute[])[];
  const [what = '', ...of] = record.text('what').split(' ');
  switch (what) {
    case 'sys_info': {
      const { version, release, isIsmV2, hostname } = systemInfo(smc);
      const values = new Map(nested(theirs[0]));
      return differenceOf([
        ['version', byte(version), values.get(1)],
        ['release', byte(release), values.get(2)],
        ['is_ism_v2', byte(isIsmV2 ? 1 : 0), values.get(3)],
        ['hostname', text32(hostname), values.get(4)],
      ]);
    }
    case 'dev_smcd':
      return differenceOf([['devices', listDevices(smc, false).length, theirs.length]]);
    case 'lgr_smcd':
      return differenceOf([['link groups', listLinkGroups(smc).length, theirs.length]]);
    case 'seid':
      return differenceOf([['SEID', smc.eids.seidEnabled ? 1 : 0, theirs[0]?.length]]);
    case 'ueid': {
      const removed = of.includes('rm') ? of.at(-1) : undefined;
      const isEmpty = of.includes('empty');
      if (!isEmpty && removed === undefined) return skip('what was added is not told');
      const names = isEmpty ? [] : ['E1', 'E2', 'E3', 'E4'];
      for (const name of names) smc.eids.add(name);
      if (removed !== undefined) smc.eids.remove(removed);
      const ours = smc.eids.ueids.map((eid) => `${bytesToHex(eid)}00`);
      smc.eids.flush();
      return differenceOf([['user EIDs', ours, theirs.map((message) => message[0]?.[1])]]);
    }
    default:
      return skip(/smcr/.test(what) ? 'rdma' : 'counts of a whole run');
  }
}

function nested(message: readonly Attribute[] = []): readonly Attribute[] {
  const value = message[0]?.[1];
  return typeof value === 'object' ? value : [];
}

function byte(value: number): string {
  return value.toString(16).padStart(2, '0');
}

/** 32 bytes with blanks behind, and a NUL. */
function text32(text: string): string {
  return `${bytesToHex(blankPadded(text))}00`;
}
