/**
 * The BTF of this kernel: what CO-RE relocations of programs are resolved against.
 *
 * It says the truth about memory here: the structs that models keep in kernel memory, at the offsets
 * where they keep them (`offsets.ts`, `profile.ts`, `xdp-buff.ts`), and the types that programs share with every
 * kernel; and its functions, as their prototypes say. Floors above declare their structs with `declare`. Left
 * out: per-CPU variables, structs that are only pointed to.
 *
 * Usage:
 *   kernel.bpf.host.types.declare((builder) => builder.struct('pair', 8, { a: ['u32', 0] }));
 */
import { BtfBuilder } from '../../bpf/btf/builder.js';
import type { Btf } from '../../bpf/btf/btf.js';
import { declareUapiTypes } from '../../bpf/btf/uapi-types.js';
import { declareKfuncTypes } from '../../bpf/kfuncs/types.js';
import { SOCK } from '../../bpf/socket.js';
import { NET_DEVICE, XDP_BUFF, XDP_RXQ_INFO } from '../../bpf/xdp-buff.js';
import { FTRACE_PROFILES } from '../ftrace/profile.js';
import { FTRACE_OPS, FTRACE_REGS, TASK_STRUCT } from '../offsets.js';
import type { Prototype } from '../prototype.js';
import { declareTestTypes } from '../test-types.js';
import type { BpfProfile } from './profile.js';

export type TypeDeclarations = (builder: BtfBuilder) => void;

export class KernelTypes {
  readonly #declarations = new Set<TypeDeclarations>();
  readonly #profile: BpfProfile;
  readonly #functions: ReadonlyMap<bigint, Prototype>;
  #btf: Btf | undefined;
  /** Functions that are in it. */
  #known = 0;

  /** @param functions prototypes of kernel functions; more may come later. Default none. */
  constructor(profile: BpfProfile, functions: ReadonlyMap<bigint, Prototype> = new Map()) {
    this.#profile = profile;
    this.#functions = functions;
  }

  /** Adds types of a subsystem. The same declarations count once. */
  declare(declarations: TypeDeclarations): void {
    this.#declarations.add(declarations);
    this.#btf = undefined;
  }

  get btf(): Btf {
    if (this.#btf && this.#known === this.#functions.size) return this.#btf;
    const builder = declareKfuncTypes(declareUapiTypes(new BtfBuilder()));
    for (const declare of this.#declarations) declare(builder);
    declareKernelTypes(builder, this.#profile);
    declareTestTypes(builder);
    for (const prototype of this.#functions.values()) declareFunction(builder, prototype);
    this.#known = this.#functions.size;
    return (this.#btf = builder.build());
  }
}

function declareFunction(builder: BtfBuilder, { name, returnType, parameters }: Prototype): void {
  for (const { type, size, struct } of parameters) {
    const tag = type.replace('const ', '');
    if (struct && !builder.has(tag)) builder.struct(tag.replace('struct ', ''), size, {});
  }
  builder.func(
    name,
    returnType,
    parameters.map((parameter) => [parameter.name, parameter.type]),
  );
}

function declareSocketTypes(builder: BtfBuilder): void {
  builder
    .struct('sock_common', SOCK.commonSize, {
      skc_daddr: ['__be32', SOCK.daddr],
      skc_rcv_saddr: ['__be32', SOCK.rcvSaddr],
      skc_dport: ['__be16', SOCK.dport],
      skc_num: ['u16', SOCK.num],
      skc_family: ['unsigned short', SOCK.family],
      skc_state: ['unsigned char', SOCK.state],
      skc_bound_dev_if: ['int', SOCK.boundDevIf],
      skc_v6_daddr: ['struct in6_addr', SOCK.v6Daddr],
      skc_v6_rcv_saddr: ['struct in6_addr', SOCK.v6RcvSaddr],
      skc_rx_queue_mapping: ['unsigned short', SOCK.rxQueueMapping],
      skc_refcnt: ['int', SOCK.refcnt],
    })
    .struct('sock', SOCK.size, {
      __sk_common: ['struct sock_common', 0],
      sk_mark: ['u32', SOCK.mark],
      sk_priority: ['u32', SOCK.priority],
      sk_type: ['u16', SOCK.type],
      sk_protocol: ['u16', SOCK.protocol],
      icsk_ca_ops: ['struct tcp_congestion_ops *', SOCK.icskCaOps],
      snd_cwnd: ['u32', SOCK.sndCwnd],
      snd_ssthresh: ['u32', SOCK.sndSsthresh],
    });
}

function declareKernelTypes(builder: BtfBuilder, { bpfProg, version }: BpfProfile): void {
  const { ops } = FTRACE_PROFILES[version];
  declareSocketTypes(builder);
  builder
    .struct('xdp_buff', XDP_BUFF.size, {
      data: ['void *', XDP_BUFF.data],
      data_end: ['void *', XDP_BUFF.dataEnd],
      data_meta: ['void *', XDP_BUFF.dataMeta],
      data_hard_start: ['void *', XDP_BUFF.dataHardStart],
      rxq: ['struct xdp_rxq_info *', XDP_BUFF.rxq],
      txq: ['struct xdp_txq_info *', XDP_BUFF.txq],
      frame_sz: ['u32', XDP_BUFF.frameSize],
      flags: ['u32', XDP_BUFF.flags],
    })
    .struct('xdp_rxq_info', XDP_RXQ_INFO.size, {
      dev: ['struct net_device *', XDP_RXQ_INFO.dev],
      queue_index: ['u32', XDP_RXQ_INFO.queueIndex],
      reg_state: ['u32', XDP_RXQ_INFO.regState],
    })
    .struct('thread_info', TASK_STRUCT.cpu + 8, { cpu: ['u32', TASK_STRUCT.cpu] })
    .struct('task_struct', TASK_STRUCT.size, {
      thread_info: ['struct thread_info', 0],
      pid: ['pid_t', TASK_STRUCT.pid],
      rcu_read_lock_nesting: ['int', TASK_STRUCT.rcu_read_lock_nesting],
      migration_disabled: ['unsigned short', TASK_STRUCT.migration_disabled],
      trace_recursion: ['unsigned long', TASK_STRUCT.trace_recursion],
      bpf_ctx: ['struct bpf_run_ctx *', TASK_STRUCT.bpf_ctx],
    })
    .struct('bpf_prog', bpfProg.insnsi, {
      len: ['u32', bpfProg.len],
      jited_len: ['u32', bpfProg.jited_len],
      stats: ['struct bpf_prog_stats *', bpfProg.stats],
      active: ['int *', bpfProg.active],
      bpf_func: ['void *', bpfProg.bpf_func],
    })
    .struct('ftrace_ops', ops.size, {
      func: ['void *', FTRACE_OPS.func],
      next: ['struct ftrace_ops *', FTRACE_OPS.next],
      flags: ['unsigned long', FTRACE_OPS.flags],
      private: ['void *', FTRACE_OPS.private],
      saved_func: ['void *', FTRACE_OPS.saved_func],
      trampoline: ['unsigned long', ops.trampoline],
      ...(ops.direct_call === undefined ? {} : { direct_call: ['unsigned long', ops.direct_call] }),
    })
    .struct('__arch_ftrace_regs', FTRACE_REGS.size, {
      regs: ['unsigned long[9]', FTRACE_REGS.regs],
      direct_tramp: ['unsigned long', FTRACE_REGS.direct_tramp],
      fp: ['unsigned long', FTRACE_REGS.fp],
      lr: ['unsigned long', FTRACE_REGS.lr],
      sp: ['unsigned long', FTRACE_REGS.sp],
      pc: ['unsigned long', FTRACE_REGS.pc],
    });
  if (builder.has('struct net_device')) return;
  builder.struct('net_device', NET_DEVICE.size, { ifindex: ['int', NET_DEVICE.ifindex] });
}
