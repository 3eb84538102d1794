/**
 * Picks the program that a command means, and what has to be loaded with it.
 */
import { InputError } from '../../common/errors.js';
import type { ObjectSpec, ProgramSpec, SectionKind } from './spec.js';

/**
 * The program called `name` (or in the one section of that name); without a name the only program, those for
 * entries of devmaps and cpumaps not counted.
 *
 * @param kind what is wanted: where there are such programs, others are not counted either
 */
export function selectProgram(spec: ObjectSpec, name?: string, kind?: SectionKind): ProgramSpec {
  const ofKind = spec.programs.filter((program) => program.kind === kind);
  const programs = name === undefined && ofKind.length > 0 ? ofKind : spec.programs;
  const list = programs.map((program) => `${program.name} (${program.section})`).join(', ');
  if (name === undefined) {
    const [only, ...others] = programs.filter(({ xdpAttach }) => xdpAttach === 'device');
    if (only && others.length === 0) return only;
    const which = programs === ofKind ? `${kind} programs` : 'programs';
    throw new InputError(`the object has ${programs.length} ${which}, name one of: ${list}`);
  }
  const named = programs.find((program) => program.name === name);
  if (named) return named;
  const inSection = programs.filter((program) => program.section === name);
  const [first, ...others] = inSection;
  if (first && others.length === 0) return first;
  if (first) {
    throw new InputError(
      `section '${name}' has ${inSection.length} programs, name one of: ${list}`,
    );
  }
  throw new InputError(`the object has no program '${name}', but: ${list}`);
}

/**
 * `program` and those that prog arrays of the object hold from the start (`.values`): libbpf loads them all and
 * fills the arrays, so tail calls arrive.
 */
export function withTailCallees(spec: ObjectSpec, program: ProgramSpec): readonly ProgramSpec[] {
  const named = new Set(
    spec.maps.flatMap(({ initialValues }) => initialValues.map(({ symbol }) => symbol)),
  );
  const others = spec.programs.filter(({ name }) => name !== program.name && named.has(name));
  return [program, ...others];
}
