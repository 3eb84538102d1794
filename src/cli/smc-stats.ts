/** What `trampolab smc stats` prints: the layout of `smcd stats`, with `--details` that of `smcd -d stats`. */
import { declineName, type SmcStatistics } from '../index.js';
import { table } from './command.js';

const SIZES = ['8KB', '16KB', '32KB', '64KB', '128KB', '256KB', '512KB', '>512KB'] as const;
/** smcd shows so many reasons of each side, those that came most often. */
const REASONS = 3;

export function statisticsLines(statistics: SmcStatistics, details: boolean): string[] {
  const { smcd, handshakeErrors, fallback } = statistics;
  const client = smcd.clnt_v1_succ_cnt + smcd.clnt_v2_succ_cnt;
  const server = smcd.srv_v1_succ_cnt + smcd.srv_v2_succ_cnt;
  const errors = handshakeErrors.clnt + handshakeErrors.srv;
  const fallbacks = fallback.clnt.total + fallback.srv.total;
  const requests = smcd.rx_cnt + smcd.tx_cnt;
  const connections = client + server;
  const sides = (ofClient: number, ofServer: number): string =>
    details ? ` (client ${ofClient}, server ${ofServer})` : '';
  const reuse = (counts: SmcStatistics['smcd']['rmb_rx']): string[] =>
    details
      ? [line('Buffer downgrades', counts.dgrade_cnt), line('Buffer reuses', counts.reuse_cnt)]
      : [];
  const { rmb_tx: tx, rmb_rx: rx } = smcd;
  const special = [
    ['cork', smcd.cork_cnt],
    ['nodelay', smcd.ndly_cnt],
    ['sendpage', 0],
    ['splice', smcd.splice_cnt],
    ['urgent data', smcd.urg_data_cnt],
  ] as const;
  const specials = special.reduce((sum, [, value]) => sum + value, 0);
  return [
    'SMC-D Connections Summary',
    line('Total connections handled', connections + errors + fallbacks),
    line('SMC connections', connections) + sides(client, server),
    ...(details
      ? [
          line('  v1', smcd.clnt_v1_succ_cnt + smcd.srv_v1_succ_cnt),
          line('  v2', smcd.clnt_v2_succ_cnt + smcd.srv_v2_succ_cnt),
        ]
      : []),
    line('Handshake errors', errors) + sides(handshakeErrors.clnt, handshakeErrors.srv),
    line('Avg requests per SMC conn', (connections && requests / connections).toFixed(1), 2),
    line('TCP fallback', fallbacks) + sides(fallback.clnt.total, fallback.srv.total),
    ...(details ? reasonLines('Server', fallback.srv.reasons) : []),
    ...(details ? reasonLines('Client', fallback.clnt.reasons) : []),
    '',
    'RX Stats',
    line('Data transmitted (Bytes)', smcd.rx_bytes),
    line('Total requests', smcd.rx_cnt),
    share('Buffer full', rx.buf_full_cnt, smcd.rx_cnt),
    ...reuse(rx),
    ...histogram(smcd.rx_rmbsize, smcd.rx_pd),
    '',
    'TX Stats',
    line('Data transmitted (Bytes)', smcd.tx_bytes),
    line('Total requests', smcd.tx_cnt),
    share('Buffer full', tx.buf_full_cnt, smcd.tx_cnt),
    share('Buffer full (remote)', tx.buf_full_peer_cnt, smcd.tx_cnt),
    share('Buffer too small', tx.buf_size_small_cnt, smcd.tx_cnt),
    share('Buffer too small (remote)', tx.buf_size_small_peer_cnt, smcd.tx_cnt),
    ...reuse(tx),
    ...histogram(smcd.tx_rmbsize, smcd.tx_pd),
    '',
    'Extras',
    line('Special socket calls', specials),
    ...(details ? special.map(([name, value]) => line(`  ${name}`, value)) : []),
  ];
}

function line(name: string, value: number | string, wider = 0): string {
  return `  ${name.padEnd(27)}${String(value).padStart(12 + wider)}`;
}

function share(name: string, value: number, of: number): string {
  const percent = of === 0 ? 0 : (100 * value) / of;
  return `${line(name, value)} (${percent.toFixed(2)}%)`;
}

function reasonLines(
  side: string,
  reasons: SmcStatistics['fallback']['srv']['reasons'],
): readonly string[] {
  if (reasons.length === 0) return [];
  const often = reasons.toSorted((a, b) => b.count - a.count).slice(0, REASONS);
  return [`    ${side}`, ...often.map(({ code, count }) => line(`   ${declineName(code)}`, count))];
}

/** The last column holds what is larger than 512 KiB, which the kernel counts in two. */
function histogram(buffers: readonly number[], requests: readonly number[]): string[] {
  const cells = (counts: readonly number[]): string[] => {
    const [large = 0, larger = 0] = counts.slice(SIZES.length - 1);
    return [...counts.slice(0, SIZES.length - 1), large + larger].map(String);
  };
  return table([
    ['', ...SIZES],
    ['Bufs', ...cells(buffers)],
    ['Reqs', ...cells(requests)],
  ]).map((row) => `  ${row}`);
}
