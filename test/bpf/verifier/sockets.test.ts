import { describe, expect, it } from 'vitest';
import { helperTable } from '../../../src/bpf/helpers/table.js';
import { PROTOTYPES, XDP_HELPERS } from '../../../src/bpf/verifier/prototypes.js';
import { verdict } from './program-text.js';

/** A look-up by helper `id`, with R6 the context before and R7 the socket, not NULL, after. */
const lookUp = (id: number): string => `
  r6 = r1
  *(u64 *)(r10 -16) = 0
  *(u64 *)(r10 -8) = 0
  r2 = r10
  r2 += -16
  r3 = 12
  r4 = -1
  r5 = 0
  call ${id}
  if r0 != 0 goto found
  exit
found:
  r7 = r0`;

const SOCK = lookUp(84);
const COMMON = lookUp(99);
const END = '\nr1 = r7\ncall 86\nr0 = 0\nexit';
const NAMES = 'sock_common, sock, tcp_sock, xdp_sock, ptr_, trusted_ptr_';

describe('sockets', () => {
  it.each([
    ['released', `${SOCK}${END}`, 'accepted'],
    [
      'not released',
      `${SOCK}\nr0 = 0\nexit`,
      'EINVAL Unreleased reference id=1 alloc_insn=8; BPF_EXIT instruction in main prog would lead to reference leak',
    ],
    [
      'released twice',
      `${SOCK}\nr1 = r7\ncall 86\nr1 = r7\ncall 86\nexit`,
      `EACCES R1 type=scalar expected=${NAMES}`,
    ],
    [
      'used after that',
      `${SOCK}\nr1 = r7\ncall 86\nr0 = *(u32 *)(r7 +4)\nexit`,
      "EACCES R7 invalid mem access 'scalar'",
    ],
    [
      'not checked',
      `${lookUp(84).replace('if r0 != 0 goto found\n  exit\nfound:', '')}\nr0 = *(u32 *)(r7 +4)\nexit`,
      "EACCES R7 invalid mem access 'sock_or_null'",
    ],
    ['moved', `${SOCK}\nr7 += 8${END}`, 'EACCES R7 pointer arithmetic on sock prohibited'],
    ['written', `${SOCK}\n*(u32 *)(r7 +16) = 1${END}`, 'EACCES R7 cannot write into sock'],
    [
      'added to',
      `${SOCK}\nr1 = 1\nlock *(u32 *)(r7 +16) += r1${END}`,
      'EACCES BPF_ATOMIC stores into R7 sock is not allowed',
    ],
    [
      'as memory',
      `${SOCK}\nr1 = r7\nr2 = 4\nr3 = r10\nr3 += -8\nr4 = 0\ncall 105${END}`,
      'EACCES R1 type=sock expected=fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_',
    ],
    [
      'the context for one',
      `${SOCK}\nr1 = r6\ncall 86\nexit`,
      `EACCES R1 type=ctx expected=${NAMES}`,
    ],
    ['of any state', `${COMMON}${END}`, 'accepted'],
  ])('%s', (_what, program, expected) => {
    expect(verdict(program)).toBe(expected);
  });

  // offset, and which sizes of 1, 2, 4, 8 can be read there; of all sockets too, or of full ones only
  it.each([
    ['bound_dev_if', 0, [4], true],
    ['inside bound_dev_if', 2, [], true],
    ['family', 4, [1, 2, 4], true],
    ['type', 8, [1, 2, 4], false],
    ['protocol', 12, [1, 2, 4], false],
    ['mark', 16, [4], false],
    ['priority', 20, [4], false],
    ['inside family', 6, [], true],
    ['src_ip4', 24, [1, 2, 4], true],
    ['inside src_ip4', 25, [1], true],
    ['src_ip6', 40, [1, 2, 4], true],
    ['src_port', 44, [1, 2, 4], true],
    ['inside src_port', 46, [], true],
    ['dst_port', 48, [1, 2, 4], true],
    ['inside dst_port', 49, [1], true],
    ['padding', 50, [], true],
    ['dst_ip4', 52, [1, 2, 4], true],
    ['dst_ip6', 58, [1, 2], true],
    ['state', 72, [1, 2, 4], true],
    ['inside state', 73, [], true],
    ['rx_queue_mapping', 76, [1, 2, 4], true],
    ['behind the end', 80, [], true],
  ])('field %s', (_name, off, sizes, common) => {
    const kinds = [
      [SOCK, 'sock', sizes],
      [COMMON, 'sock_common', common ? sizes : []],
    ] as const;
    for (const [program, type, allowed] of kinds) {
      for (const size of [1, 2, 4, 8]) {
        const read = `${program}\nr0 = *(u${8 * size} *)(r7 +${off})${END}`;
        expect(`${size} ${verdict(read)}`).toBe(
          allowed.includes(size)
            ? `${size} accepted`
            : `${size} EACCES R7 invalid ${type} access off=${off} size=${size}`,
        );
      }
    }
  });
});

describe('helpers of XDP programs', () => {
  /** The table of the specification: all of it is there, with a body, and allowed. */
  // prettier-ignore
  const IDS = [
    1, 2, 3, 5, 6, 7, 8, 12, 14, 23, 25, 28, 42, 44, 51, 54, 65, 69, 84, 85, 86, 87, 88, 89, 93, 94,
    99, 100, 105, 106, 110, 118, 125, 130, 131, 132, 133, 134, 160, 163, 164, 169, 170, 171, 172,
    181, 182, 188, 189, 190, 195, 204, 205, 206, 207, 208,
  ];
  const bodies = helperTable();

  it.each(IDS)('%i', (id) => {
    expect(XDP_HELPERS.has(id)).toBe(true);
    expect(PROTOTYPES.get(id)?.kinds?.includes('xdp') ?? true).toBe(true);
    // a tail call is an instruction
    expect(bodies.has(id) || id === 12).toBe(true);
  });

  it('have as many arguments in the table as for the verifier, and the same license', () => {
    const differences = [...bodies.values()].filter(
      ({ id, arguments: wanted, gplOnly = false }) => {
        const prototype = PROTOTYPES.get(id);
        // bpf_trace_printk: the verifier looks at the format only
        if (id === 6) return false;
        return prototype?.arguments.length !== wanted.length || prototype.gplOnly !== gplOnly;
      },
    );
    expect(differences.map(({ id, name }) => `${id} ${name}`)).toEqual([]);
  });

  it.each([
    [0, 'program of this type cannot use helper bpf_unspec#0'],
    [4, 'program of this type cannot use helper bpf_probe_read#4'],
    [9, 'program of this type cannot use helper bpf_skb_store_bytes#9'],
    [16, 'program of this type cannot use helper bpf_get_current_comm#16'],
    [95, 'program of this type cannot use helper bpf_sk_fullsock#95'],
    [96, 'program of this type cannot use helper bpf_tcp_sock#96'],
    [209, 'unknown func bpf_user_ringbuf_drain#209'],
    [212, 'invalid func unknown#212'],
  ])('not %i', (id, why) => {
    expect(verdict(`call ${id}\nexit`)).toBe(`EINVAL ${why}`);
  });
});
