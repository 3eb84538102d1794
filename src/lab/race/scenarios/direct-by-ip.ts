/**
 * The direct-call API by ip (register_ftrace_direct(ip, addr), gone since 6.4) on the arm64 that had it: the site
 * becomes a BL to the target and a NOP again, then the target is freed.
 *
 * Left out: ordinary ops beside it, for which call_direct_funcs looks the target up in direct_functions; here
 * that is no kernel memory.
 */
import { moveRegisterWord } from '../../../jit/poke.js';
import { encode } from '../../../a64/codec.js';
import { PAGE_SIZE } from '../../../cpu/memory.js';
import { takeModule } from '../../../kernel/layout/address-space.js';
import { storeText } from '../plan.js';
import { withoutWaits, type Scenario } from '../scenario.js';
import { siteIsOff, siteOf, TARGET, traced } from './parts.js';

/** As ftrace_stub_direct_tramp. */
const TRAMPOLINE = [
  moveRegisterWord(10, 30),
  moveRegisterWord(30, 9),
  encode('RET', { Rn: 10 }),
] as const;

export const directByIp: Scenario = {
  name: 'direct_by_ip',
  runs: {
    kernels: ['v5', 'sep-2022'],
    elsewhere: 'arm64 has register_ftrace_direct(ip, addr) only in proposals',
  },
  summary: 'a direct call by ip comes and goes: NOP -> bl target -> NOP; the target is freed',
  prepare: (kernel, names) => {
    const site = siteOf(kernel, TARGET);
    const target = kernel.memory.map({
      name: 'the target',
      address: takeModule(kernel.layout, kernel.vmalloc, PAGE_SIZE),
      size: PAGE_SIZE,
      permissions: 'rx',
    });
    const code = storeText(target.address, TRAMPOLINE, 'target');
    if (code.kind === 'store') kernel.memory.pokeBytes(target.address, code.bytes);
    names.addBlock('the target', target.address, target.size);
    return {
      operation: () => {
        kernel.directCallsByIp.register(site, target.address);
        kernel.directCallsByIp.unregister(site);
        kernel.rcu.synchronize('tasks');
        kernel.memory.unmap(target);
      },
      roots: kernel.ftrace.profile.callOps ? [] : [kernel.symbol('function_trace_op')],
      plan: (steps) => ({
        steps,
        ...traced(kernel, [], 'trampoline'),
        final: siteIsOff(kernel, TARGET),
      }),
    };
  },
  breaks: [
    {
      name: 'no-grace-period',
      summary: 'the target is freed as soon as the site is a NOP',
      breaks: ['I2'],
      change: (plan) => withoutWaits(plan),
    },
  ],
};
