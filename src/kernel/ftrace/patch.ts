/**
 * Writes patch sites: the literal in front of the function, then the one instruction.
 *
 * Reference: arch/arm64/kernel/ftrace.c (ftrace_init_nop, ftrace_make_call, ftrace_modify_call,
 * ftrace_make_nop, ftrace_update_ftrace_func, ftrace_find_callable_addr) and patching.c. With CALL_OPS the
 * literal is stored first, by an aligned 8-byte store; the word is checked against what should be there, then
 * replaced by a 4-byte store, even where it stays the same. `flush` makes every CPU fetch anew what was
 * stored since the last one: nothing runs in between here, and only who watches memory sees it done for each
 * word. Where a BL has to go `reach.ts` says.
 *
 * All addresses of sites are distances from `base`, as numbers. Every store to text goes through
 * `#storeInstruction` and `#storeLiteral`, in the order the kernel makes them; `stores` is told of each.
 */
import { branchWord } from '../../a64/immediates.js';
import { hex32, hex64, s64 } from '../../common/bytes.js';
import { KernelError } from '../../common/errors.js';
import type { Memory, Region } from '../../cpu/memory.js';
import { br, ldrLiteral, nop } from '../../jit/emit.js';
import { moveRegisterWord } from '../../jit/poke.js';
import type { FtraceProfile } from './profile.js';
import { reach, type ReachParts } from './reach.js';
import { SITE_SHAPES, literalCall, opsLiteral } from './site-form.js';
import type { StoreObserver } from './store-observer.js';

const NOP = nop();
/** `mov x9, x30`: keeps the return address of the traced function's caller. */
const MOV_X9_X30 = moveRegisterWord(9, 30);
/** Half the range of BL: nearer than this every version's range test says yes. */
const SZ_128M = 0x800_0000;
const BL = 0x9400_0000;

export interface PatcherParts {
  readonly memory: Memory;
  /** Makes every CPU fetch [start, end) anew. */
  readonly syncText: (start: bigint, end: bigint) => void;
  readonly ftraceCaller: bigint;
  readonly profile: FtraceProfile;
  readonly stores: StoreObserver;
  /** What distances are measured from. */
  readonly base: bigint;
  /** ftrace_stub_direct_tramp: where a `7,5` literal call goes before it has a target. */
  readonly idleTarget: bigint;
  readonly reach: ReachParts;
}

/** A record as the patcher needs it. */
export interface Site {
  /** Distance of rec->ip. */
  readonly at: number;
  /** Distance of the function's first word. */
  readonly entry: number;
}

export class SitePatcher {
  readonly #parts: PatcherParts;
  readonly #view: DataView;
  #region: Region | undefined;
  /** Distance of the region's first byte. */
  #regionAt = 0;
  /** The last target of a BL and its distance. */
  #target = 0n;
  #targetAt = 0;
  /** What CPUs have to fetch anew. */
  #from = Infinity;
  #to = -Infinity;

  constructor(parts: PatcherParts) {
    this.#parts = parts;
    this.#view = parts.memory.view;
  }

  /** Once per site, before anybody can execute it: literal, MOV; the second NOP stays. */
  initNop(site: Site, nopOps: bigint): void {
    const { callOps, site: form } = this.#parts.profile;
    if (callOps) this.#storeLiteral(opsLiteral(site.at), nopOps);
    if (form === '7,5') this.#initLiteralCall(site);
    this.#replace(site.at - 4, NOP, MOV_X9_X30);
  }

  makeCall(site: Site, ops: bigint, to: bigint): void {
    if (this.#parts.profile.callOps) this.#storeLiteral(opsLiteral(site.at), ops);
    const word = this.#callWord(site, to, true);
    this.#replace(site.at, NOP, word);
  }

  modifyCall(site: Site, ops: bigint, from: bigint, to: bigint): void {
    const { profile, ftraceCaller } = this.#parts;
    switch (profile.modifyCall) {
      case 'refuse':
        throw new KernelError('EINVAL', `ftrace: arm64 ${profile.version} cannot modify a call`);
      case 'literal':
        if (from !== ftraceCaller || to !== ftraceCaller) {
          throw new KernelError('EINVAL', `ftrace: ${hex64(to)} is not ftrace_caller`);
        }
        this.#storeLiteral(opsLiteral(site.at), ops);
        return;
      case 'branch': {
        if (profile.callOps) this.#storeLiteral(opsLiteral(site.at), ops);
        const old = this.#callWord(site, from, false);
        this.#replace(site.at, old, this.#callWord(site, to, true));
      }
    }
  }

  makeNop(site: Site, nopOps: bigint, from: bigint): void {
    if (this.#parts.profile.callOps) this.#storeLiteral(opsLiteral(site.at), nopOps);
    this.#replace(site.at, this.#callWord(site, from, false), NOP);
  }

  /** ftrace_update_ftrace_func: the BL at `ftrace_call` in ftrace_caller goes to `func`; nobody checks the old one. */
  updateFtraceCall(ftraceCall: bigint, func: bigint): void {
    const at = Number(s64(ftraceCall - this.#parts.base));
    this.#storeInstruction(at, branchWord(ftraceCall, func, true));
    this.flush();
  }

  /** Every CPU fetches anew what was stored. */
  flush(): void {
    // what is mapped may change between commands
    this.#region = undefined;
    if (this.#from > this.#to) return;
    const { base, syncText } = this.#parts;
    syncText(base + BigInt(this.#from), base + BigInt(this.#to));
    this.#from = Infinity;
    this.#to = -Infinity;
  }

  /** The word at a distance. Throws KernelError -EFAULT where nothing is mapped. */
  read(at: number): number {
    return this.#view.getUint32(this.#locate(at, 4), true);
  }

  /** `store`: a far target of a `7,5` site is stored in its literal. */
  #callWord({ at, entry }: Site, target: bigint, store: boolean): number {
    if (target !== this.#target) {
      this.#target = target;
      this.#targetAt = Number(s64(target - this.#parts.base));
    }
    const distance = this.#targetAt - at;
    if (distance > -SZ_128M && distance < SZ_128M) return branchLink(distance);
    if (this.#parts.profile.direct?.far === 'literal_call') {
      const { literal, call } = literalCall((entry & 7) === 0);
      if (store) this.#storeLiteral(entry + literal, target);
      return branchLink(entry + call - at);
    }
    const ip = this.#parts.base + BigInt(at);
    return branchWord(ip, reach(ip, target, this.#parts.reach), true);
  }

  /** `ldr x16, literal; br x16` before the function. */
  #initLiteralCall({ entry }: Site): void {
    const { literal, call } = literalCall((entry & 7) === 0);
    for (let word = 1; word <= SITE_SHAPES['7,5'].before; word++) {
      this.#expect(entry - 4 * word, NOP);
    }
    this.#storeLiteral(entry + literal, this.#parts.idleTarget);
    this.#storeInstruction(entry + call, ldrLiteral(16, (literal - call) / 4));
    this.#storeInstruction(entry + call + 4, br(16));
  }

  #replace(at: number, expected: number, word: number): void {
    this.#expect(at, expected);
    this.#storeInstruction(at, word);
  }

  #expect(at: number, expected: number): void {
    const found = this.read(at);
    if (found === expected) return;
    const where = hex64(this.#parts.base + BigInt(at));
    throw new KernelError('EINVAL', `${where} holds ${hex32(found)}, expected ${hex32(expected)}`);
  }

  #storeInstruction(at: number, word: number): void {
    const offset = this.#locate(at, 4);
    const region = this.#region as Region;
    this.#parts.memory.pokeWord(region, offset - region.offset, word);
    this.#from = Math.min(this.#from, at);
    this.#to = Math.max(this.#to, at + 4);
    this.#tell('instruction', at, BigInt(word >>> 0));
    if (this.#parts.memory.isWatched) this.flush();
  }

  /** No cache maintenance: it is read by LDR. */
  #storeLiteral(at: number, value: bigint): void {
    const offset = this.#locate(at, 8);
    const region = this.#region as Region;
    this.#parts.memory.pokePointer(region, offset - region.offset, value);
    this.#tell('literal', at, value);
  }

  #tell(kind: 'instruction' | 'literal', at: number, value: bigint): void {
    const { stores, base } = this.#parts;
    stores.onStore?.({ kind, address: base + BigInt(at), value });
  }

  /** Physical offset of `size` bytes at a distance. */
  #locate(at: number, size: number): number {
    let region = this.#region;
    let within = at - this.#regionAt;
    if (!region || within < 0 || within > region.size - size) {
      const address = this.#parts.base + BigInt(at);
      region = this.#parts.memory.regionAt(address);
      if (!region)
        throw new KernelError('EFAULT', `ftrace: nothing is mapped at ${hex64(address)}`);
      this.#region = region;
      this.#regionAt = Number(s64(region.address - this.#parts.base));
      within = at - this.#regionAt;
    }
    return region.offset + within;
  }
}

/** 100101 imm26 */
function branchLink(distance: number): number {
  return (BL | ((distance >> 2) & 0x3ff_ffff)) >>> 0;
}
