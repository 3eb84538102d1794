/**
 * The structures that programs can implement here: TCP congestion control, and the kernel's dummy for tests.
 *
 * Reference: net/ipv4/bpf_tcp_ca.c, net/ipv4/tcp_cong.c: tcp_register_congestion_control; net/ipv4/tcp_input.c:
 * tcp_init_cwnd_reduction, tcp_cong_avoid; net/bpf/bpf_dummy_struct_ops.c. Struct sock is the lab's own
 * (`bpf/socket.ts`). Left out: everything else of TCP.
 */
import { SOCK } from '../../bpf/socket.js';
import { KernelError } from '../../common/errors.js';
import { call, type KernelFunction } from '../function.js';
import type { Kernel } from '../kernel.js';
import type { StructOpsType } from './struct-ops.js';

const TCP_CA_NAME_MAX = 16;
const TCP_CONG_NON_RESTRICTED = 1;

/** struct tcp_congestion_ops, the members that are here. */
export const TCP_CONGESTION_OPS = {
  ssthresh: 0,
  cong_avoid: 8,
  undo_cwnd: 64,
  name: 88,
  flags: 132,
  init: 136,
  size: 192,
} as const;

/** What of the lab's struct sock these functions need. */
export const TCP_SOCK = {
  icsk_ca_ops: SOCK.icskCaOps,
  snd_cwnd: SOCK.sndCwnd,
  snd_ssthresh: SOCK.sndSsthresh,
  size: SOCK.size,
} as const;

/** struct bpf_dummy_ops_state */
export const DUMMY_STATE = { val: 0, size: 4 } as const;

function tcpCongestionOps(kernel: Kernel, registered: Map<string, bigint>): StructOpsType {
  const pointer = (ops: bigint, offset: number): bigint =>
    kernel.memory.read64(ops + BigInt(offset));
  const nameOf = (ops: bigint): string => {
    const bytes = kernel.memory.readBytes(ops + BigInt(TCP_CONGESTION_OPS.name), TCP_CA_NAME_MAX);
    const end = bytes.indexOf(0);
    return String.fromCharCode(...bytes.subarray(0, end < 0 ? bytes.length : end));
  };
  return {
    name: 'tcp_congestion_ops',
    size: TCP_CONGESTION_OPS.size,
    members: {
      ssthresh: { offset: TCP_CONGESTION_OPS.ssthresh, prototype: 'u32 ssthresh(struct sock *sk)' },
      cong_avoid: {
        offset: TCP_CONGESTION_OPS.cong_avoid,
        prototype: 'void cong_avoid(struct sock *sk, u32 ack, u32 acked)',
      },
      undo_cwnd: {
        offset: TCP_CONGESTION_OPS.undo_cwnd,
        prototype: 'u32 undo_cwnd(struct sock *sk)',
      },
      init: { offset: TCP_CONGESTION_OPS.init, prototype: 'void init(struct sock *sk)' },
    },
    data: {
      flags: ['u32', TCP_CONGESTION_OPS.flags],
      name: ['char[16]', TCP_CONGESTION_OPS.name],
    },
    reg: (ops) => {
      const name = nameOf(ops);
      const { ssthresh, undo_cwnd, cong_avoid, flags } = TCP_CONGESTION_OPS;
      if ([ssthresh, undo_cwnd, cong_avoid].some((offset) => pointer(ops, offset) === 0n)) {
        throw new KernelError('EINVAL', `${name} does not implement required ops`);
      }
      if (registered.has(name)) {
        throw new KernelError('EEXIST', `${name} already registered or non-unique key`);
      }
      kernel.memory.write32(ops + BigInt(flags), TCP_CONG_NON_RESTRICTED);
      registered.set(name, ops);
    },
    unreg: (ops) => {
      registered.delete(nameOf(ops));
    },
  };
}

const DUMMY_OPS: StructOpsType = {
  name: 'bpf_dummy_ops',
  size: 24,
  members: {
    test_1: { offset: 0, prototype: 'int test_1(struct bpf_dummy_ops_state *cb__nullable)' },
    test_2: {
      offset: 8,
      prototype:
        'int test_2(struct bpf_dummy_ops_state *cb, int a1, unsigned short a2, char a3, unsigned long a4)',
    },
    test_sleepable: {
      offset: 16,
      prototype: 'int test_sleepable(struct bpf_dummy_ops_state *cb)',
      sleepable: true,
    },
  },
  data: {},
  reg: () => {
    throw new KernelError('EOPNOTSUPP', 'bpf_dummy_ops cannot be registered, only run in tests');
  },
  unreg: () => undefined,
};

/** Who calls into a congestion control: a socket's ops are at `sk->icsk_ca_ops`. */
function tcpFunctions(): KernelFunction[] {
  const at = (sk: bigint, offset: number): bigint => sk + BigInt(offset);
  const { icsk_ca_ops, snd_ssthresh } = TCP_SOCK;
  return [
    {
      name: 'tcp_init_congestion_control',
      prototype: 'void tcp_init_congestion_control(struct sock *sk)',
      parameters: 1,
      *body({ memory }, sk = 0n) {
        const ops = memory.read64(at(sk, icsk_ca_ops));
        const init = memory.read64(ops + BigInt(TCP_CONGESTION_OPS.init));
        if (init !== 0n) yield* call(init, sk);
      },
    },
    {
      name: 'tcp_init_cwnd_reduction',
      prototype: 'void tcp_init_cwnd_reduction(struct sock *sk)',
      parameters: 1,
      *body({ memory }, sk = 0n) {
        const ops = memory.read64(at(sk, icsk_ca_ops));
        const ssthresh = memory.read64(ops + BigInt(TCP_CONGESTION_OPS.ssthresh));
        const value = yield* call(ssthresh, sk);
        memory.write32(at(sk, snd_ssthresh), Number(value & 0xffff_ffffn));
      },
    },
    {
      name: 'tcp_cong_avoid',
      prototype: 'void tcp_cong_avoid(struct sock *sk, u32 ack, u32 acked)',
      parameters: 3,
      *body({ memory }, sk = 0n, ack = 0n, acked = 0n) {
        const ops = memory.read64(at(sk, icsk_ca_ops));
        yield* call(memory.read64(ops + BigInt(TCP_CONGESTION_OPS.cong_avoid)), sk, ack, acked);
      },
    },
  ];
}

/** Congestion controls by name: tcp_ca_find. */
export type CongestionControls = ReadonlyMap<string, bigint>;

/** Adds both structures and the functions that call into them. */
export function defineStructOps(kernel: Kernel): CongestionControls {
  const registered = new Map<string, bigint>();
  kernel.bpf.host.types.declare((builder) => {
    if (builder.has('struct bpf_dummy_ops_state')) return;
    builder.struct('bpf_dummy_ops_state', DUMMY_STATE.size, { val: ['int', DUMMY_STATE.val] });
  });
  kernel.bpf.structOps.define(tcpCongestionOps(kernel, registered));
  kernel.bpf.structOps.define(DUMMY_OPS);
  kernel.define(...tcpFunctions());
  return registered;
}
