/** The program that a `packet` record names, rebuilt as BPF assembly. */
import {
  NAT_STRATEGIES,
  VERDICTS,
  adjustProgram,
  encapProgram,
  macSwapProgram,
  natProgram,
  returnProgram,
} from '../../csum/programs.js';

const FIXED: Readonly<Record<string, number>> = {
  pass: VERDICTS.PASS,
  drop: VERDICTS.DROP,
  aborted: VERDICTS.ABORTED,
  ret7: 7,
};

const GUEST = Uint8Array.of(0x52, 0x54, 0, 0, 0, 2);
const PEER = Uint8Array.of(0x52, 0x54, 0, 0, 0, 1);

/** Undefined: no program of that name is known here. */
export function recordProgram(name: string): string | undefined {
  const fixed = FIXED[name];
  if (fixed !== undefined) return returnProgram(fixed);
  // the multiqueue guests' `tx` swapped the addresses too, as the frames they sent show
  if (name === 'tx-macswap' || name === 'tx') return macSwapProgram();
  const nat = /^nat-(S\d)->([\d.]+)$/.exec(name);
  const strategy = NAT_STRATEGIES.find((each) => each === nat?.[1]);
  if (nat && strategy) return natProgram(strategy, nat[2] as string);
  const encap = /^encap-ipip\+(TX|PASS)$/.exec(name);
  if (encap) {
    const tx = encap[1] === 'TX';
    return encapProgram({
      source: '172.16.0.1',
      destination: '172.16.0.2',
      nextHop: tx ? PEER : GUEST,
      verdict: tx ? VERDICTS.TX : VERDICTS.PASS,
    });
  }
  const helper = /^helper(44|65)\((-?\d+)\)$/.exec(name);
  if (helper) return adjustProgram(Number(helper[1]), [Number(helper[2])], 0, 1);
  const head = /^adjust_head\((-?\d+)(?:,([+-]\d+))?\)/.exec(name);
  if (head) {
    const deltas = [head[1], head[2]].filter((delta) => delta !== undefined).map(Number);
    const [ok, failed] = name.includes('ABORTED') ? [0, 1] : [VERDICTS.PASS, VERDICTS.DROP];
    return adjustProgram(44, deltas, ok, failed);
  }
  const tail = /^adjust_tail\(([+-]\d+)\)\+PASS$/.exec(name);
  if (tail) return adjustProgram(65, [Number(tail[1])], VERDICTS.PASS, VERDICTS.DROP);
  return undefined;
}
