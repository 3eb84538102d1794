/**
 * Stack frames of the interpreter: 512 bytes per call depth, each in a region of its own.
 *
 * An access beyond a frame faults. Frames are mapped when a depth is first reached and kept; interpreters
 * of which one runs at a time may share them. Reference: MAX_BPF_STACK and MAX_CALL_FRAMES in
 * include/linux/{filter,bpf_verifier}.h.
 */
import type { Region } from '../../cpu/memory.js';
import type { BpfHost } from '../host.js';

/** MAX_BPF_STACK */
const STACK_SIZE = 512;
/** MAX_CALL_FRAMES */
export const MAX_CALL_FRAMES = 8;

export class FrameStack {
  /** Frame pointer of each depth. */
  readonly pointers = new BigInt64Array(MAX_CALL_FRAMES);
  readonly #host: BpfHost;
  readonly #frames: Region[] = [];

  constructor(host: BpfHost) {
    this.#host = host;
  }

  /** Frames that there are. */
  get mapped(): number {
    return this.#frames.length;
  }

  /** Maps the next frame. */
  grow(): void {
    const depth = this.#frames.length;
    const frame = this.#host.allocate(`bpf_stack_${depth}`, STACK_SIZE);
    this.#frames.push(frame);
    this.pointers[depth] = frame.address + BigInt(STACK_SIZE);
  }

  /** Gives the frames back to the host. */
  close(): void {
    for (const frame of this.#frames.splice(0)) this.#host.release(frame);
  }
}
