/**
 * Loadable modules: text that comes into the kernel, is traced like the kernel's own, and goes again.
 *
 * Loading: sections are placed in the module windows of the layout, calls bound to targets or PLT entries,
 * patch sites initialised and DISABLED; then (COMING) the text is read-only, sites become what registered ops
 * want, the init function runs; then `.init.text` is freed, and the module is LIVE. Unloading is refused to
 * who has users: BPF trampolines on its functions, modules that call it.
 *
 * Reference: kernel/module/main.c: load_module, do_init_module, delete_module. Left out: ELF, parameters, data
 * sections, forced removal, notifiers other than ftrace's.
 *
 * Usage:
 *   kernel.loadModule({ name: 'greet', text: 'FUNCTION int greet(int a)\n\tadd w0, w0, #1\n\tret\n' });
 *   kernel.call('greet', 1n);
 *   kernel.unloadModule('greet');
 */
import { errnoName } from '../../common/errno.js';
import { InputError, KernelError } from '../../common/errors.js';
import type { Region } from '../../cpu/memory.js';
import type { Assembler } from '../assembler.js';
import { FTRACE_FL } from '../ftrace/record.js';
import type { FtracePlts, ReachModule, ReachProfile } from '../ftrace/reach.js';
import type { Kernel } from '../kernel.js';
import { takeModule } from '../layout/address-space.js';
import { asmOffsets } from '../offsets.js';
import { parsePrototype } from '../prototype.js';
import { MAPPABLE } from '../range-allocator.js';
import { TEST_STRUCT_SIZES } from '../test-types.js';
import { placeSection, planSection, type PlacedSection, type SectionSource } from './section.js';

export interface ModuleSpec {
  readonly name: string;
  /** `.text` in the form of `asm/` (assembler.ts); may branch to symbols of the kernel and other modules. */
  readonly text: string;
  /** `.init.text`, freed when the module is live. Default none. */
  readonly init?: string;
  /** Function that is called when the module is loaded; a negative result refuses it. Default none. */
  readonly initFunction?: string;
  /** Bytes of address space of its text, at least: more than the text is not mapped. Default 0. */
  readonly size?: number;
}

export type ModuleState = 'coming' | 'live';

export interface ModuleSection extends PlacedSection {
  /** Bytes of address space. */
  readonly size: number;
}

/** A module that is loaded. */
export class KernelModule implements ReachModule {
  readonly name: string;
  readonly text: ModuleSection;
  /** Modules that it calls. */
  readonly uses: readonly KernelModule[];
  state: ModuleState = 'coming';
  /** While there is one. */
  init: ModuleSection | undefined;
  /** References: BPF trampolines on its functions, modules that call it. */
  users = 0;

  constructor(name: string, text: ModuleSection, uses: readonly KernelModule[]) {
    this.name = name;
    this.text = text;
    this.uses = uses;
  }

  get plts(): FtracePlts {
    return this.text.ftracePlts;
  }

  get initPlts(): FtracePlts | undefined {
    return this.init?.ftracePlts;
  }

  inInit(address: bigint): boolean {
    return this.init !== undefined && within(this.init, address);
  }

  contains(address: bigint): boolean {
    return within(this.text, address) || this.inInit(address);
  }
}

function within({ address, size }: ModuleSection, at: bigint): boolean {
  return at >= address && at < address + BigInt(size);
}

export interface ModulesParts {
  readonly kernel: Kernel;
  readonly assembler: Assembler;
  readonly reach: ReachProfile;
  /** What the ftrace PLT entries go to. */
  readonly entries: FtracePlts;
  /** Pages of modules are guarded: see `RegionSpec`. */
  readonly guarded: boolean;
}

export class Modules {
  readonly #parts: ModulesParts;
  readonly #loaded = new Map<string, KernelModule>();
  readonly #regions = new Map<ModuleSection, Region>();

  constructor(parts: ModulesParts) {
    this.#parts = parts;
  }

  /** In the order in which they were loaded. */
  list(): readonly KernelModule[] {
    return [...this.#loaded.values()];
  }

  find(name: string): KernelModule | undefined {
    return this.#loaded.get(name);
  }

  /** __module_text_address. */
  at(address: bigint): KernelModule | undefined {
    for (const module of this.#loaded.values()) if (module.contains(address)) return module;
    return undefined;
  }

  /** init_module. Throws what the init function says; nothing is left then. */
  load(spec: ModuleSpec): KernelModule {
    const { name } = spec;
    if (!/^\w+$/.test(name)) throw new InputError(`'${name}' is no name of a module`);
    if (this.#loaded.has(name)) throw new KernelError('EEXIST', `module ${name} is loaded already`);
    const { modulePlts, initPlt } = this.#parts.reach;
    const uses = new Set<KernelModule>();
    const text = this.#place(
      name,
      { file: name, text: spec.text, ftracePlts: modulePlts, size: spec.size ?? 0 },
      uses,
    );
    const module = new KernelModule(name, text, [...uses]);
    this.#loaded.set(name, module);
    for (const used of uses) used.users++;
    try {
      if (spec.init !== undefined) {
        const ftracePlts = initPlt ? modulePlts : [];
        module.init = this.#place(
          name,
          { file: `${name}.init`, text: spec.init, ftracePlts },
          new Set(),
        );
      }
      this.#enable(module);
      if (spec.initFunction !== undefined) this.#runInit(spec.initFunction);
    } catch (error) {
      // what oopses in its init function stays for ever, as there
      if (error instanceof KernelError || error instanceof InputError) this.#remove(module);
      throw error;
    }
    this.#freeInit(module);
    module.state = 'live';
    return module;
  }

  /** delete_module. */
  unload(name: string): void {
    const module = this.#loaded.get(name);
    if (!module) throw new KernelError('ENOENT', `there is no module ${name}`);
    if (module.users > 0) {
      throw new KernelError('EAGAIN', `module ${name} is in use (${module.users} references)`);
    }
    if (module.state !== 'live') {
      throw new KernelError('EBUSY', `module ${name} is ${module.state}, its init did not end`);
    }
    this.#remove(module);
  }

  #place(name: string, source: SectionSource, uses: Set<KernelModule>): ModuleSection {
    const { kernel, assembler, entries, guarded } = this.#parts;
    const { memory, symbols, layout, ftrace, text } = kernel;
    const [window] = layout.moduleWindows;
    const dialect = { constants: asmOffsets(ftrace.profile), entry: text.entry };
    const plan = planSection(
      assembler,
      source,
      dialect,
      symbols,
      (window?.start ?? layout.stext) & ~0xfffn,
    );
    const size = Math.max(plan.bytes, source.size ?? 0);
    const address = takeModule(layout, kernel.vmalloc, size, MAPPABLE);
    let region: Region | undefined;
    try {
      const placed = placeSection(assembler, plan, address, entries);
      const bytes = placed.code.length;
      region = memory.map({ name: source.file, address, size: bytes, permissions: 'rx', guarded });
      memory.pokeBytes(address, placed.code);
      for (const target of plan.externals.values()) {
        const used = this.at(target);
        if (used && used.name !== name) uses.add(used);
      }
      const section = { ...placed, size };
      this.#regions.set(section, region);
      this.#addSymbols(name, source, section);
      return section;
    } catch (error) {
      if (region) memory.unmap(region);
      kernel.vmalloc.release(address);
      throw error;
    }
  }

  #addSymbols(module: string, source: SectionSource, section: ModuleSection): void {
    const { symbols, text, ftrace } = this.#parts.kernel;
    const clash = section.symbols.find(({ name }) => symbols.find(name));
    if (clash) throw new InputError(`module ${module}: symbol ${clash.name} is defined already`);
    const sites: bigint[] = [];
    for (const { name, kind, address, size, prototype, isStatic } of section.symbols) {
      symbols.add(name, address, size, module);
      if (kind !== 'FUNCTION') continue;
      sites.push(text.mcountLocation(address, isStatic ?? false));
      if (prototype) text.prototypes.set(address, parsePrototype(prototype, TEST_STRUCT_SIZES));
    }
    for (const [name, address] of pltNames(source.file, section, symbols)) {
      symbols.add(name, address, 12, module);
    }
    ftrace.addSites(sites, FTRACE_FL.DISABLED);
  }

  /** COMING: the text is read-only, sites may be patched. */
  #enable(module: KernelModule): void {
    const { kernel } = this.#parts;
    for (const section of [module.text, module.init]) {
      if (!section) continue;
      const end = section.address + BigInt(section.size);
      kernel.syncText(section.address, section.address + BigInt(section.code.length));
      kernel.ftrace.enableModule(section.address, end);
    }
  }

  #runInit(name: string): void {
    const result = Number(BigInt.asIntN(32, this.#parts.kernel.call(name)));
    if (result < 0) {
      const errno = errnoName(result);
      throw new KernelError(errno ?? 'EINVAL', `${name}() of the module returned ${result}`);
    }
  }

  #freeInit(module: KernelModule): void {
    if (module.init) this.#free(module.init);
    module.init = undefined;
  }

  #remove(module: KernelModule): void {
    this.#freeInit(module);
    this.#free(module.text);
    this.#loaded.delete(module.name);
    for (const used of module.uses) used.users--;
  }

  #free(section: ModuleSection): void {
    const { memory, symbols, text, ftrace, vmalloc } = this.#parts.kernel;
    const { address, size } = section;
    ftrace.releaseText(address, address + BigInt(size));
    for (const symbol of symbols.removeWithin(address, address + BigInt(size))) {
      text.prototypes.delete(symbol.address);
    }
    const region = this.#regions.get(section);
    if (region) memory.unmap(region);
    this.#regions.delete(section);
    vmalloc.release(address);
  }
}

/** Names of PLT entries, for listings: kallsyms has none for them. */
function* pltNames(
  file: string,
  { plt, ftracePlts }: PlacedSection,
  symbols: { format(address: bigint): string },
): Generator<[string, bigint]> {
  for (const [target, address] of plt.entries) {
    yield [`${symbols.format(target).replace(/\+.*$/, '')}@plt.${file}`, address];
  }
  for (const [entry, address] of Object.entries(ftracePlts)) {
    yield [`${entry}@plt.${file}`, address];
  }
}
