/**
 * The program that a `packet` record names, rebuilt as BPF assembly.
 *
 * A name is what the program does, then how it ends: `macswap+redirect-cpumap`, `encap-ipip+TX`, `pass`. Each first
 * part goes with each end. What a redirect needs, a map with an entry, is in `RedirectMaps`.
 */
import {
  NAT_STRATEGIES,
  VERDICTS,
  adjustProgram,
  encapProgram,
  macSwapProgram,
  natProgram,
  redirectProgram,
  returnProgram,
} from '../../csum/programs.js';
import type { RedirectTargets } from '../../redirect-maps.js';

const GUEST = Uint8Array.of(0x52, 0x54, 0, 0, 0, 2);
const PEER = Uint8Array.of(0x52, 0x54, 0, 0, 0, 1);

const ADJUST_HEAD = 44;
const ADJUST_TAIL = 65;

/** Undefined: no program of that name is known here. */
export function recordProgram(name: string, targets: RedirectTargets): string | undefined {
  // where it is stated, a limit is looked for: `adjust_head(-216): ok->ABORTED fail->DROP`
  const limit = /^(.*): ok->(\w+) fail->(\w+)$/.exec(name);
  if (limit) {
    const [ok, failed] = [endOf(limit[2] ?? '', targets), endOf(limit[3] ?? '', targets)];
    return ok === undefined || failed === undefined
      ? undefined
      : adjusting(limit[1] ?? '', ok, failed);
  }
  const helper = /^helper(44|65)\(([+-]?\d+)\)$/.exec(name);
  if (helper) {
    const [aborted, dropped] = [returnProgram(VERDICTS.ABORTED), returnProgram(VERDICTS.DROP)];
    return adjustProgram(Number(helper[1]), [Number(helper[2])], aborted, dropped);
  }
  // the multiqueue guests' `tx` swapped the addresses too, as the frames they sent show
  if (name === 'tx-macswap' || name === 'tx') return macSwapProgram();
  const alone = endOf(name, targets);
  if (alone !== undefined) return alone;
  const nat = /^nat-(S\d)->([\d.]+)(?:\+(.*))?$/.exec(name);
  if (nat) {
    const strategy = NAT_STRATEGIES.find((each) => each === nat[1]);
    const end = endOf(nat[3] ?? 'PASS', targets);
    if (!strategy || end === undefined) return undefined;
    return natProgram(strategy, nat[2] as string, end);
  }
  const [, first = '', last = ''] = /^(\w[\w-]*(?:\([^)]*\))?)\+(.*)$/.exec(name) ?? [];
  const end = endOf(last, targets);
  if (end === undefined) return undefined;
  if (first === 'macswap') return macSwapProgram(end);
  if (first === 'encap-ipip') {
    return encapProgram({
      source: '172.16.0.1',
      destination: '172.16.0.2',
      nextHop: last === 'PASS' ? GUEST : PEER,
      end,
    });
  }
  return adjusting(first, end, returnProgram(VERDICTS.DROP));
}

/** `adjust_head(-20,+20)`, `adjust_tail(+3377)`. */
function adjusting(text: string, ok: string, failed: string): string | undefined {
  const call = /^adjust_(head|tail)\(([+-]?\d+(?:,[+-]?\d+)*)\)$/.exec(text);
  if (!call) return undefined;
  const deltas = (call[2] ?? '').split(',').map(Number);
  return adjustProgram(call[1] === 'head' ? ADJUST_HEAD : ADJUST_TAIL, deltas, ok, failed);
}

/** `TX`, `ret7`, `redirect-cpumap`, `redirect-devmap(same device)`. */
function endOf(name: string, targets: RedirectTargets): string | undefined {
  const verdict = Object.entries(VERDICTS).find(([each]) => each === name.toUpperCase());
  if (verdict) return returnProgram(verdict[1]);
  const returned = /^ret(\d+)$/.exec(name);
  if (returned) return returnProgram(Number(returned[1]));
  switch (name) {
    case 'redirect-cpumap':
      return redirectProgram(targets.cpumap, 0);
    case 'redirect-devmap':
    case 'redirect-devmap(same device)':
      return redirectProgram(targets.devmap, 0);
    default:
      return undefined;
  }
}
