/**
 * `vectors/smc`: what SMC on real kernels without a loopback device did, against the model.
 *
 * Compared are handshake bytes, results and errno values, poll bits, states, flags and cursors. The kernels had
 * no SMC-D device: their data path was SMC-R over soft-RoCE, whose rings are 32 bytes longer. A loopback device
 * with rings of that size stands in for it; skipped is what is RDMA's own. Records of one session refer to each
 * other: it is replayed once, and its records are compared with what came out.
 */
import { InputError, KernelError } from '../../common/errors.js';
import type { Kernel } from '../../kernel/kernel.js';
import { createSmc, type Smc } from '../../smc/smc.js';
import { failed, passed, skipped, type CaseResult, type VectorKind } from './kind.js';
import { VectorRecord } from './record.js';
import type { Difference } from './smc/compare.js';
import { SETTINGS, type Setting } from './smc/machines.js';
import { SmcReplay } from './smc/replay.js';

const RDMA = 'of RDMA hardware: queue pairs, keys and links of SMC-R';
/** Records about the machine that made the file. */
const MACHINE = new Set(['uname', 'insmod', 'ifup', 'fam', 'rxe', 'pnet', 'tap', 'sysctl_w']);

export interface SmcChecker {
  readonly kind: VectorKind;
  close(): void;
}

/** @param boot a fresh kernel; one for each setting of devices */
export function smcChecker(boot: () => Promise<Kernel>): SmcChecker {
  const machines = new Map<Setting, Smc>();
  const replays = new WeakMap<readonly VectorRecord[], SmcReplay>();

  const machine = async (setting: Setting): Promise<Smc> => {
    const known = machines.get(setting);
    if (known) return known;
    const smc = createSmc(await boot(), SETTINGS[setting]);
    machines.set(setting, smc);
    return smc;
  };

  const kind: VectorKind = {
    name: 'SMC on real kernels',
    matches: (record) => record.has('run') && record.has('x'),
    check: async (record, _options, file) => {
      const named = new VectorRecord(record.origin, { ...record.fields, name: nameOf(record) });
      const what = record.text('x');
      if (MACHINE.has(what)) return skipped(named, 'about the machine, not about SMC');
      let replay = replays.get(file);
      if (!replay) {
        replay = new SmcReplay(file, machine);
        replays.set(file, replay);
      }
      try {
        return verdict(named, await replay.compare(record));
      } catch (error) {
        if (error instanceof KernelError || error instanceof InputError) {
          return failed(named, error.message);
        }
        throw error;
      }
    },
  };
  return {
    kind,
    close: () => {
      for (const { kernel } of machines.values()) kernel.close();
    },
  };
}

function nameOf(record: VectorRecord): string {
  const parts = ['x', 'at', 'case', 'op', 'eid', 'what', 'p', 'req'].flatMap((field) =>
    record.has(field) ? [String(record.fields[field])] : [],
  );
  return `${record.origin} ${parts.join(' ')}`;
}

function verdict(record: VectorRecord, difference: Difference): CaseResult {
  switch (difference.kind) {
    case 'equal':
      return passed(record);
    case 'skipped':
      return skipped(record, difference.reason === 'rdma' ? RDMA : difference.reason);
    case 'different':
      return failed(
        record,
        difference.fields
          .map(({ name, ours, theirs }) => `${name} ${ours}, kernel ${theirs}`)
          .join('; '),
      );
  }
}
