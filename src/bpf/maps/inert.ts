/**
 * Maps for things that are not here: sockets, cgroups, tasks, inodes, stack traces, records from user space.
 *
 * An object often has such a map for one of its programs; the others load and run all the same, as in the
 * kernel. The map exists and is empty, all operations are refused. Left out: their contents.
 */
import { ERRNO, type ErrnoName } from '../../common/errno.js';
import { KeylessMap } from './keyless.js';

export class InertMap extends KeylessMap {
  protected readonly refusal: ErrnoName = 'EOPNOTSUPP';

  /** sock_map_delete_elem and sock_hash_delete_elem, where nothing is. */
  protected override erase(): number {
    if (this.spec.type === 'SOCKMAP') return -ERRNO.EINVAL;
    return this.spec.type === 'SOCKHASH' ? -ERRNO.ENOENT : super.erase();
  }

  override get(): undefined {
    return undefined;
  }
}
