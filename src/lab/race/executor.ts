/**
 * A CPU that executes the calls of a plan, as a graph of its own states.
 *
 * A node is everything private to the CPU and its task (registers, stack, task_struct, per-CPU words) in front of
 * an action that others can see or that sees others: the fetch of text that changes, a load or addition of
 * shared data, the start of a call, a sleep. Between two such actions the CPU runs real A64 text on the
 * embedded engine; what it does there commutes with all others. An edge is labelled with the versions that the
 * action saw, and is executed once, however many schedules pass it. An instruction that changes and itself loads
 * what changes is two actions: its fetch, then its load.
 *
 * C functions with TypeScript bodies run where the text hits their BRK; those that touch nothing shared are
 * part of an edge. What a CPU stores outside the plan's objects is its own copy: nobody else reads it.
 */
import { decode } from '../../a64/codec.js';
import { AARCH64_BREAK_FAULT } from '../../a64/immediates.js';
import { hex64 } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import { accessesOf } from '../../cpu/access.js';
import type { Cpu, Registers } from '../../cpu/cpu.js';
import { describeFault } from '../../cpu/fault.js';
import type { KernelFunction } from '../../kernel/function.js';
import type { Kernel } from '../../kernel/kernel.js';
import { TASK_STRUCT } from '../../kernel/offsets.js';
import type { Task } from '../../kernel/task.js';
import { ExecutorContext } from './context.js';
import { changedForBody, changedForCaller, registersAtCall } from './convention.js';
import type { Problem } from './invariants.js';
import {
  keyOf,
  type Action,
  type CallbackEvent,
  type ExecutedWord,
  type LocalEdge,
  type LocalNode,
  type LocalState,
  type Standing,
} from './local-graph.js';
import { valueOf, type PlanProgram, type SharedObject } from './objects.js';
import type { PatchPlan } from './plan.js';
import { PrivateWords } from './private-words.js';

/** Most instructions of one edge. */
const BUDGET = 20_000;
/** Name of the function in which a CPU's task sleeps, and of that which looks ops up. */
const SLEEP = 'lab_schedule';
const OPS_TEST = 'lab_ops_test';

export class ExecutorGraph {
  readonly nodes: LocalNode[] = [];
  /** Instructions executed while the graph was made. */
  instructions = 0;
  readonly #kernel: Kernel;
  readonly #plan: PatchPlan;
  readonly #objects: readonly SharedObject[];
  readonly #cpu: Cpu;
  readonly #task: Task;
  readonly #context: ExecutorContext;
  readonly #states: LocalState[] = [];
  readonly #byKey = new Map<string, number>();
  /** Words outside of the task's memory that it has stored to. */
  readonly #words: PrivateWords;
  readonly #returnAddress: bigint;
  readonly #fresh: Registers;
  readonly #freshTask: Uint8Array;
  readonly #sleepAt: bigint | undefined;
  readonly #testAt: bigint | undefined;
  // of the edge that is being executed
  #mode: LocalState['mode'] = 'idle';
  #bodies = 0;
  #reached = false;
  readonly #fetched = new Map<number, number>();
  #callbacks: CallbackEvent[] = [];
  #problem: Problem | undefined;
  #path: ExecutedWord[] = [];

  /** Memory is as before the first step of the plan. */
  constructor(kernel: Kernel, plan: PatchPlan, program: PlanProgram, task: Task) {
    this.#kernel = kernel;
    this.#plan = plan;
    this.#objects = program.objects;
    const cpu = kernel.cpus[0];
    if (!cpu) throw new InputError('a kernel without CPU');
    this.#cpu = cpu;
    this.#task = task;
    this.#context = new ExecutorContext(kernel, task.address);
    this.#words = new PrivateWords(kernel.memory);
    this.#returnAddress = kernel.symbol('lab_return') + 4n;
    this.#sleepAt = kernel.symbols.find(SLEEP)?.address;
    this.#testAt = kernel.symbols.find(OPS_TEST)?.address;
    this.#fresh = registersAtCall(kernel, plan.call, task);
    this.#freshTask = kernel.memory.readBytes(task.address, TASK_STRUCT.size);
    for (const { address, size, permissions } of kernel.memory.regions) {
      if (permissions.includes('x')) cpu.sync(address, address + BigInt(size));
    }
    this.#idle();
  }

  /**
   * The edge of `node` for an action that saw these versions (counters: values).
   */
  follow(node: LocalNode, seen: readonly number[]): LocalEdge {
    const key = seen.length === 1 ? (seen[0] as number) : seen.join();
    let edge = node.edges.get(key);
    if (!edge) {
      edge = this.#execute(node, seen);
      node.edges.set(key, edge);
    }
    return edge;
  }

  /** Puts memory back to what it was before the first step of the plan. */
  putBack(): void {
    for (const first of [true, false]) {
      for (const { id, kind, versions } of this.#objects) {
        if ((kind === 'range') !== first || versions.length === 0) continue;
        this.#load(id, kind === 'counter' ? Number(valueOf(versions[0] as Uint8Array)) : 0);
      }
    }
    this.#words.restore();
    this.#kernel.memory.writeBytes(this.#task.address, this.#freshTask);
  }

  #execute(node: LocalNode, seen: readonly number[]): LocalEdge {
    this.#restore(this.#states[node.id] as LocalState);
    const { action } = node;
    this.#loadInOrder(action.objects.map((id, i) => [id, seen[i] as number]));
    const counted = action.objects.find((id) => this.#objects[id]?.kind === 'counter');
    switch (action.kind) {
      case 'start':
        this.#mode = 'running';
        this.#arrive();
        break;
      case 'sleep':
        this.#mode = 'asleep';
        break;
      case 'wake':
        this.#mode = 'running';
        this.#cpu.pc += 4n;
        break;
      case 'fetch':
        action.objects.forEach((id, i) => this.#fetched.set(id, seen[i] as number));
        break;
      case 'load':
      case 'store':
        this.#step();
        break;
      case 'body':
        this.#runBody();
        break;
    }
    let counter: LocalEdge['counter'];
    if (counted !== undefined) {
      const { address } = this.#objects[counted] as SharedObject;
      counter = { object: counted, value: Number(this.#kernel.memory.read64(address)) };
    }
    const to = this.#problem ? node.id : this.#runPrivate();
    return {
      to,
      callbacks: this.#callbacks,
      ...(counter && { counter }),
      ...(this.#problem && { problem: this.#problem }),
      path: this.#path,
    };
  }

  /** Runs up to the next action and gives its node. */
  #runPrivate(): number {
    if (this.#mode === 'asleep') return this.#save({ kind: 'wake', pc: this.#cpu.pc, objects: [] });
    for (let left = BUDGET; left > 0; left--) {
      if (this.#problem) return 0;
      const { pc } = this.#cpu;
      if (pc === this.#returnAddress) {
        this.#checkReturn();
        return this.#idle();
      }
      const action = this.#actionAt(pc);
      if (action) return this.#save(action);
      if (this.#bodyAt(pc)) this.#runBody();
      else this.#step();
    }
    this.#fail('I2', `runs ${BUDGET} instructions without an end`);
    return 0;
  }

  /** What happens at `pc` if others can see it or it sees others. */
  #actionAt(pc: bigint): Action | undefined {
    const text = this.#touched(pc, 4, (kind) => kind !== 'data' && kind !== 'counter');
    if (text.some((id) => !this.#fetched.has(id))) return { kind: 'fetch', pc, objects: text };
    if (pc === this.#sleepAt) return { kind: 'sleep', pc, objects: [] };
    const body = this.#bodyAt(pc);
    if (body) {
      const counter = this.#counterOf(body);
      if (counter !== undefined) return { kind: 'body', pc, objects: [counter] };
      // grace periods see when it takes and leaves its locks
      return body.name.startsWith('__bpf_prog_') ? { kind: 'body', pc, objects: [] } : undefined;
    }
    const accesses = this.#accessesAt(pc);
    const objects = new Set<number>();
    let stores = false;
    let first: bigint | undefined;
    for (const { access, address, size } of accesses) {
      // loads are coherent with stores to text
      for (const id of this.#touched(
        address,
        size,
        (kind) => kind !== 'word' && kind !== 'range',
      )) {
        objects.add(id);
        first ??= address;
        stores ||= access === 'write';
      }
    }
    if (first === undefined) return undefined;
    return { kind: stores ? 'store' : 'load', pc, objects: [...objects], address: first };
  }

  /** An instruction has to be fetched anew each time, a range when it is entered. */
  #leaveText(pc: bigint): void {
    for (const id of this.#fetched.keys()) {
      const { kind, address, size } = this.#objects[id] as SharedObject;
      const isInside = pc >= address && pc < address + BigInt(size);
      if (kind === 'word' || !isInside) this.#fetched.delete(id);
    }
  }

  #touched(
    address: bigint,
    size: number,
    wanted: (kind: SharedObject['kind']) => boolean,
  ): number[] {
    const end = address + BigInt(size);
    const found: number[] = [];
    for (const each of this.#objects) {
      if (each.address < end && address < each.address + BigInt(each.size) && wanted(each.kind)) {
        found.push(each.id);
      }
    }
    return found;
  }

  #accessesAt(pc: bigint): ReturnType<typeof accessesOf> {
    const word = this.#wordAt(pc);
    const decoded = word === undefined ? undefined : decode(word);
    if (!decoded) return [];
    return accessesOf(decoded, pc, (n) => (n === 31 ? this.#cpu.sp : this.#cpu.getX(n)));
  }

  #wordAt(pc: bigint): number | undefined {
    return this.#kernel.memory.faultAt(pc, 4, 'fetch') ? undefined : this.#kernel.memory.read32(pc);
  }

  /** The TypeScript body behind the BRK at `pc`. */
  #bodyAt(pc: bigint): KernelFunction | undefined {
    return this.#kernel.text.bodies.get(pc);
  }

  /** The counter that a body adds to. */
  #counterOf(fn: KernelFunction): number | undefined {
    if (fn.name !== '__bpf_tramp_enter' && fn.name !== '__bpf_tramp_exit') return undefined;
    const address = this.#cpu.getX(0) + BigInt(this.#kernel.bpf.profile.trampImage.pcref);
    return this.#objects.find((each) => each.kind === 'counter' && each.address === address)?.id;
  }

  #runBody(): void {
    const { memory } = this.#kernel;
    const { pc } = this.#cpu;
    const fn = this.#bodyAt(pc);
    if (!fn) throw new InputError(`no body belongs to the BRK at ${hex64(pc)}`);
    const args = Array.from({ length: fn.parameters }, (_, i) => this.#cpu.getX(i));
    memory.watchStores((address) => this.#keepPrivate(address & ~7n));
    let result: ReturnType<KernelFunction['body']>;
    try {
      result = fn.body(this.#context, ...args);
    } finally {
      memory.watchStores(undefined);
    }
    if (typeof result === 'object') {
      throw new InputError(`${fn.name} calls others from TypeScript: it cannot be interleaved`);
    }
    if (result !== undefined) this.#cpu.setX(0, result);
    this.#path.push({ pc, word: memory.read32(pc) });
    this.#cpu.pc = pc + 4n;
    this.#arrive();
  }

  /** One instruction. */
  #step(): void {
    const { pc } = this.#cpu;
    const word = this.#wordAt(pc);
    for (const { access, address } of this.#accessesAt(pc)) {
      if (access === 'write') this.#keepPrivate(address & ~7n);
    }
    this.#path.push({ pc, word: word ?? 0 });
    if (pc === this.#testAt) {
      const [ops, ip] = [this.#cpu.getX(0), this.#cpu.getX(1)];
      const tracer = this.#plan.tracers?.find((each) => each.ops === ops);
      this.#cpu.setX(0, tracer?.covers(ip) === true ? 1n : 0n);
      this.#cpu.pc += 4n;
      return;
    }
    const stop = this.#cpu.step();
    this.instructions++;
    const where = this.#kernel.symbols.format(pc);
    switch (stop.kind) {
      case 'budget':
        this.#arrive();
        return;
      case 'trap':
        return word === AARCH64_BREAK_FAULT
          ? this.#fail('I2', `executes AARCH64_BREAK_FAULT at ${where}`)
          : this.#fail('I2', `${stop.instruction} #${stop.immediate} at ${where}`);
      case 'fault':
        return this.#fail('I2', `${describeFault(stop.fault)}, pc ${where}`);
      case 'undefined':
        return this.#fail('I2', `undefined instruction at ${where}`);
      case 'until':
      case 'breakpoint':
        throw new InputError(`a breakpoint at ${where}`);
    }
  }

  /** pc has come to an instruction: is it one where something is looked at? */
  #arrive(): void {
    const { pc } = this.#cpu;
    this.#leaveText(pc);
    const { callbacks, always, call } = this.#plan;
    if (callbacks?.has(pc)) {
      this.#callbacks.push({ at: pc, ip: this.#cpu.getX(0), ops: this.#cpu.getX(2) });
    }
    if (always?.includes(pc)) this.#reached = true;
    if (pc === call.body) this.#checkBody();
  }

  #checkBody(): void {
    this.#bodies++;
    if (this.#bodies > 1) this.#fail('I5', 'the body runs twice in one call');
    const cpu = this.#cpu;
    const lr = cpu.getX(30);
    const fresh = this.#fresh;
    if (lr === this.#returnAddress) {
      const changed = changedForBody(cpu, fresh, this.#plan.call);
      if (changed.length > 0) this.#fail('I1', `the body finds ${changed.join(', ')} changed`);
    } else if (cpu.sp === fresh.sp || !this.#isText(lr)) {
      // a trampoline that calls the original has its frame below the caller's
      const name = this.#kernel.symbols.format(lr);
      this.#fail('I1', `the body finds x30 = ${name} and not the caller's return address`);
    }
  }

  #isText(address: bigint): boolean {
    return this.#kernel.memory.regionAt(address)?.permissions.includes('x') ?? false;
  }

  #checkReturn(): void {
    const cpu = this.#cpu;
    const { call, always } = this.#plan;
    const changed = changedForCaller(cpu, this.#fresh);
    if (changed.length > 0) this.#fail('I8', `the caller gets ${changed.join(', ')} back changed`);
    const bits = call.resultBits ?? 32;
    const [got, wanted] = [cpu.getX(0), call.result].map((value) => BigInt.asUintN(bits, value));
    if (got !== wanted) this.#fail('I8', `the call returns ${got} and not ${wanted}`);
    const task = this.#kernel.memory.readBytes(this.#task.address, TASK_STRUCT.size);
    if (task.some((byte, i) => byte !== this.#freshTask[i])) {
      this.#fail('I8', 'nesting counts of the task are not what they were');
    }
    if (this.#bodies === 0) this.#fail('I5', 'the call returns without having run the body');
    if (always && always.length > 0 && !this.#reached) {
      this.#fail('I5', 'a call was not traced though the tracer was there all the time');
    }
  }

  #fail(invariant: Problem['invariant'], message: string): void {
    this.#problem ??= { invariant, message };
  }

  /** A store to an aligned u64 of memory that no other CPU looks at, or that others must not see. */
  #keepPrivate(address: bigint): void {
    if (this.#words.has(address) || this.#isTaskMemory(address)) return;
    const shared = this.#touched(address, 8, (kind) => kind !== 'counter' && kind !== 'block');
    const [object] = shared;
    if (object !== undefined && this.#objects[object]?.kind === 'data') {
      const { what } = this.#objects[object];
      throw new InputError(`${this.#plan.name}: an executing CPU stores to ${what}`);
    }
    if (this.#touched(address, 8, () => true).length === 0) this.#words.keep(address);
  }

  #isTaskMemory(address: bigint): boolean {
    const { stack, address: task } = this.#task;
    return (
      (address >= stack.address && address < stack.address + BigInt(stack.size)) ||
      (address >= task && address < task + BigInt(TASK_STRUCT.size))
    );
  }

  /** Puts a version (a counter's value) of an object where CPUs fetch and load it. */
  #load(id: number, version: number): void {
    const object = this.#objects[id] as SharedObject;
    if (object.kind === 'block') return;
    if (object.kind === 'counter') {
      this.#kernel.memory.write64(object.address, BigInt(version));
      return;
    }
    this.#kernel.memory.bytes.set(object.versions[version] as Uint8Array, object.offset);
    this.#cpu.sync(object.address, object.address + BigInt(object.size));
  }

  /** What lies in a range comes after it. */
  #loadInOrder(versions: readonly (readonly [number, number])[]): void {
    for (const first of [true, false]) {
      for (const [id, version] of versions) {
        if ((this.#objects[id]?.kind === 'range') === first) this.#load(id, version);
      }
    }
  }

  #idle(): number {
    this.#cpu.loadRegisters(this.#fresh);
    this.#kernel.memory.writeBytes(this.#task.address, this.#freshTask);
    this.#mode = 'idle';
    this.#bodies = 0;
    this.#reached = false;
    this.#fetched.clear();
    this.#words.restore();
    return this.#save({ kind: 'start', pc: this.#fresh.pc, objects: [] });
  }

  #save(action: Action): number {
    const { memory } = this.#kernel;
    const task = this.#task;
    const registers = this.#cpu.saveRegisters();
    const depth = Number(task.stackTop - registers.sp);
    const state: LocalState = {
      registers,
      stack: depth > 0 ? memory.readBytes(registers.sp, depth) : new Uint8Array(0),
      task: memory.readBytes(task.address, TASK_STRUCT.size),
      words: this.#words.changed(),
      mode: this.#mode,
      bodies: this.#bodies,
      reached: this.#reached,
      fetched: new Map(this.#fetched),
    };
    const key = keyOf(state);
    const known = this.#byKey.get(key);
    if (known !== undefined) return known;
    const id = this.nodes.length;
    this.#byKey.set(key, id);
    this.#states.push(state);
    this.nodes.push({ id, action, standing: this.#standing(action), edges: new Map() });
    return id;
  }

  #standing({ pc }: Action): Standing {
    const read = (offset: number): number =>
      this.#kernel.memory.read32(this.#task.address + BigInt(offset));
    return {
      quiescent: this.#mode !== 'running',
      guarded: read(TASK_STRUCT.trace_recursion) !== 0,
      rcuReader: read(TASK_STRUCT.rcu_read_lock_nesting) !== 0 || within(this.#plan.readers, pc),
      traceReader: read(TASK_STRUCT.trc_reader_nesting) !== 0,
      uninterrupted: within(this.#plan.uninterrupted, pc),
    };
  }

  #restore(state: LocalState): void {
    const { memory } = this.#kernel;
    this.#cpu.loadRegisters(state.registers);
    memory.writeBytes(state.registers.sp, state.stack);
    memory.writeBytes(this.#task.address, state.task);
    this.#words.restore(state.words);
    this.#mode = state.mode;
    this.#bodies = state.bodies;
    this.#reached = state.reached;
    this.#fetched.clear();
    for (const [id, version] of state.fetched) this.#fetched.set(id, version);
    this.#loadInOrder([...state.fetched]);
    this.#callbacks = [];
    this.#problem = undefined;
    this.#path = [];
  }
}

function within(ranges: PatchPlan['readers'], pc: bigint): boolean {
  return ranges?.some(({ start, end }) => pc >= start && pc < end) ?? false;
}
