/**
 * Runs programs of a corpus in a lab kernel, the way BPF_PROG_TEST_RUN ran them in the booted one: loaded
 * from their instructions through our own verifier, on the engine chosen.
 *
 * Reference: bpf_prog_test_run_xdp and bpf_prog_test_run_skb of net/bpf/test_run.c. What a socket filter
 * is given has lost its Ethernet header and gets a zeroed one back afterwards. There is no socket buffer
 * here: R1 of a socket filter points to nothing of use, and programs that look into it are not run.
 */
import { isProgArray } from '../../../bpf/maps/map.js';
import { load, type LoadedObject } from '../../../bpf/object/load.js';
import { OPCODES } from '../../../bpf/opcodes.js';
import { XdpTestFrame } from '../../../bpf/xdp-test-run.js';
import type { Kernel } from '../../../kernel/kernel.js';
import { createRunner, type RunEngine } from '../../run-program.js';
import { bytesToHex, hexToBytes } from '../../../common/bytes.js';
import { compareValues } from '../../../jit/vectors/compare.js';
import { corpusObject, fillMap, TAIL_CALL_TARGETS } from './corpus-object.js';
import type { CorpusProgram } from './corpus-file.js';

const MAY_GOTO = 0xe5;
const BPF_FUNC_SKB_LOAD_BYTES = 26;
const ETH_HLEN = 14;
/** Kinds of instructions that write dst. */
const WRITING: readonly string[] = ['alu', 'neg', 'end', 'load', 'ld_imm64'];
/** A stand-in for a struct sk_buff. */
const CONTEXT_SIZE = 256;

/**
 * Does a socket filter look into its socket buffer: with a load through R1 as it came in, an absolute
 * load, or bpf_skb_load_bytes?
 */
export function readsSocketBuffer({ type, slots }: Pick<CorpusProgram, 'type' | 'slots'>): boolean {
  if (type !== 'socket') return false;
  let context = true;
  for (const { code, dst, src, imm } of slots) {
    const opcode = OPCODES[code];
    switch (opcode?.kind) {
      case 'packet_load':
        return true;
      case 'call':
        if (src === 0 && imm === BPF_FUNC_SKB_LOAD_BYTES) return true;
        context = false;
        break;
      case 'load':
        if (src === 1 && context) return true;
        break;
      default:
    }
    if (dst === 1 && opcode !== undefined && WRITING.includes(opcode.kind)) context = false;
  }
  return false;
}

/** What is loaded. */
type Loadable = Pick<CorpusProgram, 'name' | 'type' | 'slots'>;

export class CorpusRunner {
  readonly #kernel: Kernel;
  readonly #engine: RunEngine;
  readonly #programs: readonly CorpusProgram[];
  readonly #frame: XdpTestFrame;
  readonly #context: bigint;

  constructor(kernel: Kernel, engine: RunEngine, programs: readonly CorpusProgram[]) {
    this.#kernel = kernel;
    this.#engine = engine;
    this.#programs = programs;
    this.#frame = new XdpTestFrame(kernel.bpf.host);
    this.#context = kernel.bpf.host.allocate('socket buffer', CONTEXT_SIZE).address;
  }

  /**
   * Loads a program. Throws KernelError when it is refused. One with may_goto, whose loops our verifier does
   * not follow, is loaded unchecked.
   */
  load({ name, type, slots }: Loadable): LoadedObject {
    const check = slots.every(({ code }) => code !== MAY_GOTO);
    return load(corpusObject(name, type, slots), this.#kernel.bpf.host, { check });
  }

  /** The first difference from what was recorded. Throws KernelError when the JIT refuses it. */
  run(program: CorpusProgram, object: LoadedObject): string | undefined {
    const { record, type } = program;
    const undo = this.#prepareMaps(object);
    const runner = createRunner(this.#kernel, this.#engine, object.program(program.name).xlated);
    try {
      const data = hexToBytes(record.text('data_in'));
      if (type === 'xdp') this.#frame.place(data);
      const result = runner.run(type === 'xdp' ? this.#frame.xdp.address : this.#context);
      if (result.kind !== 'return') return result.reason;
      if (type === 'socket') data.fill(0, 0, ETH_HLEN);
      const after = type === 'xdp' ? this.#frame.xdp.packet() : data;
      return compareValues([
        ['rc', record.number('rc'), 0],
        ['retval', record.number('retval') >>> 0, Number(BigInt.asUintN(32, result.r0))],
        ['data_out', record.text('data_out'), bytesToHex(after)],
      ]);
    } finally {
      runner.close();
      for (const step of undo) step();
    }
  }

  /** Contents of maps; programs that tail calls jump to are loaded with it. */
  #prepareMaps(object: LoadedObject): (() => void)[] {
    const undo: (() => void)[] = [];
    for (const map of object.maps.values()) {
      if (!isProgArray(map)) {
        fillMap(map);
        continue;
      }
      for (const [index, name] of TAIL_CALL_TARGETS.entries()) {
        const target = this.#programs.find((each) => each.name === name);
        if (!target) continue;
        const loaded = this.load(target);
        // it jumps to itself: through the array that is there
        const { xlated } =
          target.name === object.spec.name ? object.program(name) : loaded.program(name);
        const placed = this.#engine === 'jit' ? this.#kernel.bpf.load(xlated) : undefined;
        map.setProgram(index, xlated, placed?.address);
        undo.push(() => {
          placed?.free();
          loaded.free();
        });
      }
    }
    return undo;
  }
}
