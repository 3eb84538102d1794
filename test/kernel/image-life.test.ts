/**
 * The life of trampoline images and programs: what still runs in them keeps them, and nothing else does.
 * The first case is the kernel's fexit_sleep selftest.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bootLab } from '../../src/node/boot.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { call, type BodyGenerator, type Effect } from '../../src/kernel/function.js';
import type { KernelVersion } from '../../src/jit/profile.js';
import { factories } from '../helpers/cpus.js';
import { counter, inUse, textProgram } from '../helpers/tracing.js';

const CHANNEL = 0x51ee9n;

function* sleep(): Generator<Effect, void, bigint> {
  yield { kind: 'sleep', channel: CHANNEL };
}

function* nanosleep(_kernel: unknown, ns: bigint): BodyGenerator {
  if (ns > 0n) yield* sleep();
  return 7n;
}

describe.each(factories.map(({ name }) => name))('on %s', (engine) => {
  let kernel: Kernel;
  let before: object;
  let counts: bigint;
  const read = (n: number): bigint => kernel.memory.read64(counts + BigInt(8 * n));

  const boot = async (version: KernelVersion): Promise<void> => {
    kernel = await bootLab({ engine, version });
    kernel.define({
      name: 'lab_nanosleep',
      errorInjection: true,
      prototype: 'long lab_nanosleep(u64 ns)',
      parameters: 1,
      body: nanosleep,
    });
    counts = kernel.kmalloc(64);
    kernel.createTask('sleeper');
    before = inUse(kernel);
  };
  beforeEach(() => boot('6.12'));
  afterEach(() => {
    expect(inUse(kernel)).toEqual(before);
    kernel.close();
  });

  it.each<KernelVersion>(['6.12', '7.3'])(
    '%s: programs go away while the original sleeps: fentry 2, fexit 1',
    async (version) => {
      kernel.close();
      await boot(version);
      const [task] = kernel.tasks;
      if (!task) throw new Error('no task');
      const entry = counter(kernel, counts);
      const exit = counter(kernel, counts + 8n);
      const links = [
        kernel.bpf.attach(entry, 'fentry', 'lab_nanosleep'),
        kernel.bpf.attach(exit, 'fexit', 'lab_nanosleep'),
      ];
      expect(kernel.call('lab_nanosleep', 0n)).toBe(7n);
      kernel.start(task, 'lab_nanosleep', [1n]);
      expect(task.state).toBe('sleeping');
      const image = links[1]?.trampoline.image;
      expect(image?.references).toBe(2n);

      for (const link of links) link.detach();
      entry.free();
      exit.free();
      // both programs are gone, the image that the task will return through is not
      expect(kernel.bpf.images.liveImages).toBe(1);
      expect(image?.freed).toBe(false);
      expect(image?.references).toBe(1n);
      expect(image?.symbol).toBe('bpf_trampoline_1.old');
      expect(kernel.symbols.lookup(image?.code.base ?? 0n)?.name).toBe('bpf_trampoline_1.old');

      kernel.wake(CHANNEL);
      expect(task.state).toBe('done');
      expect(task.result).toBe(7n);
      expect([read(0), read(1)]).toEqual([2n, 1n]);
      expect(image?.freed).toBe(true);
    },
  );

  it('calls through the new image and the old one side by side', () => {
    const [first, second] = [kernel.createTask('first'), kernel.createTask('second')];
    before = inUse(kernel);
    const one = counter(kernel, counts);
    const two = counter(kernel, counts + 8n);
    const linkOne = kernel.bpf.attach(one, 'fexit', 'lab_nanosleep');
    kernel.start(first, 'lab_nanosleep', [1n]);
    const linkTwo = kernel.bpf.attach(two, 'fexit', 'lab_nanosleep');
    kernel.start(second, 'lab_nanosleep', [1n]);
    expect(kernel.bpf.liveTrampolineImages).toBe(2);
    kernel.wake(CHANNEL);
    // the first call was in the image whose fexit part is jumped over; only the second counts
    expect([read(0), read(1)]).toEqual([1n, 1n]);
    expect(kernel.bpf.liveTrampolineImages).toBe(1);
    linkOne.detach();
    linkTwo.detach();
    one.free();
    two.free();
  });

  it.each(['fmod_ret', 'fexit'] as const)('7.3 keeps an image with %s alone', async (kind) => {
    kernel.close();
    await boot('7.3');
    const [task] = kernel.tasks;
    if (!task) throw new Error('no task');
    const program = counter(kernel, counts);
    const link = kernel.bpf.attach(program, kind, 'lab_nanosleep');
    kernel.start(task, 'lab_nanosleep', [1n]);
    link.detach();
    program.free();
    expect(kernel.bpf.liveTrampolineImages).toBe(1);
    kernel.wake(CHANNEL);
    expect(task.result).toBe(7n);
  });

  it('an image without fexit is not held by the original', () => {
    const [task] = kernel.tasks;
    if (!task) throw new Error('no task');
    const program = counter(kernel, counts);
    const link = kernel.bpf.attach(program, 'fentry', 'lab_nanosleep');
    kernel.start(task, 'lab_nanosleep', [1n]);
    link.detach();
    program.free();
    expect(kernel.bpf.images.liveImages).toBe(0);
    kernel.wake(CHANNEL);
    expect(task.result).toBe(7n);
  });

  it('detaching from inside the function leaves the code that runs until the task ends', () => {
    let detach = (): void => undefined;
    kernel.define({
      name: 'lab_detaches',
      prototype: 'int lab_detaches(int a)',
      parameters: 1,
      body: (_kernel, a) => {
        detach();
        return a;
      },
    });
    before = inUse(kernel);
    const program = counter(kernel, counts);
    const during: number[] = [];
    const link = kernel.bpf.attach(program, 'fexit', 'lab_detaches');
    detach = () => {
      link.detach();
      program.free();
      during.push(kernel.bpf.liveTrampolineImages, kernel.rcu.pending);
    };
    expect(kernel.call('lab_detaches', 3n)).toBe(3n);
    // the image waits, and so does the ftrace_ops of its direct call
    expect(during).toEqual([1, 2]);
    expect(read(0)).toBe(0n);
  });

  it('a sleepable program that sleeps keeps itself and its image', () => {
    const [task] = kernel.tasks;
    if (!task) throw new Error('no task');
    kernel.define({
      name: 'lab_copy_from_user',
      prototype: 'long lab_copy_from_user(void *dst)',
      parameters: 1,
      *body(_kernel, dst) {
        yield* sleep();
        return dst;
      },
    });
    kernel.define({
      name: 'lab_caller',
      prototype: 'long lab_caller(int a)',
      parameters: 1,
      *body(_kernel, a) {
        return (yield* call('bpf_fentry_test1', a ?? 0n)) + 1n;
      },
    });
    before = inUse(kernel);
    const helper = kernel.symbol('lab_copy_from_user') - kernel.bpf.host.callBase;
    const text = `call ${helper}\n r2 = 0x${counts.toString(16)} ll\n r3 = 1\n *(u64 *)(r2 + 0) = r3\n r0 = 0\n exit`;
    const program = textProgram(kernel, text, { sleepable: true });
    expect(program.enterExit).toBe('sleepable_recur');
    const link = kernel.bpf.attach(program, 'fentry', 'bpf_fentry_test1');
    kernel.start(task, 'lab_caller', [4n]);
    expect(task.state).toBe('sleeping');
    link.detach();
    program.free();
    expect(kernel.bpf.images.liveImages).toBe(2);
    expect(kernel.rcu.pending).toBe(2);
    kernel.wake(CHANNEL);
    expect(task.result).toBe(6n);
    expect(read(0)).toBe(1n);
  });

  it('an oops leaves nothing behind that others would wait for', () => {
    const program = counter(kernel, counts);
    const link = kernel.bpf.attach(program, 'fexit', 'bpf_fentry_test8');
    expect(() => kernel.call('bpf_fentry_test8', 0xdead000000000000n)).toThrow('bpf_fentry_test8');
    link.detach();
    program.free();
    expect(kernel.rcu.pending).toBe(0);
    // the call that never returned still holds its reference, as in Linux
    expect(kernel.bpf.liveTrampolineImages).toBe(1);
    before = inUse(kernel);
  });
});
