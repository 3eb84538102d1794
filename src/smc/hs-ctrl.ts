/**
 * struct smc_hs_ctrl: BPF programs that decide whether a SYN and a SYN-ACK have the SMC option.
 *
 * Reference: net/smc/smc_hs_bpf.c (since 6.19): registered by name, chosen per namespace by net.smc.hs_ctrl.
 */
import { KernelError } from '../common/errors.js';
import type { StructOpsType } from '../kernel/bpf/struct-ops.js';
import type { Kernel } from '../kernel/kernel.js';
import { SMC_HS_CTRL } from './structs.js';

const NAME_MAX = 16;

export function hsCtrlType(
  kernel: Kernel,
  registered: Map<string, bigint>,
  onUnregister: (address: bigint) => void,
): StructOpsType {
  const nameOf = (address: bigint): string => {
    const bytes = kernel.memory.readBytes(address + BigInt(SMC_HS_CTRL.name), NAME_MAX);
    const end = bytes.indexOf(0);
    return new TextDecoder().decode(bytes.subarray(0, end < 0 ? NAME_MAX : end));
  };
  return {
    name: 'smc_hs_ctrl',
    size: SMC_HS_CTRL.size,
    members: {
      syn_option: {
        offset: SMC_HS_CTRL.syn_option,
        prototype: 'int syn_option(struct tcp_sock *tp)',
      },
      synack_option: {
        offset: SMC_HS_CTRL.synack_option,
        prototype: 'int synack_option(const struct tcp_sock *tp, struct inet_request_sock *ireq)',
      },
    },
    data: { flags: ['int', SMC_HS_CTRL.flags], name: ['char[16]', SMC_HS_CTRL.name] },
    reg: (address) => {
      const name = nameOf(address);
      if (name === '') throw new KernelError('EINVAL', 'a handshake policy needs a name');
      if (registered.has(name)) throw new KernelError('EEXIST', `${name} is registered already`);
      registered.set(name, address);
    },
    unreg: (address) => {
      onUnregister(address);
      registered.delete(nameOf(address));
    },
  };
}
