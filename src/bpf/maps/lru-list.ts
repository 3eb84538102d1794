/**
 * The kernel's approximate LRU: which element a full LRU hash map gives up.
 *
 * Reference: kernel/bpf/bpf_lru_list.c (6.12). Nodes sit on an active, an inactive or a free list. A
 * lookup only marks its node; the lists are rotated when nodes run out: marked nodes go to the front of
 * the active list, others drift to the inactive one, whose tail is evicted. In a common LRU each CPU
 * also keeps a local stock of free nodes and the pending list of those it took from it lately; with
 * BPF_F_NO_COMMON_LRU each CPU has lists and nodes of its own. Left out: 6.17's smaller stock for small
 * maps (`target_free`).
 *
 * Usage:
 *   const lru = new LruList({ nodes: 128, cpus: 2, common: true, marks, evict: (node) => table.remove(node) });
 *   const node = lru.take(cpu);   // -1: nothing can be evicted
 *   lru.mark(node);
 *   lru.release(node);
 */

/** LOCAL_FREE_TARGET and LOCAL_NR_SCANS; PERCPU_FREE_TARGET and PERCPU_NR_SCANS. */
const LOCAL_FREE_TARGET = 128;
const LOCAL_NR_SCANS = 128;
const PERCPU_FREE_TARGET = 4;
const PERCPU_NR_SCANS = 4;

/** Where a node is: BPF_LRU_LIST_T_*, BPF_LRU_LOCAL_LIST_T_*. */
const ACTIVE = 0;
const INACTIVE = 1;
const FREE = 2;
const LOCAL_FREE = 3;
const LOCAL_PENDING = 4;

/** A byte per node, 1 when it was used: where that of node 0 is, and how far it is to the next one. */
export interface LruMarks {
  readonly bytes: Uint8Array;
  readonly stride: number;
}

export interface LruOptions {
  readonly nodes: number;
  readonly cpus: number;
  /** One set of lists for all CPUs; else one for each. */
  readonly common: boolean;
  readonly marks: LruMarks;
  /** Removes a node's entry from the table; false when the node holds none any more. */
  readonly evict: (node: number) => boolean;
}

/** One `struct bpf_lru_list`: indexes of its list heads among the links. */
interface Lists {
  /** Heads by ACTIVE, INACTIVE, FREE. */
  readonly heads: readonly [number, number, number];
  /** Nodes on ACTIVE and INACTIVE. */
  readonly counts: Int32Array;
  nextInactiveRotation: number;
}

/** One `struct bpf_lru_locallist`. */
interface Local {
  readonly free: number;
  readonly pending: number;
  nextSteal: number;
}

export class LruList {
  readonly #options: LruOptions;
  readonly #scans: number;
  readonly #next: Int32Array;
  readonly #prev: Int32Array;
  readonly #place: Uint8Array;
  readonly #marked: Uint8Array;
  readonly #markStride: number;
  readonly #cpu: Uint16Array;
  readonly #lists: readonly Lists[];
  readonly #locals: readonly Local[];

  constructor(options: LruOptions) {
    const { nodes, cpus, common } = options;
    this.#options = options;
    this.#scans = common ? LOCAL_NR_SCANS : PERCPU_NR_SCANS;
    const heads = common ? 3 + 2 * cpus : 3 * cpus;
    this.#next = Int32Array.from({ length: nodes + heads }, (_, i) => i);
    this.#prev = this.#next.slice();
    this.#place = new Uint8Array(nodes).fill(FREE);
    this.#marked = options.marks.bytes;
    this.#markStride = options.marks.stride;
    this.#cpu = new Uint16Array(nodes);
    let head = nodes;
    this.#lists = Array.from({ length: common ? 1 : cpus }, () => {
      const first = head;
      head += 3;
      return {
        heads: [first, first + 1, first + 2] as const,
        counts: new Int32Array(2),
        nextInactiveRotation: first + INACTIVE,
      };
    });
    this.#locals = Array.from({ length: common ? cpus : 0 }, (_, cpu) => {
      head += 2;
      return { free: head - 2, pending: head - 1, nextSteal: (cpu + 1) % cpus };
    });
    this.#populate();
  }

  /** A lookup by a program: bpf_lru_node_set_ref. */
  mark(node: number): void {
    this.#marked[node * this.#markStride] = 1;
  }

  /** bpf_lru_pop_free: a node for `cpu`, evicting another entry when needed; -1 when none is left. */
  take(cpu: number): number {
    const node = this.#options.common ? this.#takeCommon(cpu) : this.#takeOwn(cpu);
    if (node >= 0) this.#marked[node * this.#markStride] = 0;
    return node;
  }

  /** bpf_lru_push_free: the node's entry is gone. */
  release(node: number): void {
    const local = this.#locals[this.#cpu[node]];
    if (this.#place[node] === LOCAL_PENDING && local) {
      this.#place[node] = LOCAL_FREE;
      this.#marked[node * this.#markStride] = 0;
      this.#move(node, local.free);
    } else {
      this.#moveTo(this.#listsOf(this.#cpu[node]), node, FREE);
    }
  }

  #populate(): void {
    const { nodes, cpus, common } = this.#options;
    const share = common ? nodes : Math.floor(nodes / cpus);
    for (let node = 0; node < nodes; node++) {
      const cpu = common ? 0 : Math.min(Math.floor(node / share), cpus - 1);
      this.#cpu[node] = cpu;
      this.#add(node, this.#listsOf(cpu).heads[FREE]);
    }
  }

  #listsOf(cpu: number): Lists {
    return this.#lists[this.#options.common ? 0 : cpu] as Lists;
  }

  #takeOwn(cpu: number): number {
    const lists = this.#listsOf(cpu);
    const free = lists.heads[FREE];
    this.#rotate(lists);
    if (this.#isEmpty(free)) this.#shrink(lists, PERCPU_FREE_TARGET, free, FREE);
    const node = this.#next[free];
    if (node === free) return -1;
    this.#moveTo(lists, node, INACTIVE);
    return node;
  }

  #takeCommon(cpu: number): number {
    const own = this.#locals[cpu] as Local;
    let node = this.#popFree(own);
    if (node < 0) {
      this.#refill(this.#listsOf(0), own);
      node = this.#popFree(own);
    }
    let steal = own.nextSteal;
    for (let tries = 0; node < 0 && tries < this.#locals.length; tries++) {
      const other = this.#locals[steal] as Local;
      node = this.#popFree(other);
      if (node < 0) node = this.#popPending(other);
      steal = (steal + 1) % this.#locals.length;
      own.nextSteal = steal;
    }
    if (node < 0) return -1;
    this.#cpu[node] = cpu;
    this.#place[node] = LOCAL_PENDING;
    this.#add(node, own.pending);
    return node;
  }

  #popFree(local: Local): number {
    const node = this.#next[local.free];
    if (node === local.free) return -1;
    this.#remove(node);
    return node;
  }

  /** The oldest pending node that can be evicted, an unmarked one first. */
  #popPending(local: Local): number {
    for (const force of [false, true]) {
      for (let node = this.#prev[local.pending]; node !== local.pending; node = this.#prev[node]) {
        if ((!force && this.#marked[node * this.#markStride] === 1) || !this.#options.evict(node))
          continue;
        this.#remove(node);
        return node;
      }
    }
    return -1;
  }

  /** bpf_lru_list_pop_free_to_local */
  #refill(lists: Lists, local: Local): void {
    let pending = this.#prev[local.pending];
    while (pending !== local.pending) {
      const before = this.#prev[pending];
      const place = this.#marked[pending * this.#markStride] === 1 ? ACTIVE : INACTIVE;
      lists.counts[place]++;
      this.#place[pending] = place;
      this.#marked[pending * this.#markStride] = 0;
      this.#move(pending, lists.heads[place]);
      pending = before;
    }
    this.#rotate(lists);
    let taken = 0;
    const free = lists.heads[FREE];
    while (taken < LOCAL_FREE_TARGET && !this.#isEmpty(free)) {
      this.#moveToFree(lists, this.#next[free], local.free, LOCAL_FREE);
      taken++;
    }
    if (taken < LOCAL_FREE_TARGET) {
      this.#shrink(lists, LOCAL_FREE_TARGET - taken, local.free, LOCAL_FREE);
    }
  }

  #rotate(lists: Lists): void {
    if (lists.counts[INACTIVE] < lists.counts[ACTIVE]) this.#rotateActive(lists);
    this.#rotateInactive(lists);
  }

  /** Marked nodes go to the front, others to the inactive list. */
  #rotateActive(lists: Lists): void {
    const head = lists.heads[ACTIVE];
    const first = this.#next[head];
    let node = this.#prev[head];
    for (let scanned = 1; node !== head; scanned++) {
      const before = this.#prev[node];
      this.#moveTo(lists, node, this.#marked[node * this.#markStride] === 1 ? ACTIVE : INACTIVE);
      if (scanned === this.#scans || node === first) break;
      node = before;
    }
  }

  /** From where it stopped last time, moves marked nodes to the active list. */
  #rotateInactive(lists: Lists): void {
    const head = lists.heads[INACTIVE];
    if (this.#isEmpty(head)) return;
    let last = this.#next[lists.nextInactiveRotation];
    if (last === head) last = this.#next[last];
    let current = lists.nextInactiveRotation;
    let next = current;
    for (let scanned = 0; scanned < this.#scans;) {
      if (current === head) {
        current = this.#prev[current];
        continue;
      }
      next = this.#prev[current];
      if (this.#marked[current * this.#markStride] === 1) this.#moveTo(lists, current, ACTIVE);
      if (current === last) break;
      current = next;
      scanned++;
    }
    lists.nextInactiveRotation = next;
  }

  /** Evicts up to `wanted` entries; when all are marked, one of them all the same. */
  #shrink(lists: Lists, wanted: number, to: number, place: number): void {
    if (this.#shrinkInactive(lists, wanted, to, place) > 0) return;
    const inactive = lists.heads[INACTIVE];
    const head = this.#isEmpty(inactive) ? lists.heads[ACTIVE] : inactive;
    for (let node = this.#prev[head]; node !== head; node = this.#prev[node]) {
      if (!this.#options.evict(node)) continue;
      this.#moveToFree(lists, node, to, place);
      return;
    }
  }

  #shrinkInactive(lists: Lists, wanted: number, to: number, place: number): number {
    const head = lists.heads[INACTIVE];
    let evicted = 0;
    let node = this.#prev[head];
    for (let scanned = 1; node !== head; scanned++) {
      const before = this.#prev[node];
      if (this.#marked[node * this.#markStride] === 1) {
        this.#moveTo(lists, node, ACTIVE);
      } else if (this.#options.evict(node)) {
        this.#moveToFree(lists, node, to, place);
        if (++evicted === wanted) break;
      }
      if (scanned === this.#scans) break;
      node = before;
    }
    return evicted;
  }

  /** To the front of ACTIVE, INACTIVE or FREE, unmarked. */
  #moveTo(lists: Lists, node: number, place: 0 | 1 | 2): void {
    if (node === lists.nextInactiveRotation) lists.nextInactiveRotation = this.#prev[node];
    const from = this.#place[node];
    if (from !== place) {
      if (from < FREE) lists.counts[from]--;
      if (place < FREE) lists.counts[place]++;
      this.#place[node] = place;
    }
    this.#marked[node * this.#markStride] = 0;
    this.#move(node, lists.heads[place]);
  }

  #moveToFree(lists: Lists, node: number, head: number, place: number): void {
    if (node === lists.nextInactiveRotation) lists.nextInactiveRotation = this.#prev[node];
    const from = this.#place[node];
    if (from < FREE) lists.counts[from]--;
    this.#place[node] = place;
    this.#move(node, head);
  }

  #isEmpty(head: number): boolean {
    return this.#next[head] === head;
  }

  #add(node: number, head: number): void {
    const first = this.#next[head];
    this.#next[node] = first;
    this.#prev[node] = head;
    this.#prev[first] = node;
    this.#next[head] = node;
  }

  #remove(node: number): void {
    this.#next[this.#prev[node]] = this.#next[node];
    this.#prev[this.#next[node]] = this.#prev[node];
  }

  #move(node: number, head: number): void {
    this.#remove(node);
    this.#add(node, head);
  }
}
