/** A module with an ftrace callback goes: its ops is unregistered, then its text and data are unmapped. */
import { encode } from '../../../a64/codec.js';
import { PAGE_SIZE } from '../../../cpu/memory.js';
import { storeText } from '../plan.js';
import { without, withoutWaits, type Scenario } from '../scenario.js';
import { siteIsOff, siteOf, TARGET, traced, tracerOf } from './parts.js';

const CALLBACK = [encode('BTI', { targets: 1 }), encode('RET', { Rn: 30 })];

export const moduleUnload: Scenario = {
  name: 'module_unload',
  summary:
    'delete_module: the ops of a module is unregistered, then its callback and its data are unmapped',
  prepare: (kernel, names) => {
    const page = BigInt(PAGE_SIZE);
    const address = kernel.vmalloc.take(2n * page, page);
    const text = kernel.memory.map({
      name: 'text of the module',
      address,
      size: 64,
      permissions: 'rx',
    });
    const data = kernel.memory.map({
      name: 'data of the module',
      address: address + page,
      size: kernel.ftrace.profile.ops.size,
      permissions: 'rw',
    });
    const code = storeText(address, CALLBACK, 'callback');
    if (code.kind === 'store') kernel.memory.pokeBytes(address, code.bytes);
    names.addBlock('text of the module', address, text.size);
    const ops = kernel.ftrace.createOps('module_ops', data.address, address);
    kernel.ftrace.setFilterIp(ops, siteOf(kernel, TARGET), false);
    names.addOps(ops);
    kernel.ftrace.register(ops);
    const tracer = tracerOf(ops);
    return {
      operation: () => {
        kernel.ftrace.unregister(ops);
        kernel.memory.unmap(text);
        kernel.memory.unmap(data);
      },
      plan: (steps) => ({
        steps,
        ...traced(kernel, [tracer]),
        callbacks: new Map([[address, 'the module callback']]),
        final: siteIsOff(kernel, TARGET),
      }),
    };
  },
  breaks: [
    {
      name: 'no-grace-period',
      summary: 'the module is unmapped as soon as its ops is unregistered',
      breaks: ['I2', 'I3'],
      change: (plan) => withoutWaits(plan),
    },
    {
      name: 'never-unregistered',
      summary: 'the module forgets to unregister its ops',
      breaks: ['I2', 'I3', 'I11'],
      change: (plan) => without({ ...plan, final: [] }, ({ kind }) => kind !== 'free'),
    },
  ],
};
