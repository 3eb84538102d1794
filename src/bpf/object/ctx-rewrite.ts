/**
 * Turns accesses of `struct xdp_md` into accesses of what the kernel really passes, `struct xdp_buff`.
 *
 * Reference: xdp_is_valid_access and xdp_convert_ctx_access in net/core/filter.c, convert_ctx_accesses
 * in kernel/bpf/verifier.c. A tracing program's context is its array of u64 arguments and stays as it
 * is; only the form of the access is checked (btf_ctx_access), and so it is for struct pt_regs of probes. Left out: struct __sk_buff.
 *
 *   xdp_md: data 0, data_end 4, data_meta 8, ingress_ifindex 12, rx_queue_index 16, egress_ifindex 20
 */
import { KernelError } from '../../common/errors.js';
import { makeSlot, type Slot } from '../instruction.js';
import { OPCODES } from '../opcodes.js';
import { isPtRegsAccess } from '../pt-regs.js';
import { NET_DEVICE, XDP_BUFF, XDP_RXQ_INFO } from '../xdp-buff.js';
import type { FunctionFlow } from './data-flow.js';
import type { LinkedFunction } from './link.js';
import { describePlace } from './place.js';
import type { ProgramSpec } from './spec.js';

/** Load of a u64 (0x79) or u32 (0x61). */
const LDX_DW = 0x79;
const LDX_W = 0x61;

/** Pointer to `struct net_device` in xdp_txq_info. */
const XDP_TXQ_INFO_DEV = 0;

/** Entries of the argument array that a program may read, the return value included (MAX_BPF_FUNC_ARGS). */
const MAX_TRACED_SLOTS = 12;

interface Step {
  readonly code: number;
  readonly offset: number;
}

/** The loads that an xdp_md field becomes: the first through the context, the others through dst. */
const XDP_MD: ReadonlyMap<number, readonly Step[]> = new Map([
  [0, [{ code: LDX_DW, offset: XDP_BUFF.data }]],
  [4, [{ code: LDX_DW, offset: XDP_BUFF.dataEnd }]],
  [8, [{ code: LDX_DW, offset: XDP_BUFF.dataMeta }]],
  [
    12,
    [
      { code: LDX_DW, offset: XDP_BUFF.rxq },
      { code: LDX_DW, offset: XDP_RXQ_INFO.dev },
      { code: LDX_W, offset: NET_DEVICE.ifindex },
    ],
  ],
  [
    16,
    [
      { code: LDX_DW, offset: XDP_BUFF.rxq },
      { code: LDX_W, offset: XDP_RXQ_INFO.queueIndex },
    ],
  ],
  [
    20,
    [
      { code: LDX_DW, offset: XDP_BUFF.txq },
      { code: LDX_DW, offset: XDP_TXQ_INFO_DEV },
      { code: LDX_W, offset: NET_DEVICE.ifindex },
    ],
  ],
]);

const EGRESS_IFINDEX = 20;

/** What replaces the context accesses of one function, by slot. Throws KernelError for wrong ones. */
export function rewriteContext(
  program: ProgramSpec,
  linked: LinkedFunction,
  flow: FunctionFlow,
): Map<number, readonly Slot[]> {
  const replacements = new Map<number, readonly Slot[]>();
  for (const [at, access] of flow.contextAccesses) {
    const slot = linked.slots[at] as Slot;
    const where = describePlace(program, linked.spec, at);
    if (access === 'moved') {
      throw new KernelError('EACCES', `dereference of modified ctx ptr disallowed: ${where}`);
    }
    if (access === 'conflict') {
      throw new KernelError('EINVAL', `same insn cannot be used with different pointers: ${where}`);
    }
    const opcode = OPCODES[slot.code];
    const size = opcode && 'size' in opcode ? opcode.size : 0;
    const invalid = new KernelError(
      'EACCES',
      `invalid bpf_context access off=${slot.off} size=${size}: ${where}`,
    );
    if (opcode?.kind !== 'load' || opcode.signed || opcode.probe) throw invalid;
    switch (program.kind) {
      case 'xdp': {
        const steps = XDP_MD.get(slot.off);
        const needsDevmap = slot.off === EGRESS_IFINDEX && program.xdpAttach !== 'devmap';
        if (!steps || size !== 4 || needsDevmap) throw invalid;
        const loads = steps.map(({ code, offset }, i) =>
          makeSlot(code, { dst: slot.dst, src: i === 0 ? slot.src : slot.dst, off: offset }),
        );
        replacements.set(at, loads);
        break;
      }
      case 'fentry':
      case 'fexit':
      case 'fmod_ret':
      case 'fsession':
      case 'lsm':
      case 'lsm_cgroup':
      case 'struct_ops':
        if (slot.off < 0 || slot.off >= 8 * MAX_TRACED_SLOTS || slot.off % 8 !== 0) throw invalid;
        break;
      case 'kprobe':
      case 'kretprobe':
      case 'kprobe_multi':
      case 'kretprobe_multi':
        if (!isPtRegsAccess(slot.off, size)) throw invalid;
        break;
      case 'tc':
      case 'socket':
        throw new KernelError('EINVAL', `struct __sk_buff is not supported: ${where}`);
      case 'freplace':
      case 'unsupported':
        throw invalid;
    }
  }
  return replacements;
}

/** Bytes of the argument array that a tracing program reads: the traced function must have them. */
export function contextBytes(
  functions: readonly LinkedFunction[],
  flows: readonly FunctionFlow[],
): number {
  let bytes = 0;
  for (const [i, { slots }] of functions.entries()) {
    for (const at of flows[i]?.contextAccesses.keys() ?? []) {
      bytes = Math.max(bytes, (slots[at]?.off ?? 0) + 8);
    }
  }
  return bytes;
}
