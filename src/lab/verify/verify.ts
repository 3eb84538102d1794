/**
 * Runs a JIT image made elsewhere against the interpreter, packet by packet.
 *
 * The image is put into a lab kernel at its own address; what it calls is found by name in the other
 * machine's kallsyms and is the lab's helper of that name. The interpreter runs the program's own object,
 * with maps of its own. Both have to give the same R0, the same packet and the same maps after every packet.
 *
 * Left out: callbacks into an image that was not loaded by the lab's loader, BPF-to-BPF calls to other
 * images, maps of which the image reads what the lab lays out otherwise (per-CPU, LRU, map-in-map), devices:
 * fields behind xdp_buff's `rxq` are where the lab has them.
 *
 * Usage:
 *   const result = verifyImage(kernel, { image, kallsyms, load, packets });
 */
import type { BpfMap } from '../../bpf/maps/map.js';
import type { LoadedObject } from '../../bpf/object/load.js';
import { XdpTestFrame } from '../../bpf/xdp-test-run.js';
import { bytesToHex, hex64 } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import { KernelOops } from '../../kernel/executor.js';
import type { KernelFunction } from '../../kernel/function.js';
import type { Kernel } from '../../kernel/kernel.js';
import { readTraits } from '../check/booted/traits.js';
import { createRunner } from '../run-program.js';
import { ForeignText } from './foreign-text.js';
import { arrayValueOffset, type ForeignImage } from './image.js';
import { helperOf, type Kallsyms } from './kallsyms.js';
import { MapWindows } from './windows.js';

export interface VerifyRequest {
  readonly image: ForeignImage;
  readonly kallsyms: Kallsyms;
  /** Loads the program's object anew, with maps of its own, filled as they are to be. */
  readonly load: () => LoadedObject;
  /** Which of its programs. */
  readonly program: string;
  readonly packets: readonly Uint8Array[];
}

export interface VerifyResult {
  /** Packets on which they agreed. */
  readonly packets: number;
  /** What differed on the next one. */
  readonly difference: string | undefined;
}

/** What a packet left behind. */
interface Outcome {
  readonly end: string;
  readonly packet: string;
  readonly metadata: string;
  readonly maps: readonly string[];
}

interface Side {
  run(packet: Uint8Array): Outcome;
  close(): void;
}

/** Throws InputError for an image that the lab cannot run. */
export function verifyImage(kernel: Kernel, request: VerifyRequest): VerifyResult {
  const reference = interpreterSide(kernel, request);
  let foreign: Side | undefined;
  try {
    foreign = foreignSide(kernel, request);
    for (const [index, packet] of request.packets.entries()) {
      const difference = compare(reference.run(packet), foreign.run(packet));
      if (difference !== undefined) {
        return { packets: index, difference: `packet ${index + 1}: ${difference}` };
      }
    }
    return { packets: request.packets.length, difference: undefined };
  } finally {
    foreign?.close();
    reference.close();
  }
}

function compare(expected: Outcome, got: Outcome): string | undefined {
  for (const field of ['end', 'packet', 'metadata'] as const) {
    if (expected[field] !== got[field]) {
      const what = field === 'end' ? '' : `${field} `;
      return `${what}${got[field] || 'none'} from the image, ${expected[field] || 'none'} from the interpreter`;
    }
  }
  for (let i = 0; i < Math.max(expected.maps.length, got.maps.length); i++) {
    if (expected.maps[i] !== got.maps[i]) {
      return `${got.maps[i] ?? 'no entry'} from the image, ${expected.maps[i] ?? 'no entry'} from the interpreter`;
    }
  }
  return undefined;
}

function describeMaps(maps: Iterable<BpfMap>): string[] {
  return [...maps].flatMap((map) =>
    [...map.entries()]
      .map(({ key, values }) => {
        return `map ${map.spec.name}[${bytesToHex(key)}] = ${values.map(bytesToHex).join(' ')}`;
      })
      .sort(),
  );
}

/** Puts each packet into a frame, runs, and looks. */
function sideOf(
  kernel: Kernel,
  object: LoadedObject,
  run: (context: bigint) => string,
  close: () => void,
): Side {
  const frame = new XdpTestFrame(kernel.bpf.host);
  return {
    run: (packet) => {
      frame.place(packet);
      const end = run(frame.xdp.address);
      return {
        end,
        packet: bytesToHex(frame.xdp.packet()),
        metadata: bytesToHex(frame.metadata()),
        maps: describeMaps(object.maps.values()),
      };
    },
    close: () => {
      close();
      object.free();
    },
  };
}

/** The low half is all that XDP looks at, but a JIT that gets the upper one wrong is wrong. */
const returned = (r0: bigint): string => `r0 ${hex64(r0)}`;

function interpreterSide(kernel: Kernel, { load, program }: VerifyRequest): Side {
  const object = load();
  const runner = createRunner(kernel, 'interpreter', object.program(program).xlated);
  const run = (context: bigint): string => {
    const result = runner.run(context);
    return result.kind === 'return' ? returned(result.r0) : result.reason;
  };
  return sideOf(kernel, object, run, () => runner.close());
}

function foreignSide(kernel: Kernel, request: VerifyRequest): Side {
  const { image, kallsyms, load, program } = request;
  const object = load();
  const traits = readTraits(image.functions.map(({ words }) => words)).offsets;
  const own = kernel.bpf.profile.offsets;
  const offsets = {
    maxEntries: traits.maxEntries ?? own.maxEntries,
    ptrs: traits.ptrs ?? arrayValueOffset(image) ?? own.ptrs,
  };
  const maps = [...object.maps.values()];
  const { xlated } = object.program(program);
  const { ptrs } = kernel.bpf.profile.offsets;
  const windows = new MapWindows(kernel.memory, xlated, maps, image.constants, offsets, ptrs);
  const close: (() => void)[] = [() => windows.close()];
  try {
    const helpers = new Map(
      image.calls.map((address) => [address, helperAt(kernel, kallsyms, address, windows)]),
    );
    const pieces = image.functions.map(({ base, words }) => ({ address: base, words }));
    const text = new ForeignText(kernel, pieces, helpers);
    close.unshift(() => text.close());
  } catch (error) {
    for (const step of close) step();
    object.free();
    throw error;
  }
  windows.push();
  const run = (context: bigint): string => {
    try {
      return returned(kernel.call(image.functions[0]?.base ?? 0n, context));
    } catch (error) {
      if (error instanceof KernelOops) return error.message;
      throw error;
    } finally {
      windows.pull();
    }
  };
  return sideOf(kernel, object, run, () => close.forEach((step) => step()));
}

/** The lab's helper in the place of the other kernel's function at `address`. */
function helperAt(
  kernel: Kernel,
  kallsyms: Kallsyms,
  address: bigint,
  windows: MapWindows,
): KernelFunction {
  const name = kallsyms.nameAt(address);
  if (name === undefined) {
    throw new InputError(`the image calls ${hex64(address)}, which kallsyms does not name`);
  }
  const known = kernel.symbols.find(helperOf(name))?.address;
  const fn = known === undefined ? undefined : kernel.text.functions.get(known);
  if (!fn) throw new InputError(`the image calls ${name}, which the lab does not have`);
  return translated({ ...fn, name }, windows);
}

/** The function with maps and pointers into them translated on the way in and out. */
function translated(fn: KernelFunction, windows: MapWindows): KernelFunction {
  const result = (value: bigint | void): bigint => {
    windows.push();
    return windows.toForeign(value ?? 0n);
  };
  // its `leaf` would go past the translation
  const { leaf: _, ...signature } = fn;
  return {
    ...signature,
    *body(kernel, ...args) {
      windows.pull();
      const inner = fn.body(kernel, ...args.map((value) => windows.toLab(value)));
      return result(typeof inner === 'object' ? yield* inner : inner);
    },
  };
}
