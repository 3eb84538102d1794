/**
 * Names for listings: helper calls as `bpf_map_lookup_elem#1`, kernel functions likewise, local calls with
 * the callee's name.
 *
 * Usage:
 *   disassemble(program.functions[0].insns, listingNames(program, host));
 */
import { callImmediate } from '../call-immediate.js';
import type { DisassemblyNames } from '../disassemble.js';
import type { BpfHost } from '../host.js';
import { KFUNCS } from '../kfuncs/table.js';
import { PSEUDO } from '../opcodes.js';
import type { XlatedProgram } from '../program.js';
import { helperTable } from './table.js';

/**
 * Names for the calls of an xlated program on `host`; the number behind `#` is the immediate, as
 * bpftool shows it.
 */
export function listingNames(program: XlatedProgram, host: BpfHost): DisassemblyNames {
  const helpers = new Map<number, string>();
  for (const { id, name } of helperTable().values()) {
    const immediate = callImmediate(host, id);
    if (immediate !== undefined) helpers.set(immediate, `bpf_${name}`);
  }
  for (const { name } of KFUNCS) {
    const address = host.kfuncAddress?.(name);
    if (address !== undefined) helpers.set(Number(address - host.callBase), name);
  }
  return {
    call: ({ src, off, imm }) => {
      if (src === PSEUDO.CALL) return program.functions[off]?.name;
      const name = helpers.get(imm);
      return name === undefined ? undefined : `${name}#${imm}`;
    },
    constant: (value) => {
      const map = host.mapAt(value);
      return map ? `map[${map.spec.name}]` : undefined;
    },
  };
}
