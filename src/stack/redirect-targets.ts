/**
 * What entries of redirect maps stand for in this stack, and all its functions for XDP.
 *
 * Reference: dev_map_update_elem, cpu_map_update_elem, xsk_map_update_elem. A program in a value is named by
 * its descriptor, which user space reads back as its id; it must have been loaded for that kind of map.
 */
import type { BpfMap } from '../bpf/maps/map.js';
import type { RedirectTargets } from '../bpf/redirect-info.js';
import { viewOf } from '../common/bytes.js';
import { ERRNO } from '../common/errno.js';
import type { KernelFunction } from '../kernel/function.js';
import { CpuMapEntry, cpumapFunctions } from './cpumap.js';
import { createDtabNetdev, devmapFunctions } from './devmap.js';
import { genericRedirectFunctions } from './generic-redirect.js';
import type { NetStack } from './net-stack.js';
import { vethFunctions } from './veth.js';
import { xdpMetadataOf } from './xdp-metadata.js';
import { redirectFunctions } from './xdp-redirect.js';
import type { XdpRunner } from './xdp-program.js';
import { xskFunctions } from './xsk.js';
import { XDP_SOCK } from './xsk-structs.js';

/** Every function of the stack for XDP, with the names and prototypes of Linux 6.12. */
export function stackFunctions(stack: NetStack): readonly KernelFunction[] {
  return [
    ...redirectFunctions(stack),
    ...genericRedirectFunctions(stack),
    ...devmapFunctions(stack),
    ...cpumapFunctions(stack),
    ...xskFunctions(stack),
    ...vethFunctions(stack),
  ];
}

/** Makes the entries of the kernel's redirect maps work, and metadata of packets known. */
export function connectMaps(stack: NetStack): void {
  if (!stack.bpf) return;
  stack.bpf.redirectTargets = redirectTargets(stack);
  stack.bpf.returnFragment = (page) => stack.putPageAt(page);
  stack.bpf.network.xdpMetadata = xdpMetadataOf(stack);
}

function redirectTargets(stack: NetStack): RedirectTargets {
  const cpus = new Map<number, CpuMapEntry>();
  const { physical, memory } = stack.kernel;
  return {
    create: (map, key, value) => {
      const view = viewOf(value);
      const first = view.getUint32(0, true);
      switch (map.spec.type) {
        case 'DEVMAP':
        case 'DEVMAP_HASH': {
          const dev = stack.devices.byIndex(first);
          const prog = programIn(stack, value, 'devmap');
          if (dev === 0 || prog < 0) return -ERRNO.EINVAL;
          return createDtabNetdev(stack, dev, prog);
        }
        case 'CPUMAP': {
          const prog = programIn(stack, value, 'cpumap');
          if (prog < 0) return -ERRNO.ENOMEM;
          const options = { cpu: key, mapId: map.id, qsize: first, prog };
          const entry = new CpuMapEntry(stack, options);
          cpus.set(entry.address, entry);
          return entry.address;
        }
        default:
          return stack.sockets.byDescriptor(first) || -ERRNO.EBADF;
      }
    },
    queueOf: (target) => memory.ram.u32(target + XDP_SOCK.offset.queue_id),
    free: (map: BpfMap, target) => {
      if (map.spec.type === 'CPUMAP') {
        cpus.get(target)?.free();
        cpus.delete(target);
      } else if (map.spec.type !== 'XSKMAP') physical.free(target);
    },
  };
}

/** The program in a value: its address, 0 for none, -1 for one that does not fit the map. */
function programIn(stack: NetStack, value: Uint8Array, attach: XdpRunner['attach']): number {
  if (value.length < 8) return 0;
  const descriptor = viewOf(value).getInt32(4, true);
  if (descriptor <= 0) return 0;
  const prog = stack.programs.byId(descriptor);
  return prog !== 0 && stack.programs.runner(prog).attach === attach ? prog : -1;
}
