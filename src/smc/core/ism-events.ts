/**
 * Events that an ISM device raises: a peer system has gone, or its software tells something.
 *
 * Reference: smc_ism_event_work, smcd_handle_sw_event, smc_ism_signal_shutdown in net/smc/smc_ism.c of 6.12. An
 * event is queued and handled by a kworker. The loopback device has no events: nobody is told there that a
 * link group is shut.
 *
 * Usage:
 *   raiseIsmEvent(smc, device.address, { type: ISM_EVENT.GID, code: 0, tok: gid, info: 0n });
 */
import { atomic, type KernelFunction } from '../../kernel/function.js';
import type { SmcContext } from '../context.js';
import { SMCD_GID, SMC_ISM_EVENT_WORK } from '../structs.js';
import { LGR } from './fields.js';

/** ism_event.type */
export const ISM_EVENT = { DMB: 0, GID: 1, SWR: 2 } as const;
/** ism_event.code of a software event: the peer shuts its link group; is the link alive? */
export const ISM_EVENT_CODE = { SHUTDOWN: 0x80, TESTLINK: 0x83 } as const;
/** smc_ev_info.code */
export const ISM_EVENT_REQUEST = 1;
export const ISM_EVENT_RESPONSE = 2;
/** Interrupt the receiver. */
const ISM_EVENT_REQUEST_IR = 1;
/** VLAN_VID_MASK: any. */
export const ANY_VLAN = 0xfff;

export interface IsmEvent {
  readonly type: number;
  readonly code: number;
  /** GID of who caused it. */
  readonly tok: bigint;
  /** union smc_ev_info: uid 4 bytes, vlan_id 2, code 2. */
  readonly info: bigint;
}

const WORK = SMC_ISM_EVENT_WORK.offset;
const INFO = { vlanId: 4n, code: 6n } as const;

function infoField(info: bigint, at: bigint): number {
  return Number((info >> (8n * at)) & 0xffffn);
}

/** union smc_ev_info as the number that signal_event takes. */
export function eventInfo(uid: number, vlanId: number, code: number): bigint {
  return (
    BigInt(uid >>> 0) | (BigInt(vlanId) << (8n * INFO.vlanId)) | (BigInt(code) << (8n * INFO.code))
  );
}

/** smcd_handle_event: queues the work of a device. */
export function raiseIsmEvent(smc: SmcContext, dev: number, event: IsmEvent): void {
  const { ram, kernel } = smc;
  smc.ismEvents.push(event);
  const work = kernel.physical.alloc(SMC_ISM_EVENT_WORK.size);
  ram.setPointer(work + WORK.smcd, dev);
  ram.set32(work + WORK.type, event.type);
  ram.set32(work + WORK.code, event.code);
  ram.set64(work + WORK.tok, event.tok);
  ram.set64(work + WORK.info, event.info);
  smc.defer(() => {
    kernel.invoke('smc_ism_event_work', work);
    kernel.physical.free(work);
  });
}

export function ismEventFunctions(smc: SmcContext): readonly KernelFunction[] {
  const { ram, kernel, devices } = smc;
  const gid = kernel.physical.alloc(SMCD_GID.size);

  function signal(dev: number, to: number, code: number, info: bigint): number {
    const { signal_event: op } = devices.of(dev).ops;
    return op === undefined
      ? 0
      : kernel.invoke(op, dev, to, ISM_EVENT_REQUEST_IR, code, Number(info));
  }

  function softwareEvent(dev: number, code: number, info: bigint): void {
    switch (code) {
      case ISM_EVENT_CODE.SHUTDOWN:
        kernel.invoke('smc_smcd_terminate', dev, gid, infoField(info, INFO.vlanId));
        break;
      case ISM_EVENT_CODE.TESTLINK:
        if (infoField(info, INFO.code) !== ISM_EVENT_REQUEST) break;
        signal(
          dev,
          gid,
          code,
          eventInfo(Number(info & 0xffff_ffffn), infoField(info, INFO.vlanId), ISM_EVENT_RESPONSE),
        );
        break;
      default: // of no meaning to SMC
        break;
    }
  }

  return [
    atomic({
      prototype: 'void smc_ism_event_work(struct work_struct *work)',
      calls: true,
      body: (_kernel, work) => {
        const dev = ram.pointer(work + WORK.smcd);
        ram.set64(gid, ram.u64(work + WORK.tok));
        ram.set64(gid + 8, 0n);
        switch (ram.u32(work + WORK.type)) {
          case ISM_EVENT.GID:
            kernel.invoke('smc_smcd_terminate', dev, gid, ANY_VLAN);
            break;
          case ISM_EVENT.SWR:
            softwareEvent(dev, ram.u32(work + WORK.code), ram.u64(work + WORK.info));
            break;
          default: // ISM_EVENT_DMB: nothing to do
            break;
        }
      },
    }),
    atomic({
      prototype: 'int smc_ism_signal_shutdown(struct smc_link_group *lgr)',
      calls: true,
      body: (_kernel, lgr) => {
        if (ram.u8(lgr + LGR.peer_shutdown) !== 0) return 0;
        const info = eventInfo(
          ram.u32(lgr + LGR.id),
          ram.u16(lgr + LGR.vlan_id),
          ISM_EVENT_REQUEST,
        );
        return signal(
          ram.pointer(lgr + LGR.smcd),
          lgr + LGR.peer_gid,
          ISM_EVENT_CODE.SHUTDOWN,
          info,
        );
      },
    }),
  ];
}
