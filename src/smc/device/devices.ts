/**
 * SMC-D devices and their list: what a device can do, in what order devices are tried, what makes a kernel
 * capable of SMC-Dv2.
 *
 * Reference: struct smcd_dev, smcd_register_dev, smc_ism_is_v2_capable in net/smc/smc_ism.c. A device's
 * operations are kernel functions: `SmcdOps` has their names, smcd_dev.ops points to their addresses. The
 * order of the list decides, because proposal and match walk it from the front; it is a policy here:
 * `landed` as merged in 6.10, `maintainer` as the maintainer of the thread wanted it. RoCE comes last in both.
 */
import type { Ram } from '../../cpu/ram.js';
import type { KernelContext } from '../../kernel/function.js';
import type { SMC_CLC_DECL } from '../constants.js';
import { SMCD_DEV, SMCD_OPS, SMC_LO_DEV } from '../structs.js';

/** Names of kernel functions; those that are absent are NULL in smcd_ops. */
export interface SmcdOps {
  readonly query_remote_gid: string;
  readonly register_dmb: string;
  readonly unregister_dmb: string;
  readonly move_data: string;
  readonly supports_v2: string;
  readonly get_local_gid: string;
  readonly get_chid: string;
  readonly add_vlan_id?: string;
  readonly del_vlan_id?: string;
  readonly signal_event?: string;
  readonly support_dmb_nocopy?: string;
  readonly attach_dmb?: string;
  readonly detach_dmb?: string;
}

export type DeviceKind = 'loopback' | 'ism' | 'roce';

/** The order in which devices are tried. */
export interface SelectionPolicy {
  readonly name: string;
  readonly order: readonly DeviceKind[];
}

export const SELECTION_POLICIES = {
  landed: { name: 'landed', order: ['loopback', 'ism', 'roce'] },
  maintainer: { name: 'maintainer', order: ['ism', 'loopback', 'roce'] },
} as const satisfies Record<string, SelectionPolicy>;

export interface SmcdDeviceSpec {
  readonly kind: 'loopback' | 'ism';
  readonly name: string;
  readonly ops: SmcdOps;
  readonly gid: bigint;
  /** 0 for a native ISM device. */
  readonly gidExt: bigint;
  readonly chid: number;
  readonly maxDmbs: number;
  readonly pnetid: string;
  readonly supportsV2: boolean;
  /** Sender's ring and receiver's buffer are one. */
  readonly nocopy: boolean;
  /** How a signal reaches the receiver. */
  readonly signal: 'tasklet' | 'synchronous';
  /** A signal to nobody is an error (EPIPE). */
  readonly signalChecked: boolean;
  /** Offered and matched by the v1 message too, whatever the PNETID. */
  readonly v1: boolean;
  /** Shown by `smcd device`. */
  readonly listed: boolean;
  /** Two entries in a proposal, gid and gid_ext: what a CHID from 0xff00 on means since 6.10. */
  readonly emulated: boolean;
}

export interface SmcdDevice extends SmcdDeviceSpec {
  /** Of the smcd_dev. */
  readonly address: number;
}

/** What a connection over an InfiniBand device can end with: reasons that only SMC-R has. */
export const ROCE_REFUSALS = [
  'TIMEOUT_CL',
  'TIMEOUT_AL',
  'NOSMCRDEV',
  'RMBE_EC',
  'NOACTLINK',
  'NOSRVLINK',
  'NOROUTE',
  'NOINDIRECT',
  'INTERR',
  'ERR_RTOK',
  'ERR_RDYLNK',
  'ERR_REGBUF',
] as const satisfies readonly (keyof typeof SMC_CLC_DECL)[];

export type RoceRefusal = (typeof ROCE_REFUSALS)[number];

/** An InfiniBand device that can be offered and chosen, and nothing more. */
export interface RoceDevice {
  readonly name: string;
  readonly pnetid: string;
  /** 16 bytes. */
  readonly gid: Uint8Array;
  readonly mac: Uint8Array;
  /** local_systemid: two random bytes and the MAC address. */
  readonly systemId: Uint8Array;
  /** Why a connection that chose it is declined. Default NOSMCRDEV: no port can be used. */
  readonly refusal?: RoceRefusal;
}

const HASH_BUCKETS = 4096;
/** Fabrics from here on are those of Emulated-ISM. */
const EMULATED_CHIDS = 0xff00;

export class SmcdDevices {
  readonly policy: SelectionPolicy;
  readonly #kernel: KernelContext;
  readonly #ram: Ram;
  readonly #list: SmcdDevice[] = [];
  readonly #byAddress = new Map<number, SmcdDevice>();
  readonly #roce: RoceDevice[] = [];
  #v2Capable = false;

  constructor(kernel: KernelContext, policy: SelectionPolicy) {
    this.#kernel = kernel;
    this.#ram = kernel.memory.ram;
    this.policy = policy;
  }

  /** smcd_dev_list, front first. */
  get list(): readonly SmcdDevice[] {
    return this.#list;
  }

  get roce(): readonly RoceDevice[] {
    return this.#roce;
  }

  get isV2Capable(): boolean {
    return this.#v2Capable;
  }

  /** __smc_ism_is_emulated, unless the kernel's own device of that fabric is older than the rule. */
  isEmulated(chid: number): boolean {
    const own = this.#list.find((device) => device.chid === chid);
    return chid >= EMULATED_CHIDS && (own?.emulated ?? true);
  }

  /** The device at an address, listed or going away. */
  of(address: number): SmcdDevice {
    const device = this.#byAddress.get(address);
    if (!device) throw new RangeError(`no SMC-D device at ${address}`);
    return device;
  }

  /** smcd_register_dev */
  register(spec: SmcdDeviceSpec): SmcdDevice {
    const address = this.#place(spec);
    const device: SmcdDevice = { ...spec, address };
    this.#byAddress.set(address, device);
    if (spec.supportsV2) this.#v2Capable = true;
    this.#list.splice(this.#position(device), 0, device);
    return device;
  }

  addRoce(device: RoceDevice): void {
    this.#roce.push(device);
  }

  /** Takes a device off the list: list_del_init. Its memory is there until `free`. */
  unlist(device: SmcdDevice): void {
    const index = this.#list.indexOf(device);
    if (index >= 0) this.#list.splice(index, 1);
  }

  free(device: SmcdDevice): void {
    const { physical } = this.#kernel;
    const ram = this.#ram;
    const lo = ram.pointer(device.address + SMCD_DEV.offset.priv);
    physical.free(ram.pointer(lo + SMC_LO_DEV.offset.sba_idx_mask));
    physical.free(ram.pointer(lo + SMC_LO_DEV.offset.dmb_ht));
    physical.free(ram.pointer(device.address + SMCD_DEV.offset.conn));
    physical.free(ram.pointer(device.address + SMCD_DEV.offset.ops));
    physical.free(lo);
    physical.free(device.address);
    this.#byAddress.delete(device.address);
  }

  /** Behind all that the policy puts first; among its own kind a device without PNETID goes to the front. */
  #position(device: SmcdDevice): number {
    const rank = (kind: DeviceKind): number => this.policy.order.indexOf(kind);
    const first = this.#list.findIndex(({ kind }) => rank(kind) >= rank(device.kind));
    const behind = this.#list.findIndex(({ kind }) => rank(kind) > rank(device.kind));
    const position = device.pnetid === '' ? first : behind;
    return position < 0 ? this.#list.length : position;
  }

  #place(spec: SmcdDeviceSpec): number {
    const { physical } = this.#kernel;
    const ram = this.#ram;
    const smcd = physical.alloc(SMCD_DEV.size);
    const lo = physical.alloc(SMC_LO_DEV.size);
    const ops = physical.alloc(SMCD_OPS.size);
    for (const [name, fn] of Object.entries(spec.ops) as [keyof SmcdOps, string][]) {
      ram.set64(ops + SMCD_OPS.offset[name], this.#kernel.symbol(fn));
    }
    const S = SMCD_DEV.offset;
    ram.setPointer(smcd + S.ops, ops);
    ram.setPointer(smcd + S.priv, lo);
    ram.setPointer(smcd + S.conn, physical.alloc(8 * spec.maxDmbs));
    ram.bytes.set(new TextEncoder().encode(spec.pnetid).subarray(0, 16), smcd + S.pnetid);
    const L = SMC_LO_DEV.offset;
    ram.setPointer(lo + L.smcd, smcd);
    ram.set16(lo + L.chid, spec.chid);
    ram.set64(lo + L.local_gid, spec.gid);
    ram.set64(lo + L.local_gid + 8, spec.gidExt);
    ram.setPointer(lo + L.sba_idx_mask, physical.alloc(spec.maxDmbs));
    ram.setPointer(lo + L.dmb_ht, physical.alloc(8 * HASH_BUCKETS));
    ram.set32(lo + L.max_dmbs, spec.maxDmbs);
    return smcd;
  }
}

/** Bucket of a token. */
export function bucketOf(token: number): number {
  return token % HASH_BUCKETS;
}
