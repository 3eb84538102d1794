/**
 * What the immediate of a helper call holds in xlated code: the distance of the helper's entry from the
 * call base, or still the helper's id where the JIT puts code in place of the call.
 *
 * Reference: do_misc_fixups of kernel/bpf/verifier.c, bpf_jit_inlines_helper_call of
 * arch/arm64/net/bpf_jit_comp.c. Engines without such code find the body `id` bytes behind the call base.
 *
 * Usage:
 *   makeSlot(0x85, { imm: callImmediate(host, 1) }); // map_lookup_elem
 */
import { KernelError } from '../common/errors.js';
import type { BpfHost } from './host.js';
import { helperName, LAST_HELPER } from './object/helper-names.js';

/** undefined: there is no such helper. Throws KernelError: ERANGE. */
export function callImmediate(host: BpfHost, id: number): number | undefined {
  // numbers behind the last are the lab's own
  const address = id > LAST_HELPER ? undefined : host.helperAddress(id);
  if (address === undefined) return undefined;
  if (host.jitInlines?.has(id)) return id;
  return callDistance(helperName(id), address, host);
}

/** How far the function at `address` is from the call base. Throws KernelError: ERANGE. */
export function callDistance(name: string, address: bigint, host: BpfHost): number {
  const distance = address - host.callBase;
  if (distance !== BigInt.asIntN(32, distance)) {
    throw new KernelError('ERANGE', `${name} is over 2 GiB from the call base`);
  }
  return Number(distance);
}
