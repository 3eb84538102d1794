/**
 * Kernel functions on dynptrs: of a packet, slices, narrowing, copies.
 *
 * A slice is the address of the bytes where they lie in one piece, else of a copy in the program's buffer.
 * Reference: kernel/bpf/helpers.c bpf_dynptr_slice and kin, net/core/filter.c bpf_dynptr_from_xdp.
 */
import { ERRNO } from '../../common/errno.js';
import {
  addressIn,
  clearDynptr,
  DYNPTR_SIZE,
  DYNPTR_TYPE,
  dynptrAt,
  initDynptr,
  isInside,
  isNull,
  narrowDynptr,
} from '../helpers/dynptr.js';
import { argument, argument32, fail, offsetOf, setResult, setResult64 } from '../helpers/helper.js';
import {
  copyFromPacket,
  frameAt,
  frameOf,
  lengthOf,
  packetPointer,
} from '../helpers/xdp-packet.js';
import type { BpfHost, HelperBody, RegisterPairs } from '../host.js';
import type { KfuncRow } from './kfunc.js';

/** R1 context, R2 flags, R3 the new dynptr. */
const fromXdp: HelperBody = (registers, host) => {
  const dynptr = dynptrAt(registers, host, 3);
  if (argument(registers, 2) !== 0n) {
    clearDynptr(dynptr);
    fail(registers, 'EINVAL');
    return;
  }
  const length = lengthOf(frameOf(registers, host));
  initDynptr(dynptr, DYNPTR_TYPE.XDP, argument(registers, 1), length);
  setResult(registers, 0);
};

/** R1 dynptr, R2 offset, R3 buffer or NULL, R4 length. */
function slice(registers: RegisterPairs, host: BpfHost, forWriting: boolean): void {
  const dynptr = dynptrAt(registers, host, 1);
  const offset = argument32(registers, 2) >>> 0;
  const length = argument32(registers, 4) >>> 0;
  const isThere = !isNull(dynptr) && isInside(dynptr, offset, length);
  if (!isThere || (forWriting && dynptr.isReadOnly)) {
    setResult64(registers, 0n);
    return;
  }
  if (dynptr.type !== DYNPTR_TYPE.XDP) {
    setResult64(registers, addressIn(dynptr, offset));
    return;
  }
  const frame = frameAt(host.memory, dynptr.dataHi, dynptr.dataLo);
  const pointer = packetPointer(frame, dynptr.offset + offset, length);
  const buffer = argument(registers, 3);
  if (pointer === undefined && buffer !== 0n) {
    const to = offsetOf(host.memory, registers, 3, length, 'write');
    copyFromPacket(frame, dynptr.offset + offset, to, length);
  }
  setResult64(registers, pointer ?? buffer);
}

/** R1 dynptr, R2 start, R3 end. */
const adjust: HelperBody = (registers, host) => {
  const dynptr = dynptrAt(registers, host, 1);
  const start = argument32(registers, 2) >>> 0;
  const end = argument32(registers, 3) >>> 0;
  if (isNull(dynptr) || start > end) fail(registers, 'EINVAL');
  else if (end > dynptr.size) fail(registers, 'ERANGE');
  else {
    narrowDynptr(dynptr, start, end);
    setResult(registers, 0);
  }
};

/** R1 dynptr, R2 the new one. */
const clone: HelperBody = (registers, host) => {
  const from = dynptrAt(registers, host, 1);
  const to = dynptrAt(registers, host, 2);
  host.memory.bytes.copyWithin(to.at, from.at, from.at + DYNPTR_SIZE);
  // a null dynptr is all zero, but for its offset
  if (isNull(from)) clearDynptr(to);
  setResult(registers, isNull(from) ? -ERRNO.EINVAL : 0);
};

export const DYNPTR_KFUNCS: readonly KfuncRow[] = [
  {
    prototype:
      'int bpf_dynptr_from_xdp(struct xdp_md *x, u64 flags, struct bpf_dynptr *ptr__uninit)',
    flags: [],
    kinds: ['xdp'],
    body: fromXdp,
  },
  {
    prototype:
      'void *bpf_dynptr_slice(const struct bpf_dynptr *p, u32 offset, void *buffer__opt, u32 buffer__szk)',
    flags: ['KF_RET_NULL'],
    body: (registers, host) => slice(registers, host, false),
  },
  {
    prototype:
      'void *bpf_dynptr_slice_rdwr(const struct bpf_dynptr *p, u32 offset, void *buffer__opt, u32 buffer__szk)',
    flags: ['KF_RET_NULL'],
    body: (registers, host) => slice(registers, host, true),
  },
  {
    prototype: 'int bpf_dynptr_adjust(const struct bpf_dynptr *p, u32 start, u32 end)',
    flags: [],
    body: adjust,
  },
  {
    prototype: 'bool bpf_dynptr_is_null(const struct bpf_dynptr *p)',
    flags: [],
    body: (registers, host) => setResult(registers, isNull(dynptrAt(registers, host, 1)) ? 1 : 0),
  },
  {
    prototype: 'bool bpf_dynptr_is_rdonly(const struct bpf_dynptr *p)',
    flags: [],
    body: (registers, host) => {
      const dynptr = dynptrAt(registers, host, 1);
      setResult(registers, !isNull(dynptr) && dynptr.isReadOnly ? 1 : 0);
    },
  },
  {
    prototype: 'u32 bpf_dynptr_size(const struct bpf_dynptr *p)',
    flags: [],
    body: (registers, host) => {
      const dynptr = dynptrAt(registers, host, 1);
      // the errno of a null dynptr is cut to 32 bits
      const size = isNull(dynptr) ? BigInt.asUintN(32, BigInt(-ERRNO.EINVAL)) : BigInt(dynptr.size);
      setResult64(registers, size);
    },
  },
  {
    prototype: 'int bpf_dynptr_clone(const struct bpf_dynptr *p, struct bpf_dynptr *clone__uninit)',
    flags: [],
    body: clone,
  },
];
