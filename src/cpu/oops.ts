import type { Cpu, Stop } from './cpu.js';
export function formatOops(cpu: Cpu, stop: Stop, symbols: { format(a: bigint): string }): string { return `${JSON.stringify(stop, (_k, v) => typeof v === 'bigint' ? v.toString(16) : v)} pc ${symbols.format(cpu.pc)} x30 ${symbols.format(cpu.getX(30))}`; }
