/**
 * Finds libunicorn and binds its C functions through koffi.
 *
 * koffi is an optional dependency and libunicorn a system library (Debian: libunicorn2), so loading
 * gives either the library or one line that says what is missing. Nothing is loaded before
 * `loadUnicorn` is called; the outcome is the same for the life of the process, so callers keep it.
 *
 * libunicorn has no call that says how many instructions ran, but it counts them (`emu_counter` of
 * struct uc_struct, next to the limit `emu_count`). `findCounter` runs a few counted loops and looks
 * for the two neighbours in the handle's own allocation; a version where that finds no single place
 * is refused rather than guessed at.
 *
 * Usage:
 *   const loaded = await loadUnicorn();
 *   if (loaded.library) new UnicornCpu(loaded.library, memory); else console.log(loaded.reason);
 */
import {
  NOWHERE,
  UC_ARCH_ARM64,
  UC_CPU_ARM64_MAX,
  UC_CTL,
  UC_MODE_ARM,
  UC_PROT,
} from './constants.js';

/** A native pointer as koffi hands it out. */
export type Pointer = bigint;

export interface UnicornLibrary {
  /** The name it was loaded by. */
  readonly path: string;
  /** `2.0.1`. */
  readonly version: string;
  addressOf(array: BigUint64Array): bigint;

  open(): Pointer;
  close(handle: Pointer): void;
  /** Result code of `uc_emu_start`. */
  start(handle: Pointer, pc: bigint, count: number): number;
  stop(handle: Pointer): void;
  /** Instructions begun by the last `start`. */
  counted(handle: Pointer): number;

  map(handle: Pointer, address: bigint, permissions: number, bytes: Uint8Array): void;
  unmap(handle: Pointer, address: bigint, size: number): void;
  protect(handle: Pointer, address: bigint, size: number, permissions: number): void;

  readRegister(handle: Pointer, register: number, value: BigUint64Array): void;
  writeRegister(handle: Pointer, register: number, value: BigUint64Array): void;
  readRegisters(handle: Pointer, file: RegisterFile): void;
  /** Writes the first `count` registers of the file. */
  writeRegisters(handle: Pointer, file: RegisterFile, count: number): void;

  removeCache(handle: Pointer, start: bigint, end: bigint): void;
  useExits(handle: Pointer, on: boolean): void;
  setExits(handle: Pointer, exits: BigUint64Array): void;

  /** Registers a callback; `free` with what comes back. */
  codeCallback(call: (address: bigint) => void): Pointer;
  interruptCallback(call: (number: number) => void): Pointer;
  memoryCallback(call: (type: number, address: bigint, size: number) => void): Pointer;
  freeCallback(callback: Pointer): void;
  /** Hooks [begin, end] (both included), or everything when begin > end. Returns the hook's id. */
  addHook(handle: Pointer, type: number, callback: Pointer, begin: bigint, end: bigint): number;
  removeHook(handle: Pointer, hook: number): void;
}

/** Registers that move together: `values[i]` belongs to register `ids[i]`. */
export interface RegisterFile {
  readonly ids: Int32Array;
  readonly values: BigUint64Array;
  /** Addresses of the values: they never move, an explicit ArrayBuffer is off the heap. */
  readonly pointers: BigUint64Array;
}

export type UnicornLoad =
  | { readonly library: UnicornLibrary; readonly reason?: undefined }
  | { readonly library?: undefined; readonly reason: string };

/** Stack of a call: a translation needs more than koffi's default. */
const STACK_SIZE = 4 << 20;

type Koffi = typeof import('koffi');

/** Where to look, in order; TRAMPOLAB_UNICORN names one library instead. */
function libraryNames(): readonly string[] {
  const named = process.env['TRAMPOLAB_UNICORN'];
  if (named) return [named];
  switch (process.platform) {
    case 'win32':
      return ['unicorn.dll'];
    case 'darwin':
      return [
        'libunicorn.2.dylib',
        '/opt/homebrew/lib/libunicorn.2.dylib',
        '/usr/local/lib/libunicorn.2.dylib',
      ];
    default:
      return ['libunicorn.so.2', 'libunicorn.so'];
  }
}

/** Loads koffi and libunicorn, or says in one line why that is not possible here. */
export async function loadUnicorn(): Promise<UnicornLoad> {
  let koffi: Koffi;
  try {
    koffi = await import('koffi');
  } catch (error) {
    return { reason: `koffi cannot be loaded: ${firstLine(error)}` };
  }
  const config = koffi.config();
  if ((config.sync_stack_size ?? 0) < STACK_SIZE) {
    try {
      koffi.config({ ...config, sync_stack_size: STACK_SIZE });
    } catch (error) {
      return { reason: `koffi has too small a stack for libunicorn: ${firstLine(error)}` };
    }
  }
  const names = libraryNames();
  const failures: string[] = [];
  for (const name of names) {
    try {
      return { library: bind(koffi, koffi.load(name), name) };
    } catch (error) {
      failures.push(`${name}: ${firstLine(error)}`);
    }
  }
  return { reason: `libunicorn cannot be loaded: ${failures.join('; ')}` };
}

function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split('\n')[0] ?? text;
}

/** A register file whose values stay in place. */
export function registerFile(library: UnicornLibrary, ids: readonly number[]): RegisterFile {
  const values = new BigUint64Array(new ArrayBuffer(8 * ids.length));
  const pointers = new BigUint64Array(new ArrayBuffer(8 * ids.length));
  const base = library.addressOf(values);
  for (let i = 0; i < ids.length; i++) pointers[i] = base + BigInt(8 * i);
  return { ids: Int32Array.from(ids), values, pointers };
}

function bind(koffi: Koffi, native: import('koffi').LibraryHandle, path: string): UnicornLibrary {
  const codeType = koffi.pointer(koffi.proto('void', ['void *', 'void *', 'uint32_t', 'void *']));
  const interruptType = koffi.pointer(koffi.proto('void', ['void *', 'uint32_t', 'void *']));
  const memoryType = koffi.pointer(
    koffi.proto('bool', ['void *', 'int', 'void *', 'int', 'int64_t', 'void *']),
  );
  const version = native.func('uint32_t uc_version(void *, void *)');
  const open = native.func('int uc_open(int, int, _Out_ void **)');
  const close = native.func('int uc_close(void *)');
  const start = native.func('int uc_emu_start(void *, uint64_t, uint64_t, uint64_t, size_t)');
  const stop = native.func('int uc_emu_stop(void *)');
  const map = native.func('int uc_mem_map_ptr(void *, uint64_t, size_t, uint32_t, void *)');
  const unmap = native.func('int uc_mem_unmap(void *, uint64_t, size_t)');
  const protect = native.func('int uc_mem_protect(void *, uint64_t, size_t, uint32_t)');
  const readRegister = native.func('int uc_reg_read(void *, int, void *)');
  const writeRegister = native.func('int uc_reg_write(void *, int, void *)');
  const readBatch = native.func('int uc_reg_read_batch(void *, void *, void *, int)');
  const writeBatch = native.func('int uc_reg_write_batch(void *, void *, void *, int)');
  const control = native.func('uc_ctl', 'int', ['void *', 'int', '...']);
  const addHook = native.func('uc_hook_add', 'int', [
    'void *',
    koffi.out(koffi.pointer('size_t')),
    'int',
    'void *',
    'void *',
    'uint64_t',
    'uint64_t',
    '...',
  ]);
  const removeHook = native.func('int uc_hook_del(void *, size_t)');
  const errorText = native.func('const char *uc_strerror(int)');

  const check = (result: unknown, what: string): void => {
    if (result !== 0) throw new Error(`libunicorn: ${what}: ${String(errorText(result))}`);
  };
  // addresses in callbacks are declared void *: koffi would make a 64-bit integer a signed one
  const addressOf = (pointer: unknown): bigint => (pointer === null ? 0n : (pointer as bigint));
  const word = version(null, null) as number;
  if (word >>> 24 !== 2) throw new Error(`${path} is version ${word >>> 24}, 2 is needed`);

  const library: Omit<UnicornLibrary, 'counted'> = {
    path,
    version: `${word >>> 24}.${(word >>> 16) & 255}.${(word >>> 8) & 255}`,
    addressOf: (array) => koffi.address(array),
    open() {
      const out: (Pointer | null)[] = [null];
      check(open(UC_ARCH_ARM64, UC_MODE_ARM, out), 'open');
      const handle = out[0] as Pointer;
      // before anything else: the default model (A57) lacks LSE and LDAPR
      check(control(handle, UC_CTL.CPU_MODEL, 'int', UC_CPU_ARM64_MAX), 'select the CPU');
      return handle;
    },
    close: (handle) => check(close(handle), 'close'),
    start: (handle, pc, count) => start(handle, pc, NOWHERE, 0, count) as number,
    stop: (handle) => check(stop(handle), 'stop'),
    map: (handle, address, permissions, bytes) =>
      check(map(handle, address, bytes.length, permissions, bytes), 'map memory'),
    unmap: (handle, address, size) => check(unmap(handle, address, size), 'unmap memory'),
    protect: (handle, address, size, permissions) =>
      check(protect(handle, address, size, permissions), 'change permissions'),
    readRegister: (handle, register, value) =>
      check(readRegister(handle, register, value), 'read a register'),
    writeRegister: (handle, register, value) =>
      check(writeRegister(handle, register, value), 'write a register'),
    readRegisters: (handle, file) =>
      check(readBatch(handle, file.ids, file.pointers, file.ids.length), 'read registers'),
    writeRegisters: (handle, file, count) =>
      check(writeBatch(handle, file.ids, file.pointers, count), 'write registers'),
    removeCache: (handle, from, to) =>
      check(control(handle, UC_CTL.TB_REMOVE_CACHE, 'uint64', from, 'uint64', to), 'renew code'),
    useExits: (handle, on) =>
      check(control(handle, UC_CTL.USE_EXITS, 'int', on ? 1 : 0), 'use exits'),
    setExits: (handle, exits) =>
      check(
        control(handle, UC_CTL.SET_EXITS, 'uint64_t *', exits, 'size_t', exits.length),
        'set exits',
      ),
    codeCallback: (call) =>
      koffi.register((_: unknown, address: unknown) => call(addressOf(address)), codeType),
    interruptCallback: (call) =>
      koffi.register((_: unknown, number: number) => call(number), interruptType),
    memoryCallback: (call) =>
      koffi.register((_: unknown, type: number, address: unknown, size: number) => {
        call(type, addressOf(address), size);
        return false;
      }, memoryType),
    freeCallback: (callback) => koffi.unregister(callback),
    addHook(handle, type, callback, begin, end) {
      const out = [0];
      check(addHook(handle, out, type, callback, null, begin, end), 'add a hook');
      return out[0] as number;
    },
    removeHook: (handle, hook) => check(removeHook(handle, hook), 'remove a hook'),
  };
  const offset = findCounter(library, (handle, at) =>
    Number(koffi.decode.uint64(handle + BigInt(at))),
  );
  return { ...library, counted: (handle) => Number(koffi.decode.uint64(handle + BigInt(offset))) };
}

/** Offset in the handle's allocation where libunicorn counts instructions. */
function findCounter(
  library: Omit<UnicornLibrary, 'counted'>,
  read: (handle: Pointer, offset: number) => number,
): number {
  const handle = library.open();
  try {
    const page = new Uint8Array(new WebAssembly.Memory({ initial: 1 }).buffer, 0, 4096);
    new DataView(page.buffer).setUint32(0, 0x14000000, true); // b .
    library.map(handle, 0x1000n, UC_PROT.READ | UC_PROT.EXEC, page);
    // struct uc_struct is larger than this in every version 2
    let candidates = Array.from({ length: 2048 / 8 - 1 }, (_, index) => 8 * index);
    for (const count of [3, 1009, 77]) {
      library.start(handle, 0x1000n, count);
      // the instruction at which the limit is noticed is counted too
      candidates = candidates.filter(
        (at) => read(handle, at) === count + 1 && read(handle, at + 8) === count,
      );
    }
    const [offset, ...more] = candidates;
    if (offset === undefined || more.length > 0) {
      throw new Error(`version ${library.version} hides its instruction counter`);
    }
    return offset;
  } finally {
    library.close(handle);
  }
}
