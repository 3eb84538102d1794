/**
 * A module with an ftrace callback goes: its exit function unregisters the ops, then its text and data are unmapped.
 *
 * The text is a module's (`kernel.unloadModule`); the lab's modules have no data, so the ops has a page of its own.
 */
import { PAGE_SIZE } from '../../../cpu/memory.js';
import { without, withoutWaits, type Scenario } from '../scenario.js';
import { OPS_KERNELS, siteIsOff, siteOf, TARGET, traced, tracerOf } from './parts.js';

const MODULE = {
  name: 'tracer',
  text: `
CODE tracer_callback
	hint #34
	ret
`,
};

export const moduleUnload: Scenario = {
  name: 'module_unload',
  runs: OPS_KERNELS,
  summary:
    'delete_module: the ops of a module is unregistered, then its callback and its data are unmapped',
  prepare: (kernel, names) => {
    const { text } = kernel.loadModule(MODULE);
    const callback = kernel.symbol('tracer_callback');
    const page = BigInt(PAGE_SIZE);
    const data = kernel.memory.map({
      name: 'data of the module',
      address: kernel.vmalloc.take(page, page),
      size: kernel.ftrace.profile.ops.size,
      permissions: 'rw',
    });
    names.addBlock('text of the module', text.address, text.size);
    const ops = kernel.ftrace.createOps('module_ops', data.address, callback);
    kernel.ftrace.setFilterIp(ops, siteOf(kernel, TARGET), false);
    names.addOps(ops);
    kernel.ftrace.register(ops);
    const tracer = tracerOf(ops);
    return {
      operation: () => {
        kernel.ftrace.unregister(ops);
        kernel.unloadModule(MODULE.name);
        kernel.memory.unmap(data);
      },
      plan: (steps) => ({
        steps,
        ...traced(kernel, [tracer]),
        callbacks: new Map([[callback, 'the module callback']]),
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
