/**
 * All kernel functions of the virtio-net driver and of the virtqueues it uses.
 *
 * Reference: drivers/net/virtio_net.c. The functions hold no state: everything is reached from their
 * arguments.
 */
import type { KernelFunction } from '../../kernel/function.js';
import { virtqueueFunctions } from '../ring/virtqueue-functions.js';
import { attachFunctions } from './attach.js';
import { bigFunctions } from './big.js';
import { coalesceFunctions } from './coalesce.js';
import type { VirtioNetHost } from './common.js';
import { controlFunctions } from './control.js';
import { mergeableFunctions } from './mergeable.js';
import { offloadFunctions } from './offloads.js';
import { queueFunctions } from './queues.js';
import { receiveFunctions } from './receive.js';
import { refillFunctions } from './refill.js';
import { rssFunctions } from './rss.js';
import { rssHashFunctions } from './rss-hash.js';
import { rxModeFunctions } from './rx-mode.js';
import { smallFunctions } from './small.js';
import { transmitFunctions } from './transmit.js';
import { transmitNapiFunctions } from './transmit-napi.js';
import { xdpFunctions } from './xdp.js';
import { xskPoolFunctions } from './xsk.js';

/** Every function of the driver, with the names and prototypes of Linux 6.12. */
export function virtioNetFunctions(host: VirtioNetHost): readonly KernelFunction[] {
  return [
    ...receiveFunctions,
    ...smallFunctions,
    ...mergeableFunctions,
    ...bigFunctions,
    ...refillFunctions,
    ...xdpFunctions(host),
    ...xskPoolFunctions(host),
    ...transmitFunctions,
    ...transmitNapiFunctions,
    ...controlFunctions,
    ...offloadFunctions,
    ...queueFunctions,
    ...rssFunctions,
    ...rssHashFunctions,
    ...rxModeFunctions,
    ...coalesceFunctions,
    ...attachFunctions,
    ...virtqueueFunctions(host),
  ];
}
