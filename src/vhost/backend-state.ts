/**
 * VhostVDPAState of the control queue in memory: what programs that trace the backend read.
 *
 * Usage:
 *   const state = new BackendState(kernel, controlIndex, { first, last });
 *   state.write({ asid: 1, shadowed: true, shadowsData: false, isolated: true, always: false, started: true });
 */
import type { KernelContext } from '../kernel/function.js';
import { VHOST_VDPA, VHOST_VDPA_SHARED, VHOST_VDPA_STATE } from './structs.js';

const STATE = VHOST_VDPA_STATE.offset;
const VDPA = VHOST_VDPA.offset;
const SHARED = VHOST_VDPA_SHARED.offset;

export interface BackendFields {
  /** Address space of the control queue. */
  readonly asid: number;
  /** The control queue is shadowed. */
  readonly shadowed: boolean;
  /** Data queues are. */
  readonly shadowsData: boolean;
  readonly isolated: boolean;
  /** All were from the start. */
  readonly always: boolean;
  readonly started: boolean;
  /** The buffers that stay mapped. */
  readonly buffers: { readonly command: number; readonly status: number } | undefined;
}

export class BackendState {
  /** Of VHOST_VDPA_STATE. */
  readonly address: number;
  readonly #kernel: KernelContext;
  readonly #shared: number;

  constructor(
    kernel: KernelContext,
    index: number,
    range: { readonly first: bigint; readonly last: bigint },
  ) {
    const { physical, memory } = kernel;
    const { ram } = memory;
    this.#kernel = kernel;
    this.address = physical.alloc(VHOST_VDPA_STATE.size + VHOST_VDPA_SHARED.size);
    this.#shared = this.address + VHOST_VDPA_STATE.size;
    const vdpa = this.address + STATE.vhost_vdpa;
    ram.set32(vdpa + VDPA.index, index);
    ram.setPointer(vdpa + VDPA.shared, this.#shared);
    ram.set64(this.#shared + SHARED.iova_first, range.first);
    ram.set64(this.#shared + SHARED.iova_last, range.last);
  }

  write(fields: BackendFields): void {
    const { ram } = this.#kernel.memory;
    const { address } = this;
    const vdpa = address + STATE.vhost_vdpa;
    ram.set32(vdpa + VDPA.address_space_id, fields.asid);
    ram.set8(vdpa + VDPA.shadow_vqs_enabled, Number(fields.shadowed));
    ram.set8(this.#shared + SHARED.shadow_data, Number(fields.shadowsData));
    ram.set8(address + STATE.always_svq, Number(fields.always));
    ram.set8(address + STATE.cvq_isolated, Number(fields.isolated));
    ram.set8(address + STATE.started, Number(fields.started));
    ram.setPointer(address + STATE.cvq_cmd_out_buffer, fields.buffers?.command ?? 0);
    ram.setPointer(address + STATE.status, fields.buffers?.status ?? 0);
  }

  free(): void {
    this.#kernel.physical.free(this.address);
  }
}
