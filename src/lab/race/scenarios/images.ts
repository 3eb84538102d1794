/** Trampoline images and programs at their end: bpf_trampoline_unlink_prog, bpf_tramp_image_put. */
import { InputError } from '../../../common/errors.js';
import type { Trampoline } from '../../../jit/trampoline.js';
import type { Attachment } from '../../../kernel/bpf/bpf.js';
import type { Kernel } from '../../../kernel/kernel.js';
import type { NameTable } from '../names.js';
import type { PatchPlan } from '../plan.js';
import { without, withoutWaits, type Scenario } from '../scenario.js';
import {
  callOf,
  loadReturning,
  siteIsOff,
  TARGET,
  traced,
  trampolineClobbers,
  TRAMPOLINE_KERNELS,
} from './parts.js';

/** The fields of the image's descriptor that calls and their end touch. */
function nameImage(kernel: Kernel, names: NameTable, { trampoline }: Attachment): void {
  const { pcref, size } = kernel.bpf.profile.trampImage;
  const descriptor = trampoline.image?.descriptor ?? 0n;
  names.addBlock('bpf_tramp_image.pcref', descriptor + BigInt(pcref), 8);
  names.addBlock('bpf_tramp_image', descriptor, size);
  names.collect();
}

/**
 * From the NOP behind the original to the lock that __bpf_prog_enter_recur takes: a few instructions in which a
 * preempted task holds up no grace period of RCU, so that its program may be freed. Here it does.
 */
function behindOriginal(
  kernel: Kernel,
  { base, ipAfterCall = 0, ipEpilogue = 0 }: Trampoline,
): NonNullable<PatchPlan['readers']> {
  const enter = kernel.symbols.get('__bpf_prog_enter_recur');
  return [
    { start: base + BigInt(ipAfterCall) + 4n, end: base + BigInt(ipEpilogue) },
    { start: enter.address, end: enter.address + BigInt(enter.size) },
  ];
}

const SLEEPER = 'lab_sleeper';

export const imageFree: Scenario = {
  name: 'image_free',
  runs: TRAMPOLINE_KERNELS,
  summary: 'the only fentry program is detached and freed: bl image -> NOP, grace periods, BRK',
  prepare: (kernel, names) => {
    const program = loadReturning(kernel, 'watcher');
    const attached = kernel.bpf.attach(program, 'fentry', TARGET);
    nameImage(kernel, names, attached);
    return {
      operation: () => {
        attached.detach();
        program.free();
      },
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
      summary: 'the image is freed right after the text poke',
      breaks: ['I7', 'I2'],
      change: (plan) => withoutWaits(plan),
    },
    {
      name: 'no-tasks',
      summary: 'no RCU tasks grace period: a CPU may be preempted in the image',
      breaks: ['I7', 'I2'],
      change: (plan) => withoutWaits(plan, 'tasks'),
    },
    {
      name: 'no-site-sync',
      summary: 'no cache maintenance of the site: the BL to the image may be fetched for ever',
      breaks: ['I7', 'I2'],
      change: (plan) => {
        const site = plan.call.entry + 4n;
        return without(plan, (step) => step.kind === 'sync' && step.start === site);
      },
    },
  ],
};

export const fexitSleep: Scenario = {
  name: 'fexit_sleep',
  runs: TRAMPOLINE_KERNELS,
  summary: 'an fexit program is detached and freed while a task sleeps in the original',
  prepare: (kernel, names) => {
    const program = loadReturning(kernel, 'watcher');
    const attached = kernel.bpf.attach(program, 'fexit', SLEEPER);
    nameImage(kernel, names, attached);
    const code = attached.trampoline.image?.code;
    if (!code) throw new InputError('an attached program without an image');
    return {
      operation: () => {
        attached.detach();
        program.free();
      },
      plan: (steps) => ({
        steps,
        call: { ...callOf(kernel, SLEEPER), clobbers: trampolineClobbers(kernel) },
        final: siteIsOff(kernel, SLEEPER),
        readers: behindOriginal(kernel, code),
      }),
    };
  },
  breaks: [
    {
      name: 'no-reference',
      summary: 'no percpu_ref: RCU tasks does not wait for who sleeps in the original',
      breaks: ['I7', 'I2'],
      change: (plan) => without(plan, ({ kind }) => kind === 'drain'),
    },
    {
      name: 'preempted-behind-nop',
      summary:
        'a task may be preempted between the NOP behind the original and the RCU lock of the program',
      breaks: ['I7'],
      change: (plan) => ({ ...plan, readers: [] }),
    },
    {
      name: 'no-skip',
      summary: 'the NOP behind the original stays: a call that comes back starts a freed program',
      breaks: ['I7', 'I2', 'I3'],
      change: (plan) => {
        const site = plan.call.entry + 4n;
        return without(plan, (step) => {
          return step.kind === 'store' && step.as === 'instruction' && step.address !== site;
        });
      },
    },
    {
      name: 'no-tasks',
      summary:
        'no RCU tasks grace period around the reference: a CPU is in front of tramp_enter or behind tramp_exit',
      breaks: ['I7', 'I2'],
      change: (plan) => withoutWaits(plan, 'tasks'),
    },
  ],
};
