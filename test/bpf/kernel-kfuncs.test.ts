/** Which kernel has which function for programs, modelled here or not. */
import { expect, it } from 'vitest';
import { hasKernelKfunc, kernelKfunc } from '../../src/bpf/kfuncs/kernel-kfuncs.js';
import type { SectionKind } from '../../src/bpf/object/spec.js';

const SINCE = [
  ['bpf_ct_release', true, true, true],
  ['bpf_crypto_encrypt', false, true, true],
  ['bpf_strcmp', false, false, true],
  ['vfs_read', false, false, false],
] as const;

it.each(SINCE)('%s', (name, ...has) => {
  expect((['6.1', '6.12', '7.3'] as const).map((version) => hasKernelKfunc(name, version))).toEqual(
    has,
  );
});

const KINDS: readonly (readonly [string, Partial<Record<SectionKind, boolean>>])[] = [
  ['bpf_wq_init', { xdp: true, socket: true, kprobe: true, fentry: true }],
  ['bpf_task_acquire', { xdp: true, tc: true, socket: false, kprobe: false, lsm: true }],
  ['bpf_cpumask_create', { xdp: false, fentry: true, struct_ops: true }],
  ['bpf_dynptr_from_skb', { xdp: false, tc: true, socket: true }],
  ['bpf_path_d_path', { xdp: false, fentry: false, lsm: true }],
];

it.each(KINDS)('%s', (name, kinds) => {
  const allowed = kernelKfunc(name)?.kinds ?? [];
  for (const [kind, expected] of Object.entries(kinds)) {
    expect([kind, (allowed as readonly string[]).includes(kind)]).toEqual([kind, expected]);
  }
});
