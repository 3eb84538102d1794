import { describe, expect, it } from 'vitest';
import { assemble } from '../../src/bpf/assemble.js';
import { helperBodies } from '../../src/bpf/helpers/table.js';
import { createInterpreter } from '../../src/bpf/interpreter.js';
import { createMap } from '../../src/bpf/maps/create.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { rawProgram } from '../../src/bpf/raw-program.js';
import { XDP_ACTIONS, XdpBuff } from '../../src/bpf/xdp-buff.js';

/** Counts packets by IP protocol in an array map; drops what is no IPv4. Written for xdp_buff. */
const program = (map: bigint): string => `
        r6 = r1
        r2 = *(u64 *)(r6 + 0)          ; data
        r3 = *(u64 *)(r6 + 8)          ; data_end
        r4 = r2
        r4 += 34
        if r4 > r3 goto drop
        r5 = *(u16 *)(r2 + 12)
        if r5 != 0x0008 goto drop      ; ETH_P_IP, big-endian
        r5 = *(u8 *)(r2 + 23)
        *(u32 *)(r10 - 4) = r5
        r1 = 0x${map.toString(16)} ll
        r2 = r10
        r2 += -4
        call 1
        if r0 == 0 goto drop
        r1 = 1
        lock *(u64 *)(r0 + 0) += r1
        r2 = *(u64 *)(r6 + 32)         ; rxq
        r2 = *(u64 *)(r2 + 0)          ; dev
        r0 = *(u32 *)(r2 + 224)        ; ifindex
        exit
  drop: r0 = 1
        exit`;

describe('an XDP program on an xdp_buff', () => {
  it('decides packet by packet and counts in a map', () => {
    const host = new PlainHost({ helpers: helperBodies() });
    const map = createMap(
      { name: 'protocols', type: 'ARRAY', keySize: 4, valueSize: 8, maxEntries: 256, flags: 0 },
      host,
    );
    const helperImmediate = (id: number): number =>
      Number((host.helperAddress(id) ?? 0n) - host.callBase);
    const insns = assemble(program(map.address));
    const raw = rawProgram('count', insns, { type: 'xdp', helperImmediate });
    const interpreter = createInterpreter(raw, host);
    const xdp = XdpBuff.create(host, { ifindex: 2, queueIndex: 0 });
    const frame = host.allocate('frame', 2048);
    const verdicts: (string | undefined)[] = [];
    for (const [etherType, protocol, length] of [
      [0x0800, 17, 60],
      [0x0800, 6, 60],
      [0x86dd, 6, 60],
      [0x0800, 6, 33],
      [0x0800, 6, 34],
    ] as const) {
      xdp.setFrame(frame.address, 2048, 256, length);
      host.memory.write8(xdp.data + 12n, etherType >> 8);
      host.memory.write8(xdp.data + 13n, etherType & 0xff);
      host.memory.write8(xdp.data + 23n, protocol);
      const result = interpreter.run(xdp.address);
      verdicts.push(result.kind === 'return' ? XDP_ACTIONS[Number(result.r0)] : result.kind);
    }
    expect(verdicts).toEqual(['XDP_PASS', 'XDP_PASS', 'XDP_DROP', 'XDP_DROP', 'XDP_PASS']);
    const counts = [...map.entries()].flatMap(({ key, values: [value] }) =>
      value && value[0] ? [[key[0], value[0]]] : [],
    );
    expect(counts).toEqual([
      [6, 2],
      [17, 1],
    ]);
  });
});
