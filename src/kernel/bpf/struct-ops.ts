/**
 * struct_ops: a structure of the kernel's whose function pointers are programs behind trampolines.
 *
 * Reference: kernel/bpf/bpf_struct_ops.c: bpf_struct_ops_map_update_elem, bpf_struct_ops_prepare_trampoline,
 * check_struct_ops_btf_id in kernel/bpf/verifier.c. The image is called through the pointer (blr), so there is
 * no patch site and no x9, and its result is the program's. Left out: links of maps (BPF_LINK_CREATE),
 * updates of a registered map, members of type bpf_map, cfi stubs (7.3 calls them where no program is given).
 *
 * Usage:
 *   kernel.bpf.structOps.define(type);
 *   const ops = kernel.bpf.structOps.register(spec, (index) => programOfFunction(index));
 *   kernel.memory.read64(ops.address + 8n); // address of an image
 *   ops.unregister();
 */
import type { StructOpsSpec } from '../../bpf/object/struct-ops.js';
import type { LoadTarget } from '../../bpf/object/load.js';
import type { ObjectSpec, ProgramSpec } from '../../bpf/object/spec.js';
import { tracedFunction } from '../../bpf/traced-function.js';
import { KernelError } from '../../common/errors.js';
import { TRAMP_FLAGS } from '../../jit/trampoline-model.js';
import { parsePrototype, type Prototype } from '../prototype.js';
import { enterName, exitName } from './enter-exit.js';
import type { KernelProgram } from './program.js';
import { TrampolineImage, type ImageParts } from './trampoline-image.js';
import type { KernelTypes } from './types.js';

/** A function pointer of such a structure. */
export interface StructOpsMember {
  /** Bytes from the start of the structure. */
  readonly offset: number;
  /** C prototype, with the member's name. */
  readonly prototype: string;
  /** Programs in it may sleep. Default false. */
  readonly sleepable?: boolean;
}

/** A structure that programs can implement (struct bpf_struct_ops). */
export interface StructOpsType {
  readonly name: string;
  readonly size: number;
  readonly members: Readonly<Record<string, StructOpsMember>>;
  /** Members without function, as C text and offset. */
  readonly data: Readonly<Record<string, readonly [type: string, offset: number]>>;
  /** Makes it known to its subsystem; throws KernelError. */
  readonly reg: (address: bigint) => void;
  readonly unreg: (address: bigint) => void;
}

/** A registered structure. */
export interface StructOps {
  /** Of the structure in kernel memory. */
  readonly address: bigint;
  readonly images: ReadonlyMap<string, TrampolineImage>;
  unregister(): void;
}

export class StructOpsRegistry {
  readonly #parts: ImageParts;
  readonly #types = new Map<string, StructOpsType>();
  readonly #kernelTypes: () => KernelTypes;

  constructor(parts: ImageParts, kernelTypes: () => KernelTypes) {
    this.#parts = parts;
    this.#kernelTypes = kernelTypes;
  }

  /** Adds a structure, and its members' prototypes to the kernel's BTF (as TYPE__MEMBER, its stubs). */
  define(type: StructOpsType): void {
    this.#types.set(type.name, type);
    this.#kernelTypes().declare((builder) => {
      const pointers = Object.entries(type.members).map(
        ([name, { offset }]) => [name, ['void *', offset]] as const,
      );
      builder.struct(type.name, type.size, { ...Object.fromEntries(pointers), ...type.data });
      for (const [name, member] of Object.entries(type.members)) {
        const { returnType, parameters } = parsePrototype(member.prototype);
        builder.func(
          stubName(type, name),
          returnType,
          parameters.map((parameter) => [parameter.name, parameter.type]),
        );
      }
    });
  }

  /** What the verifier has to know of a program in a member. Throws KernelError when it cannot be there. */
  loadTarget(object: ObjectSpec, program: ProgramSpec): LoadTarget {
    const found = (object.structOps ?? [])
      .flatMap((spec) => spec.members.map((member) => ({ spec, member })))
      .find(({ member }) => member.functionIndex === program.functionIndex);
    if (!found) {
      throw new KernelError(
        'EINVAL',
        `program '${program.name}': no struct_ops variable of the object has it as a member`,
      );
    }
    const type = this.#typeOf(found.spec.type);
    const member = this.#memberOf(type, found.member.name);
    if (program.sleepable && !member.sleepable) {
      throw new KernelError(
        'EINVAL',
        `program '${program.name}': attach to unsupported sleepable member ${found.member.name} of struct ${type.name}`,
      );
    }
    const btf = this.#kernelTypes().btf;
    const traced = tracedFunction(btf, stubName(type, found.member.name), { trusted: true });
    if (!traced) throw new KernelError('ESRCH', `no BTF of struct ${type.name}`);
    return { kind: 'traced', traced };
  }

  /**
   * Fills a structure with images of its programs and registers it. Nothing is left when that fails.
   * @param programOf the program that is function `index` of the object
   */
  register(spec: StructOpsSpec, programOf: (index: number) => KernelProgram): StructOps {
    const ops = this.prepare(spec, programOf);
    try {
      this.#typeOf(spec.type).reg(ops.address);
    } catch (error) {
      ops.free();
      throw error;
    }
    return {
      address: ops.address,
      images: ops.images,
      unregister: () => {
        this.#typeOf(spec.type).unreg(ops.address);
        ops.free();
      },
    };
  }

  /** The filled structure without registering it: what a test run calls into. */
  prepare(
    spec: StructOpsSpec,
    programOf: (index: number) => KernelProgram,
  ): Omit<StructOps, 'unregister'> & { free(): void } {
    const { kernel } = this.#parts;
    const type = this.#typeOf(spec.type);
    const address = kernel.kmalloc(type.size);
    const images = new Map<string, TrampolineImage>();
    const held: KernelProgram[] = [];
    const free = (): void => {
      for (const image of images.values()) image.put();
      for (const program of held) program.put();
      kernel.kfree(address);
    };
    try {
      for (const { name, offset, size, functionIndex } of spec.members) {
        const data = type.data[name];
        if (functionIndex === undefined) {
          const bytes = spec.data.subarray(offset, offset + size);
          if (data) kernel.memory.writeBytes(address + BigInt(data[1]), bytes);
          else if (bytes.some((byte) => byte !== 0)) this.#memberOf(type, name);
          continue;
        }
        const member = this.#memberOf(type, name);
        const program = programOf(functionIndex);
        const image = this.#image(parsePrototype(member.prototype), program);
        program.hold();
        held.push(program);
        images.set(name, image);
        image.name(kernel.symbols.unique(`bpf__${type.name}_${name}`));
        kernel.memory.write64(address + BigInt(member.offset), image.code.base);
      }
    } catch (error) {
      free();
      throw error;
    }
    return { address, images, free };
  }

  /** bpf_struct_ops_prepare_trampoline */
  #image(model: Prototype, program: KernelProgram): TrampolineImage {
    const { kernel, profile } = this.#parts;
    const indirect = profile.version === '6.1' ? 0 : TRAMP_FLAGS.INDIRECT;
    const keeps = model.returnSize > 0 ? TRAMP_FLAGS.RET_FENTRY_RET : 0;
    return new TrampolineImage(this.#parts, {
      model: { arguments: model.parameters.map(({ size, struct }) => ({ size, struct })) },
      flags: indirect | keeps,
      links: [
        {
          kind: 'fentry',
          program: program.address,
          entry: program.entry,
          structOps: true,
          enter: kernel.symbol(enterName(program.enterExit)),
          exit: kernel.symbol(exitName(program.enterExit)),
        },
      ],
      functionAddress: program.entry,
    });
  }

  #typeOf(name: string): StructOpsType {
    const type = this.#types.get(name);
    if (type) return type;
    const known = [...this.#types.keys()].join(', ');
    throw new KernelError(
      'ENOTSUPP',
      `struct ${name} is not supported (struct_ops here: ${known})`,
    );
  }

  #memberOf(type: StructOpsType, name: string): StructOpsMember {
    const member = type.members[name];
    if (member) return member;
    throw new KernelError('ENOTSUPP', `struct ${type.name} has no member ${name} in this kernel`);
  }
}

function stubName({ name }: StructOpsType, member: string): string {
  return `${name}__${member}`;
}
