/**
 * What the sections of kprobe programs name: `kprobe/func+0x8`, `kretprobe/func`, `kprobe.multi/func*`.
 *
 * Reference: attach_kprobe, attach_kprobe_multi of libbpf. Left out: ksyscall, kprobe.session.
 */
import type { ProbeKind } from '../../bpf/object/spec.js';
import { InputError, KernelError } from '../../common/errors.js';
import type { Bpf, ProgramTarget } from './bpf.js';
import type { Link } from './probe-programs.js';
import type { KernelProgram } from './program.js';

// named groups: name, offset
const PLACE = /^(?<name>[a-zA-Z0-9_.]+)(\+(?<offset>0x[0-9a-f]+|[0-9]+))?$/;

/** Attaches the program to what its section names. Throws KernelError. */
export function attachProbe(
  bpf: Bpf,
  program: KernelProgram,
  kind: ProbeKind,
  target: string | ProgramTarget,
  cookie = 0n,
): Link {
  if (typeof target !== 'string') {
    throw new InputError(`program '${program.name}': a probe is on a function of the kernel`);
  }
  const retprobe = kind === 'kretprobe' || kind === 'kretprobe_multi';
  if (kind === 'kprobe_multi' || kind === 'kretprobe_multi') {
    if (cookie === 0n) return bpf.attachKprobeMulti(program, { functions: target, retprobe });
    throw new KernelError('EINVAL', `${program.name}: a pattern does not go with a cookie`);
  }
  const { name, offset = '0' } = PLACE.exec(target)?.groups ?? {};
  if (name === undefined || (retprobe && offset !== '0')) {
    throw new KernelError('EINVAL', `${program.name}: '${target}' names no place for a ${kind}`);
  }
  return bpf.attachKprobe(program, { function: name, offset: Number(offset), retprobe, cookie });
}
