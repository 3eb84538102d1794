/**
 * The device's end of the control virtqueue: takes commands off the ring, answers them.
 *
 * Reference: virtio 1.4, "Control Virtqueue"; QEMU's virtio_net_handle_ctrl: a chain without a whole header
 * or without room for the ack breaks the device. What a command does is `control/execute.ts`.
 *
 * Usage:
 *   const why = runControlQueue(memory, queue, (request) => executor(request));
 */
import type { BufferAccess } from '../ring/buffer-access.js';
import { QUEUE_BROKEN, QUEUE_EMPTY, type DeviceQueue } from '../ring/device-queue.js';
import { PieceList } from '../ring/piece-list.js';

/** Ack and reply: what goes into the device-writable part. */
export type ControlAnswer = { readonly ack: number; readonly reply?: Uint8Array };

/** Gives a command's chain back. */
export type CompleteCommand = (queue: DeviceQueue, head: number, written: number) => void;

/**
 * Answers all commands in the queue; why the driver broke the device, if it did. `complete` is for a device
 * that does not give chains back as it should.
 */
export function runControlQueue(
  { ram }: BufferAccess,
  queue: DeviceQueue,
  answer: (request: Uint8Array) => ControlAnswer,
  complete: CompleteCommand = (each, head, written) => each.push(head, written),
): string | undefined {
  for (;;) {
    const readable = new PieceList();
    const writable = new PieceList();
    const head = queue.take(readable, writable);
    if (head === QUEUE_EMPTY) return undefined;
    if (head === QUEUE_BROKEN) return queue.broken ?? '';
    const request = new Uint8Array(readable.bytes());
    let at = 0;
    for (let i = 0; i < readable.count; i++) {
      request.set(ram.slice(readable.address(i), readable.length(i)), at);
      at += readable.length(i);
    }
    if (request.length < 2) return `control command of ${request.length} bytes`;
    const room = writable.bytes();
    if (room < 1) return 'control command without room for the ack';

    const { ack, reply } = answer(request);
    const answered = new Uint8Array(Math.min(room, 1 + (reply?.length ?? 0)));
    answered[0] = ack;
    if (reply) answered.set(reply.subarray(0, answered.length - 1), 1);
    let from = 0;
    for (let i = 0; i < writable.count && from < answered.length; i++) {
      const part = answered.subarray(from, from + writable.length(i));
      ram.bytes.set(part, writable.address(i));
      from += part.length;
    }
    complete(queue, head, answered.length);
    queue.flush();
  }
}
