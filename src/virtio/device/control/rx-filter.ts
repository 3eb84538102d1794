/**
 * Which frames a device lets through to the guest.
 *
 * Reference: QEMU's receive_filter: promiscuous mode, the VLAN table, then broadcast, multicast or unicast
 * by flags and address tables. A frame shorter than its addresses is let through.
 *
 * Usage:
 *   if (!acceptsFrame(state, frame)) dropped++;
 */
import type { ControlState } from './state.js';

const TPID_8021Q = 0x8100;

export function acceptsFrame(state: ControlState, frame: Uint8Array): boolean {
  const { rx } = state;
  if (rx.promisc || frame.length < 14) return true;
  if (state.vlans !== 'all' && frame.length >= 16) {
    const type = ((frame[12] as number) << 8) | (frame[13] as number);
    const id = (((frame[14] as number) << 8) | (frame[15] as number)) & 0xfff;
    if (type === TPID_8021Q && !state.vlans.has(id)) return false;
  }
  const { macTable } = state;
  if (((frame[0] as number) & 1) !== 0) {
    if (isBroadcast(frame)) return !rx.nobcast;
    if (rx.nomulti) return false;
    if (rx.allmulti || macTable.multiOverflow) return true;
    return macTable.multicast.some((mac) => isTo(frame, mac));
  }
  if (rx.nouni) return false;
  if (rx.alluni || macTable.uniOverflow || isTo(frame, state.mac)) return true;
  return macTable.unicast.some((mac) => isTo(frame, mac));
}

function isBroadcast(frame: Uint8Array): boolean {
  for (let i = 0; i < 6; i++) if (frame[i] !== 0xff) return false;
  return true;
}

function isTo(frame: Uint8Array, mac: Uint8Array): boolean {
  for (let i = 0; i < 6; i++) if (frame[i] !== mac[i]) return false;
  return true;
}
