/**
 * Enterprise ids: the table of user EIDs, and the one of the system.
 *
 * Reference: smc_clc_ueid_add, smc_clc_ueid_remove, smc_clc_eid_is_valid in net/smc/smc_clc.c; netlink hands
 * over exactly 32 bytes. Measured on 6.12.117: a full table answers ERANGE even for an EID that it has.
 *
 * Usage:
 *   table.add('SMCV2-LAB');
 */
import { KernelError } from '../common/errors.js';
import { blankPadded } from './clc/values.js';

export const SMC_MAX_EID_LEN = 32;
const SMC_MAX_UEID = 4;

/** Whether 32 bytes are a user EID: A-Z, 0-9, dot and dash, then blanks; the first is a letter or digit. */
export function isUserEid(eid: Uint8Array): boolean {
  return /^[A-Z0-9][A-Z0-9.-]* *$/.test(new TextDecoder('latin1').decode(eid));
}

export class EidTable {
  readonly #eids: Uint8Array[] = [];
  /** 32 bytes; zero where the machine has none. */
  readonly systemEid: Uint8Array;
  readonly #hasSeid: boolean;
  #seidEnabled: boolean;

  /** @param systemEid what an s390 or the RFC's loopback device makes up; default none */
  constructor(systemEid?: string) {
    this.systemEid = systemEid === undefined ? new Uint8Array(32) : blankPadded(systemEid);
    this.#hasSeid = systemEid !== undefined;
    this.#seidEnabled = this.#hasSeid;
  }

  get ueids(): readonly Uint8Array[] {
    return this.#eids;
  }

  /** May the SEID be offered and matched? */
  get seidEnabled(): boolean {
    return this.#seidEnabled;
  }

  /** Throws KernelError EOPNOTSUPP where there is none. */
  enableSeid(on: boolean): void {
    if (!this.#hasSeid) throw new KernelError('EOPNOTSUPP', 'this machine has no system EID');
    this.#seidEnabled = on;
  }

  /** Text is padded to 32 bytes; bytes are taken as they are. Throws KernelError. */
  add(eid: string | Uint8Array): void {
    const bytes = paddedEid(eid);
    if (this.#eids.length >= SMC_MAX_UEID) {
      throw new KernelError('ERANGE', `${SMC_MAX_UEID} user EIDs are all there can be`);
    }
    if (this.#find(bytes) >= 0) throw new KernelError('EEXIST', 'this user EID is there already');
    this.#eids.push(bytes);
  }

  /** Throws KernelError ENOENT. */
  remove(eid: string | Uint8Array): void {
    const index = this.#find(paddedEid(eid));
    if (index < 0) throw new KernelError('ENOENT', 'no such user EID');
    this.#eids.splice(index, 1);
  }

  flush(): void {
    this.#eids.splice(0);
  }

  has(eid: Uint8Array): boolean {
    return this.#find(eid) >= 0;
  }

  #find(eid: Uint8Array): number {
    return this.#eids.findIndex((each) => each.every((byte, i) => byte === eid[i]));
  }
}

function paddedEid(eid: string | Uint8Array): Uint8Array {
  const bytes = typeof eid === 'string' ? new TextEncoder().encode(eid) : eid;
  if (bytes.length > SMC_MAX_EID_LEN) {
    throw new KernelError('ERANGE', `a user EID has ${SMC_MAX_EID_LEN} bytes, not ${bytes.length}`);
  }
  if (typeof eid !== 'string' && bytes.length < SMC_MAX_EID_LEN) {
    throw new KernelError('EINVAL', `a user EID has ${SMC_MAX_EID_LEN} bytes, not ${bytes.length}`);
  }
  const padded = typeof eid === 'string' ? blankPadded(eid) : bytes.slice();
  if (!isUserEid(padded)) {
    const text = new TextDecoder('latin1').decode(padded).trimEnd();
    throw new KernelError(
      'EINVAL',
      `'${text}' is no user EID: A-Z, 0-9, dots and dashes, a letter or digit first`,
    );
  }
  return padded;
}
