/**
 * Which program type a section name stands for.
 *
 * Reference: section_defs of libbpf (tools/lib/bpf/libbpf.c). Older names such as `xdp_firewall` and
 * `classifier` are accepted too. A name that matches no row makes an `unsupported` program: the object
 * parses, loading that program is refused.
 */
import type { ProgramSpec, SectionKind } from './spec.js';

type Attachment = Pick<ProgramSpec, 'kind' | 'attachTarget' | 'frags' | 'sleepable' | 'xdpAttach'>;

interface SectionRow {
  readonly pattern: RegExp;
  readonly kind: SectionKind;
}

// named groups: frags, attach (devmap, cpumap), sleepable, target
const SECTIONS: readonly SectionRow[] = [
  { pattern: /^xdp(?<frags>\.frags)?\/(?<attach>devmap|cpumap)$/, kind: 'xdp' },
  { pattern: /^xdp(?<frags>\.frags)?$/, kind: 'xdp' },
  { pattern: /^xdp(?<frags>\.frags)?[_/].*$/, kind: 'xdp' },
  { pattern: /^fentry(?<sleepable>\.s)?(\/(?<target>.+))?$/, kind: 'fentry' },
  { pattern: /^fexit(?<sleepable>\.s)?(\/(?<target>.+))?$/, kind: 'fexit' },
  { pattern: /^fmod_ret(?<sleepable>\.s)?(\/(?<target>.+))?$/, kind: 'fmod_ret' },
  { pattern: /^fsession(?<sleepable>\.s)?(\/(?<target>.+))?$/, kind: 'fsession' },
  { pattern: /^lsm_cgroup\/(?<target>.+)$/, kind: 'lsm_cgroup' },
  { pattern: /^lsm(?<sleepable>\.s)?\/(?<target>.+)$/, kind: 'lsm' },
  { pattern: /^struct_ops(?<sleepable>\.s)?(\/(?<target>.+))?$/, kind: 'struct_ops' },
  { pattern: /^freplace(\/(?<target>.+))?$/, kind: 'freplace' },
  { pattern: /^kprobe(\/(?<target>.+))?$/, kind: 'kprobe' },
  { pattern: /^kretprobe(\/(?<target>.+))?$/, kind: 'kretprobe' },
  { pattern: /^kprobe\.multi(\/(?<target>.+))?$/, kind: 'kprobe_multi' },
  { pattern: /^kretprobe\.multi(\/(?<target>.+))?$/, kind: 'kretprobe_multi' },
  { pattern: /^(tc|tcx|classifier|action)(\/.*)?$/, kind: 'tc' },
  { pattern: /^socket(\/.*)?$/, kind: 'socket' },
];

/** A `?` in front leaves loading to the caller, as everything here does. */
export function attachmentOf(section: string): Attachment {
  const name = section.replace(/^\?/, '');
  for (const { pattern, kind } of SECTIONS) {
    const match = pattern.exec(name);
    if (!match) continue;
    const { frags, attach, sleepable, target } = match.groups ?? {};
    return {
      kind,
      frags: frags !== undefined,
      sleepable: sleepable !== undefined,
      xdpAttach: attach === 'devmap' || attach === 'cpumap' ? attach : 'device',
      ...(target === undefined ? {} : { attachTarget: target }),
    };
  }
  return { kind: 'unsupported', frags: false, sleepable: false, xdpAttach: 'device' };
}
