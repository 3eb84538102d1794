/** Offsets that all parts of the core use, under short names, and how parts of a socket find each other. */
import { SOCK } from '../../bpf/socket.js';
import type { Ram } from '../../cpu/ram.js';
import { STATE_FLAG } from '../constants.js';
import {
  SMCD_DEV,
  SMC_BUF_DESC,
  SMC_CONNECTION,
  SMC_HOST_CDC_MSG,
  SMC_INIT_INFO,
  SMC_LINK_GROUP,
  SMC_SOCK,
} from '../structs.js';

export const C = SMC_CONNECTION.offset;
export const S = SMC_SOCK.offset;
export const LGR = SMC_LINK_GROUP.offset;
export const BUF = SMC_BUF_DESC.offset;
export const DEV = SMCD_DEV.offset;
export const INI = SMC_INIT_INFO.offset;

const CDC = SMC_HOST_CDC_MSG.offset;
/** Fields of local_tx_ctrl and local_rx_ctrl. */
export const TX = {
  prod: C.local_tx_ctrl + CDC.prod,
  cons: C.local_tx_ctrl + CDC.cons,
  prodFlags: C.local_tx_ctrl + CDC.prod_flags,
  stateFlags: C.local_tx_ctrl + CDC.conn_state_flags,
} as const;
export const RX = {
  prod: C.local_rx_ctrl + CDC.prod,
  cons: C.local_rx_ctrl + CDC.cons,
  prodFlags: C.local_rx_ctrl + CDC.prod_flags,
  stateFlags: C.local_rx_ctrl + CDC.conn_state_flags,
} as const;

/** container_of(conn, struct smc_sock, conn) */
export function sockOf(conn: number): number {
  return conn - S.conn;
}

export function connOf(smc: number): number {
  return smc + S.conn;
}

export function skState(ram: Ram, smc: number): number {
  return ram.u8(smc + SOCK.state);
}

export function setSkState(ram: Ram, smc: number, state: number): void {
  ram.set8(smc + SOCK.state, state);
}

export function setBits(ram: Ram, at: number, bits: number): void {
  ram.set8(at, ram.u8(at) | bits);
}

export function clearBits(ram: Ram, at: number, bits: number): void {
  ram.set8(at, ram.u8(at) & ~bits);
}

export function hasBits(ram: Ram, at: number, bits: number): boolean {
  return (ram.u8(at) & bits) !== 0;
}

/** Bytes of the ring that a descriptor stands for. */
export function bufLen(ram: Ram, conn: number, which: 'sndbuf_desc' | 'rmb_desc'): number {
  return ram.u32(ram.pointer(conn + C[which]) + BUF.len);
}

const ANY_CLOSE = STATE_FLAG.PEER_CONN_CLOSED | STATE_FLAG.PEER_CONN_ABORT;

/** smc_cdc_rxed_any_close */
export function rxedAnyClose(ram: Ram, conn: number): boolean {
  return hasBits(ram, conn + RX.stateFlags, ANY_CLOSE);
}

/** smc_cdc_rxed_any_close_or_senddone */
export function rxedAnyCloseOrSenddone(ram: Ram, conn: number): boolean {
  return hasBits(ram, conn + RX.stateFlags, ANY_CLOSE | STATE_FLAG.PEER_DONE_WRITING);
}

/** smc_close_sent_any_close */
export function sentAnyClose(ram: Ram, conn: number): boolean {
  return hasBits(ram, conn + TX.stateFlags, ANY_CLOSE);
}
