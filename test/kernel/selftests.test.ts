/**
 * What the kernel's own selftests of BPF trampolines expect (tools/testing/selftests/bpf/prog_tests), with programs
 * of the same shape from C: loaded from objects, verified against BTF, JITed, attached, run on each engine.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ProgArray } from '../../src/bpf/maps/prog-array.js';
import type { KernelVersion } from '../../src/jit/profile.js';
import type { Attachment } from '../../src/kernel/bpf/bpf.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { tracedRun } from '../../src/lab/traced-call.js';
import { testRunStructOps, testRunTracing } from '../../src/lab/tracing-test-run.js';
import { defineStructOps, TCP_SOCK } from '../../src/kernel/bpf/struct-ops-types.js';
import { xdpContext } from '../../src/lab/run-program.js';
import { bootLab } from '../../src/node/boot.js';
import { factories } from '../helpers/cpus.js';
import { loadSelftest, type Selftest } from '../helpers/selftests.js';
import { counter, inUse, textProgram } from '../helpers/tracing.js';

const VERSIONS: readonly KernelVersion[] = ['6.1', '6.12', '7.3'];
const WITH_DIRECT_CALLS: readonly KernelVersion[] = ['6.12', '7.3'];
const ALL = Array.from({ length: 8 }, (_, i) => `test${i + 1}_result`);
const ONES = ALL.map(() => 1n);

const results = (object: Selftest): bigint[] => ALL.map((name) => object.get(name));

/** A scenario: what is done and expected. `kernel` is used by all, and clean before and after. */
interface Scenario {
  readonly name: string;
  readonly on: readonly KernelVersion[];
  readonly run: (kernel: Kernel, version: KernelVersion) => void;
}

/** fentry_test, fexit_test: results, the same program twice, off and on again. */
function attachTwice(kernel: Kernel, file: string, first: string): void {
  const object = loadSelftest(kernel, file);
  for (const round of [1, 2]) {
    const links = object.attachAll();
    expect(() => object.attach(first), `round ${round}`).toThrow('-EBUSY');
    expect(testRunTracing(kernel, 'fentry')).toBe(0);
    expect(results(object)).toEqual(ONES);
    for (const link of links) link.detach();
    for (const name of ALL) object.set(name, 0n);
  }
  expect(testRunTracing(kernel, 'fentry')).toBe(0);
  expect(results(object)).not.toContain(1n);
  object.close();
}

function modifyReturn(kernel: Kernel, input: bigint, retval: number, sideEffects: number): void {
  const one = loadSelftest(kernel, 'modify_return');
  const two = loadSelftest(kernel, 'modify_return2');
  for (const object of [one, two]) {
    object.set('input_retval', input);
    object.attachAll();
  }
  const result = testRunTracing(kernel, 'fmod_ret');
  expect([(result << 16) >> 16, result >>> 16]).toEqual([retval, sideEffects]);
  for (const object of [one, two]) {
    const names = ['fentry_result', 'fmod_ret_result', 'fexit_result'];
    expect(names.map((name) => object.get(name))).toEqual([1n, 1n, 1n]);
  }
  expect(BigInt.asIntN(32, one.get('fexit_seen'))).toBe(input === 0n ? 4n : input);
  one.close();
  two.close();
}

/** Attaches fexit programs to nanosleep, lets a task sleep in it, takes the programs away, wakes it. */
function sleepInOriginal(kernel: Kernel): void {
  const object = loadSelftest(kernel, 'sleeping', {
    only: ['nanosleep_fentry', 'nanosleep_fexit'],
  });
  const links = object.attachAll();
  const woken = (): void => kernel.wake(kernel.symbol('__arm64_sys_nanosleep'));
  const task = kernel.createTask('sleeper');
  kernel.start(task, '__arm64_sys_nanosleep', [0n]);
  expect([object.get('fentry_count'), object.get('fexit_count')]).toEqual([1n, 0n]);
  woken();
  expect([task.state, object.get('fexit_count')]).toEqual(['done', 1n]);
  kernel.start(task, '__arm64_sys_nanosleep', [0n]);
  expect([task.state, object.get('fentry_count')]).toEqual(['sleeping', 2n]);
  const counts = (): bigint[] => ['fentry_count', 'fexit_count'].map((name) => object.get(name));
  for (const link of links) link.detach();
  expect(kernel.bpf.liveTrampolineImages).toBe(1);
  woken();
  // the program behind the original is skipped, the old image takes the task home and goes
  expect([task.state, task.result, counts()]).toEqual(['done', 0n, [2n, 1n]]);
  expect(kernel.bpf.liveTrampolineImages).toBe(0);
  object.close();
}

const IP_PROBES = ['on_kprobe', 'on_kretprobe', 'on_inside'];

/** get_func_ip: what each program has seen of its function. `ips` are those of trampolines. */
function getFuncIp(
  kernel: Kernel,
  only: readonly string[],
  ips: Readonly<Record<string, bigint>>,
): void {
  const object = loadSelftest(kernel, 'get_func_ip', { only });
  const cookies: Readonly<Record<string, bigint>> = { on_kprobe: 0x77n, on_kretprobe: 1n << 60n };
  for (const name of only) object.attach(name, { cookie: cookies[name] ?? 0n });
  expect(testRunTracing(kernel, 'fentry')).toBe(0);
  testRunTracing(kernel, 'fmod_ret');
  const inside = kernel.symbol('bpf_fentry_test6') + 8n;
  const expected = {
    ...ips,
    ip_kprobe: kernel.symbol('bpf_fentry_test3'),
    cookie_kprobe: 0x77n,
    kprobe_pc: kernel.symbol('bpf_fentry_test3'),
    ip_kretprobe: kernel.symbol('bpf_fentry_test4'),
    cookie_kretprobe: 1n << 60n,
    kretprobe_result: 34n,
    ip_inside: 0n,
    inside_x0: 16n,
    inside_pc: inside,
  };
  const seen = Object.keys(expected).map((name) => [name, object.get(name)]);
  expect(Object.fromEntries(seen)).toEqual(expected);
  expect(object.words('kprobe_args', 3)).toEqual([4n, 5n, 6n]);
  object.close();
  expect(kernel.kprobes.list()).toEqual([]);
}

/** x0 of bpf_fentry_test1 to 7 at entry and return; that of the eighth is an address, and its result 0. */
const FIRST_ARGUMENTS = [1n, 2n, 4n, 7n, 11n, 16n, 0n];
const RESULTS = [2n, 5n, 15n, 34n, 65n, 111n, 0n];

function kprobeMulti(kernel: Kernel, cookies?: readonly bigint[]): void {
  const object = loadSelftest(kernel, 'kprobe_multi');
  const functions = ALL.map((_, i) => `bpf_fentry_test${i + 1}`);
  const links = ['on_entries', 'on_returns'].map((name) =>
    cookies
      ? kernel.bpf.attachKprobeMulti(object.program(name), {
          functions,
          retprobe: name === 'on_returns',
          cookies,
        })
      : object.attach(name),
  );
  expect(testRunTracing(kernel, 'fentry')).toBe(0);
  const expected = (values: readonly bigint[]) =>
    values.flatMap((value, i) => [1n, value, cookies?.[i] ?? 0n]);
  expect(object.words('entries', 3 * FIRST_ARGUMENTS.length)).toEqual(expected(FIRST_ARGUMENTS));
  expect(object.words('returns', 3 * RESULTS.length)).toEqual(expected(RESULTS));
  // `bpf_fentry_test?` is the ninth, too
  expect(object.get('others')).toBe(cookies ? 0n : 2n);
  for (const link of links) link.detach();
  expect(testRunTracing(kernel, 'fentry')).toBe(0);
  expect(object.words('entries', 1)).toEqual([1n]);
  object.close();
}

interface Links {
  readonly target: Selftest;
  readonly run: (packet: Uint8Array) => bigint;
}

/** pkt_access loaded, and called with an XDP context on a packet of device 1. */
function packetTarget(kernel: Kernel): Links {
  const target = loadSelftest(kernel, 'pkt_access');
  const program = target.program('pkt_access');
  return {
    target,
    run: (packet) => {
      const { xdp } = xdpContext(kernel, packet);
      const verdict = kernel.call(program.entry, xdp.address);
      return verdict;
    },
  };
}

const PACKET = new Uint8Array(74);
const XDP_PASS = 2n;
const SUBPROGRAMS = ['on_main_entry', 'on_main', 'on_sub1', 'on_sub2', 'on_sub3'] as const;
const REPLACEMENTS = ['new_get_packet_len', 'new_get_ifindex', 'new_get_constant'] as const;

/** Targets of fexit_bpf2bpf's programs: the functions that their sections name. */
function targetsIn(
  target: Selftest,
): Record<string, { program: ReturnType<Selftest['program']>; function: string }> {
  const program = target.program('pkt_access');
  const of = (fn: string) => ({ program, function: fn });
  return {
    on_main_entry: of('pkt_access'),
    on_main: of('pkt_access'),
    on_sub1: of('subprog1'),
    on_sub2: of('subprog2'),
    on_sub3: of('subprog3'),
    new_get_packet_len: of('get_packet_len'),
    new_get_ifindex: of('get_ifindex'),
    new_get_constant: of('get_constant'),
    wrong_count: of('get_constant'),
    wrong_result: of('get_constant'),
    wrong_size: of('get_constant'),
  };
}

const SCENARIOS: readonly Scenario[] = [
  {
    name: 'kernel functions are refused: fentry_test, fexit_test, modify_return, lsm',
    on: ['6.1'],
    run: (kernel) => {
      for (const file of ['fentry_test', 'fexit_test', 'modify_return']) {
        const object = loadSelftest(kernel, file);
        expect(() => object.attachAll()).toThrow(
          '-ENOTSUPP: 6.1 has no direct calls on kernel functions',
        );
        object.close();
      }
      expect(() => loadSelftest(kernel, 'modify_return2')).toThrow(
        '-EINVAL: modify_return2: bpf_modify_return_test2() is not modifiable',
      );
      expect(testRunTracing(kernel, 'fentry')).toBe(0);
      expect(testRunTracing(kernel, 'fmod_ret')).toBe((1 << 16) | 4);
    },
  },
  {
    name: 'fentry_test',
    on: WITH_DIRECT_CALLS,
    run: (k) => attachTwice(k, 'fentry_test', 'test1'),
  },
  { name: 'fexit_test', on: WITH_DIRECT_CALLS, run: (k) => attachTwice(k, 'fexit_test', 'exit1') },
  {
    name: 'fentry_fexit: both sets',
    on: WITH_DIRECT_CALLS,
    run: (kernel) => {
      const objects = ['fentry_test', 'fexit_test'].map((file) => loadSelftest(kernel, file));
      for (const object of objects) object.attachAll();
      expect(testRunTracing(kernel, 'fexit')).toBe(0);
      for (const object of objects) expect(results(object)).toEqual(ONES);
      for (const object of objects) object.close();
    },
  },
  {
    name: 'modify_return: sequence and side effects, with 0 and with -EINVAL',
    on: WITH_DIRECT_CALLS,
    run: (kernel) => {
      expect(testRunTracing(kernel, 'fmod_ret')).toBe((2 << 16) | 33);
      modifyReturn(kernel, 0n, 33, 2);
      modifyReturn(kernel, -22n, -44, 0);
    },
  },
  {
    name: 'trampoline_count: links of all kinds until -E2BIG',
    on: WITH_DIRECT_CALLS,
    run: (kernel, version) => {
      const seen = kernel.kmalloc(8);
      const kinds = ['fentry', 'fmod_ret', 'fexit'] as const;
      const programs = Array.from({ length: 39 }, () => counter(kernel, seen));
      const links: Attachment[] = [];
      const attach = (): void => {
        for (const program of programs.slice(links.length)) {
          const kind = kinds[links.length % 3] ?? 'fexit';
          links.push(kernel.bpf.attach(program, kind, 'bpf_modify_return_test'));
        }
      };
      // in 7.3 a program takes a word more, and the page of an image is full before the 38th
      const [count, message] =
        version === '7.3' ? [37, 'trampoline of 4124 bytes'] : [38, '38 programs attached'];
      expect(attach).toThrow(/^-E2BIG/);
      expect(attach).toThrow(message);
      expect(links.length).toBe(count);
      expect(testRunTracing(kernel, 'fmod_ret')).toBe((2 << 16) | 33);
      expect(kernel.memory.read64(seen)).toBe(BigInt(count));
      for (const link of links) link.detach();
      for (const program of programs) program.free();
      kernel.kfree(seen);
    },
  },
  {
    name: 'fexit_stress: 38 fexit programs on one function, all closed',
    on: WITH_DIRECT_CALLS,
    run: (kernel) => {
      const seen = kernel.kmalloc(8);
      const programs = Array.from({ length: 38 }, () => counter(kernel, seen));
      const links = programs.map((each) => kernel.bpf.attach(each, 'fexit', 'bpf_fentry_test1'));
      expect(testRunTracing(kernel, 'fexit')).toBe(0);
      expect(kernel.memory.read64(seen)).toBe(38n);
      for (const link of links) link.detach();
      for (const program of programs) program.free();
      expect(testRunTracing(kernel, 'fexit')).toBe(0);
      expect(kernel.memory.read64(seen)).toBe(38n);
      kernel.kfree(seen);
    },
  },
  { name: 'fexit_sleep', on: WITH_DIRECT_CALLS, run: sleepInOriginal },
  {
    name: 'get_func_args, get_func_ip, bpf_cookie/trampoline',
    on: WITH_DIRECT_CALLS,
    run: (kernel) => {
      const object = loadSelftest(kernel, 'func_args');
      object.attach('args_entry', { cookie: 0x10000000000000n });
      object.attach('args_exit', { cookie: 0x20000000000000n });
      object.attach('args_modify', { cookie: 0x30000000000000n });
      object.attach('args_modified');
      expect(testRunTracing(kernel, 'fentry')).toBe(0);
      const result = testRunTracing(kernel, 'fmod_ret');
      expect([result & 0xffff, result >>> 16]).toEqual([1234 + 29, 1]);
      expect([1, 2, 3, 4].map((i) => object.get(`test${i}_result`))).toEqual([1n, 1n, 1n, 1n]);
      expect(['entry', 'exit', 'modify'].map((each) => object.get(`ip_${each}`))).toEqual(
        ['bpf_fentry_test1', 'bpf_fentry_test2', 'bpf_modify_return_test'].map((name) =>
          kernel.symbol(name),
        ),
      );
      expect(['entry', 'exit', 'modify'].map((each) => object.get(`cookie_${each}`))).toEqual([
        0x10000000000000n,
        0x20000000000000n,
        0x30000000000000n,
      ]);
      object.close();
    },
  },
  {
    name: 'get_func_ip: the function, 0 inside of it',
    on: WITH_DIRECT_CALLS,
    run: (kernel) =>
      getFuncIp(kernel, ['on_fentry', 'on_fexit', 'on_fmod_ret', ...IP_PROBES], {
        ip_fentry: kernel.symbol('bpf_fentry_test1'),
        ip_fexit: kernel.symbol('bpf_fentry_test2'),
        ip_fmod_ret: kernel.symbol('bpf_modify_return_test'),
      }),
  },
  {
    name: 'get_func_ip: of kprobes alone, the others are refused',
    on: ['6.1'],
    run: (kernel) => {
      for (const name of ['on_fentry', 'on_fexit', 'on_fmod_ret']) {
        const object = loadSelftest(kernel, 'get_func_ip', { only: [name] });
        expect(() => object.attach(name), name).toThrow('-ENOTSUPP: 6.1 has no direct calls');
        object.close();
      }
      getFuncIp(kernel, IP_PROBES, { ip_fentry: 0n, ip_fexit: 0n, ip_fmod_ret: 0n });
    },
  },
  {
    name: 'kprobe_multi: -EOPNOTSUPP without CONFIG_FPROBE',
    on: ['6.1', '6.12'],
    run: (kernel, version) => {
      const object = loadSelftest(kernel, 'kprobe_multi');
      for (const name of ['on_entries', 'on_returns']) {
        expect(() => object.attach(name)).toThrow(
          `-EOPNOTSUPP: fprobe ${name}: arm64 ${version} has no fprobe (CONFIG_FPROBE)`,
        );
      }
      object.close();
    },
  },
  { name: 'kprobe_multi: by pattern', on: ['7.3'], run: (kernel) => kprobeMulti(kernel) },
  {
    name: 'kprobe_multi: by name, bpf_cookie/multi_kprobe',
    on: ['7.3'],
    run: (kernel) => kprobeMulti(kernel, [8n, 2n, 7n, 6n, 5n, 4n, 3n, 1n]),
  },
  {
    name: 'fexit_bpf2bpf: main program and subprograms, xdp_bpf2bpf: ctx is an xdp_buff',
    on: VERSIONS,
    run: (kernel) => {
      const { target, run } = packetTarget(kernel);
      const targets = targetsIn(target);
      const object = loadSelftest(kernel, 'fexit_bpf2bpf', { only: SUBPROGRAMS, targets });
      for (const name of SUBPROGRAMS) object.attach(name);
      expect(run(PACKET)).toBe(XDP_PASS);
      expect(object.get('main_entry')).toBe(1n);
      expect(object.get('main_exit')).toBe((74n << 8n) | XDP_PASS);
      expect(object.get('sub1')).toBe(148n);
      expect(object.get('sub2')).toBe((2n << 32n) | 148n);
      expect(object.get('sub3')).toBe((3n << 32n) | (74n * 3n));
      object.close();
      target.close();
    },
  },
  {
    name: 'func_replace: globals replaced, their callers traced',
    on: VERSIONS,
    run: (kernel) => {
      const { target, run } = packetTarget(kernel);
      const targets = targetsIn(target);
      const only = [...SUBPROGRAMS, ...REPLACEMENTS];
      const object = loadSelftest(kernel, 'fexit_bpf2bpf', { only, targets });
      for (const name of only) object.attach(name);
      expect(run(PACKET)).toBe(XDP_PASS);
      expect(['new_len', 'new_ifindex', 'new_constant'].map((name) => object.get(name))).toEqual([
        74n,
        (3n << 8n) | 1n,
        1n,
      ]);
      expect(object.get('sub3')).toBe((3n << 32n) | (74n * 3n));
      object.close();
      expect(run(PACKET)).toBe(XDP_PASS);
      target.close();
    },
  },
  {
    name: 'func_replace_*: what is traced is not replaced, what is replaced is not traced',
    on: VERSIONS,
    run: (kernel) => {
      const { target } = packetTarget(kernel);
      const program = target.program('pkt_access');
      const targets = {
        ...targetsIn(target),
        on_sub1: { program, function: 'get_constant' },
      };
      const object = loadSelftest(kernel, 'fexit_bpf2bpf', {
        only: ['on_sub1', 'new_get_constant'],
        targets,
      });
      const replaced = object.attach('new_get_constant');
      expect(() => object.attach('on_sub1')).toThrow('-EBUSY: get_constant is replaced by');
      replaced.detach();
      object.attach('on_sub1');
      expect(() => object.attach('new_get_constant')).toThrow('-EBUSY: get_constant is traced');
      object.close();
      target.close();
    },
  },
  {
    name: 'func_replace_verify: other prototypes are refused when they are loaded',
    on: VERSIONS,
    run: (kernel) => {
      const { target } = packetTarget(kernel);
      const targets = targetsIn(target);
      const refused = (name: string, message: string): void =>
        expect(
          () => loadSelftest(kernel, 'fexit_bpf2bpf', { only: [name], targets }),
          name,
        ).toThrow(`-EINVAL: ${name}: ${message}`);
      refused('wrong_count', 'wrong_count() has 2 args while get_constant() has 1 args');
      refused('wrong_result', "Return type long of wrong_result() doesn't match type int");
      refused('wrong_size', 'arg0 in wrong_size() is int while get_constant() has long');
      target.close();
    },
  },
  {
    name: 'recursion: the inner call is a miss',
    on: WITH_DIRECT_CALLS,
    run: (kernel) => {
      const object = loadSelftest(kernel, 'recursion');
      object.attach('on_delete');
      const passes = (): bigint[] => ['pass1', 'pass2'].map((name) => object.get(name));
      const runs = (name: string): void => {
        kernel.call(object.program(name).entry, 0n);
      };
      runs('delete1');
      runs('delete1');
      expect(passes()).toEqual([2n, 0n]);
      runs('delete2');
      runs('delete2');
      expect(passes()).toEqual([2n, 2n]);
      expect(object.program('on_delete').stats.misses).toBe(2n);
      object.close();
    },
  },
  {
    name: 'tailcalls: 33 of them',
    on: VERSIONS,
    run: (kernel) => {
      const object = loadSelftest(kernel, 'tailcalls');
      fillJumps(object);
      expect(kernel.call(object.program('loop').entry, 0n)).toBe(1n);
      expect(object.get('loops')).toBe(34n);
      object.close();
    },
  },
  {
    name: 'tailcall_bpf2bpf_hierarchy: one count for all, or one for each chain',
    on: VERSIONS,
    run: (kernel, version) => {
      const object = loadSelftest(kernel, 'tailcalls');
      fillJumps(object);
      object.set('most', 200n);
      kernel.call(object.program('tree').entry, 0n);
      expect(object.get('visits')).toBe(version === '6.1' ? 200n : 34n);
      object.close();
    },
  },
  {
    name: 'tracing_struct: structures in registers',
    on: WITH_DIRECT_CALLS,
    run: (kernel) => {
      const only = ['on_entry1', 'on_exit1', 'on_entry2', 'on_entry3', 'on_entry4', 'on_exit4'];
      const more = ['on_entry5', 'on_entry7', 'on_entry8', 'on_exit8', 'on_many7', 'on_many7_exit'];
      const object = loadSelftest(kernel, 'struct_args', { only: [...only, ...more] });
      object.attachAll();
      expect(STRUCT_CALLS.map(({ name, args }) => kernel.call(name, ...args))).toEqual(
        STRUCT_CALLS.map(({ result }) => result),
      );
      for (const { seen, args, result } of STRUCT_CALLS) {
        for (const name of seen)
          expect(look(object, name), name).toEqual(given(name, args, result));
      }
      object.close();
    },
  },
  {
    name: 'tracing_struct_many_args, fentry and fexit many_args: more than eight registers',
    on: WITH_DIRECT_CALLS,
    run: (kernel, version) => {
      const only = ['on_entry9', 'on_exit9', 'on_many11', 'on_many11_exit'];
      const object = loadSelftest(kernel, 'struct_args', { only });
      if (version === '6.12') {
        for (const name of only) expect(() => object.attach(name)).toThrow(/^-ENOTSUPP/);
      } else object.attachAll();
      for (const { name, args, skipped = args.length, result, seen } of MANY_CALLS) {
        const passed = [...args.slice(0, skipped), 0n, ...args.slice(skipped)];
        expect(kernel.call(name, ...passed)).toBe(result);
        if (version === '6.12') continue;
        for (const each of seen)
          expect(look(object, each), each).toEqual(given(each, args, result));
      }
      object.close();
    },
  },
  {
    name: 'fsession: both halves, with and without a cookie',
    on: VERSIONS,
    run: (kernel, version) => {
      if (version !== '7.3') {
        expect(() => loadSelftest(kernel, 'session')).toThrow(
          `-EINVAL: ${version} has no fsession programs`,
        );
        return;
      }
      const object = loadSelftest(kernel, 'session');
      object.attach('without_cookie');
      object.attach('both', { cookie: 77n });
      expect(() => object.attach('both')).toThrow('-EBUSY');
      expect(kernel.call('bpf_fentry_test2', 2n, 3n)).toBe(5n);
      const names = ['entries', 'returns', 'kept', 'result', 'count', 'attach_cookie'];
      expect(names.map((name) => object.get(name))).toEqual([0x101n, 0x101n, 0x1003n, 5n, 2n, 77n]);
      object.close();
    },
  },
  {
    name: 'test_lsm: int hooks answer, void hooks look on, what is no hook is refused',
    on: WITH_DIRECT_CALLS,
    run: (kernel) => {
      const object = loadSelftest(kernel, 'lsm');
      object.attachAll();
      expect(kernel.call('security_file_mprotect', 1n, 2n, 3n)).toBe(0n);
      object.set('answer', 1n);
      expect(BigInt.asIntN(32, kernel.call('security_file_mprotect', 1n, 2n, 3n))).toBe(-1n);
      kernel.call('security_file_open', 0n);
      kernel.call('security_cred_free', 0n);
      const names = ['protected', 'prot', 'opened', 'freed'];
      expect(names.map((name) => object.get(name))).toEqual([2n, 3n, 1n, 1n]);
      object.close();
      const refused = (target: string, message: string, program = 'file_mprotect'): void =>
        expect(() =>
          loadSelftest(kernel, 'lsm', { only: [program], targets: { [program]: target } }),
        ).toThrow(message);
      refused('bpf_fentry_test1', '-EINVAL: file_mprotect: bpf_fentry_test1 is no LSM hook');
      refused(
        'bpf_lsm_inode_copy_up_xattr',
        '-EINVAL: file_mprotect: bpf_lsm_inode_copy_up_xattr is a disabled',
      );
      refused(
        'bpf_lsm_cred_free',
        '-EINVAL: file_open: bpf_lsm_cred_free is not sleepable',
        'file_open',
      );
    },
  },
  {
    name: 'dummy_st_ops: results and arguments of each member',
    on: VERSIONS,
    run: (kernel) => {
      const object = loadSelftest(kernel, 'struct_ops');
      const spec = object.structOpsSpec('dummy');
      const test = (member: string, ...args: bigint[]): number =>
        testRunStructOps(kernel, spec, object.programOf, member, args);
      expect(test('test_1', 0n)).toBe(0xf2f3f4f5);
      const state = kernel.kmalloc(8);
      kernel.memory.write32(state, 0xbeef);
      expect(test('test_1', state)).toBe(0xbeef);
      kernel.kfree(state);
      const args = [0n, -100n, 0x8a5fn, 99n, 0x1234567887654321n];
      expect(test('test_2', ...args)).toBe(0);
      expect(object.words('args', 5).map((each) => BigInt.asIntN(64, each))).toEqual(args);
      expect(test('test_sleepable', 0n)).toBe(7);
      expect(() => object.registerStructOps('dummy')).toThrow('-EOPNOTSUPP');
      object.close();
    },
  },
  {
    name: 'bpf_tcp_ca: a congestion control, called through its members',
    on: VERSIONS,
    run: (kernel) => {
      const object = loadSelftest(kernel, 'struct_ops');
      const ops = object.registerStructOps('lab_ca');
      expect(() => object.registerStructOps('lab_ca')).toThrow(
        '-EEXIST: bpf_lab already registered',
      );
      const socket = kernel.kmalloc(TCP_SOCK.size);
      kernel.memory.write64(socket + BigInt(TCP_SOCK.icsk_ca_ops), ops.address);
      kernel.memory.write32(socket + BigInt(TCP_SOCK.snd_cwnd), 20);
      kernel.call('tcp_init_congestion_control', socket);
      const { counts } = tracedRun(kernel, () => kernel.call('tcp_init_cwnd_reduction', socket));
      expect(kernel.memory.read32(socket + BigInt(TCP_SOCK.snd_ssthresh))).toBe(10);
      const called = [...counts.keys()].filter((name) => name.startsWith('__bpf_'));
      expect(called).toEqual(['__bpf_prog_enter', '__bpf_prog_exit']);
      for (const acked of [3n, 4n]) kernel.call('tcp_cong_avoid', socket, 1n, acked);
      const names = ['inits', 'avoids', 'acked_in_all'];
      expect(names.map((name) => object.get(name))).toEqual([1n, 2n, 7n]);
      kernel.kfree(socket);
      ops.unregister();
      object.close();
    },
  },
  {
    name: 'sleepable programs: only where a function may sleep',
    on: WITH_DIRECT_CALLS,
    run: (kernel) => {
      const only = ['may_sleep'];
      const object = loadSelftest(kernel, 'sleeping', { only });
      const link = object.attach('may_sleep');
      const task = kernel.createTask('sleeper');
      kernel.start(task, '__arm64_sys_nanosleep', [0n]);
      kernel.wake(kernel.symbol('__arm64_sys_nanosleep'));
      expect(object.get('fentry_count')).toBe(100n);
      link.detach();
      object.close();
      const targets = { may_sleep: 'bpf_fentry_test2' };
      expect(() => loadSelftest(kernel, 'sleeping', { only, targets })).toThrow(
        '-EINVAL: may_sleep: bpf_fentry_test2 is not sleepable',
      );
    },
  },
  {
    name: 'fentry on a subprogram; a tracing program that is traced; no fentry on that',
    on: WITH_DIRECT_CALLS,
    run: (kernel) => {
      const object = loadSelftest(kernel, 'fentry_test', { only: ['test1'] });
      const seen = kernel.kmalloc(16);
      const [second, third] = [counter(kernel, seen), counter(kernel, seen + 8n)];
      object.attach('test1');
      const link = kernel.bpf.attach(second, 'fexit', { program: object.program('test1') });
      expect(() => kernel.bpf.attach(third, 'fentry', { program: second })).toThrow('-EINVAL');
      const replacement = textProgram(kernel, 'r0 = 0\nexit', { type: 'raw' });
      expect(() =>
        kernel.bpf.attach(replacement, 'freplace', { program: object.program('test1') }),
      ).toThrow('-EINVAL: program: freplace cannot extend the tracing program test1');
      expect(testRunTracing(kernel, 'fentry')).toBe(0);
      expect([object.get('test1_result'), kernel.memory.read64(seen)]).toEqual([1n, 1n]);
      link.detach();
      for (const program of [second, third, replacement]) program.free();
      kernel.kfree(seen);
      object.close();
    },
  },
];

interface WatchedCall {
  readonly name: string;
  /** Registers, then stack slots: what is in ctx. */
  readonly args: readonly bigint[];
  /** A register that stays free, because the next structure does not fit. */
  readonly skipped?: number;
  readonly result: bigint;
  /** Variables that programs on it write. */
  readonly seen: readonly string[];
}

const PREFIX = 'bpf_testmod_';

const STRUCT_CALLS: readonly WatchedCall[] = [
  {
    name: `${PREFIX}test_struct_arg_1`,
    args: [2n, 3n, 1n, 4n],
    result: 10n,
    seen: ['entry1', 'exit1'],
  },
  { name: `${PREFIX}test_struct_arg_2`, args: [1n, 2n, 3n, 4n], result: 10n, seen: ['entry2'] },
  { name: `${PREFIX}test_struct_arg_3`, args: [1n, 4n, 2n, 3n], result: 10n, seen: ['entry3'] },
  {
    name: `${PREFIX}test_struct_arg_4`,
    args: [10n, 1n, 2n, 3n, 2n, 3n],
    result: 21n,
    seen: ['entry4', 'exit4'],
  },
  { name: `${PREFIX}test_struct_arg_5`, args: [], result: 1n, seen: ['entry5'] },
  {
    name: `${PREFIX}test_struct_arg_7`,
    args: [16n, 17n, 18n, 19n, 20n, 21n, 22n],
    result: 133n,
    seen: ['entry7'],
  },
  {
    name: `${PREFIX}test_struct_arg_8`,
    args: [16n, 17n, 18n, 19n, 20n, 21n, 22n, 23n],
    result: 156n,
    seen: ['entry8', 'exit8'],
  },
  {
    name: `${PREFIX}fentry_test7`,
    args: [16n, 17n, 18n, 19n, 20n, 21n, 22n],
    result: 133n,
    seen: ['many7', 'exit7m'],
  },
];

/** struct { char a = 23; short b = 24; int c = 25; long d = 26 } in two slots. */
const STRUCT_5 = [(25n << 32n) | (24n << 16n) | 23n, 26n];

const MANY_CALLS: readonly WatchedCall[] = [
  {
    name: `${PREFIX}test_struct_arg_9`,
    args: [16n, 17n, 18n, 19n, 20n, 21n, 22n, ...STRUCT_5, 27n],
    skipped: 7,
    result: 258n,
    seen: ['entry9', 'exit9'],
  },
  {
    name: `${PREFIX}fentry_test11`,
    args: [16n, 17n, 18n, 19n, 20n, 21n, 22n, 23n, 24n, 25n, 26n],
    result: 231n,
    seen: ['many11', 'exit11m'],
  },
];

const SLOTS = 13;

/** What a program wrote: number of argument slots, the slots, the result and whether there was one. */
function look(object: Selftest, variable: string): bigint[] {
  return object.words(variable, SLOTS + 3);
}

function given(variable: string, args: readonly bigint[], result: bigint): bigint[] {
  const slots = Array.from({ length: SLOTS }, (_, i) => args[i] ?? 0n);
  const noResult = BigInt.asUintN(64, -95n);
  const tail = variable.startsWith('exit') ? [result, 0n] : [0n, noResult];
  return [BigInt(args.length), ...slots, ...tail];
}

function fillJumps(object: Selftest): void {
  const map = object.loaded.maps.get('jumps');
  if (!(map instanceof ProgArray)) throw new Error('no prog array');
  for (const [i, name] of ['loop', 'tree'].entries()) {
    const program = object.program(name);
    map.setProgram(i, program.xlated, program.address);
  }
}

/** The system call of fexit_sleep: sleeps until it is woken. */
function defineNanosleep(kernel: Kernel): void {
  kernel.define({
    name: '__arm64_sys_nanosleep',
    prototype: 'long __arm64_sys_nanosleep(const struct pt_regs *regs)',
    parameters: 1,
    errorInjection: true,
    *body(context) {
      yield { kind: 'sleep', channel: context.symbol('__arm64_sys_nanosleep') };
      return 0n;
    },
  });
}

/** Probes of all kinds once, which make what they share. */
function warmProbes(kernel: Kernel, version: KernelVersion): void {
  const address = kernel.symbol('bpf_fentry_test1');
  const probe = { name: 'warm', address, handler: () => undefined };
  kernel.kretprobes.register(probe);
  kernel.call(address, 1n);
  kernel.kretprobes.unregister(probe);
  if (version !== '7.3') return;
  kernel.fprobes.register(probe, ['bpf_fentry_test1']);
  kernel.fprobes.unregister(probe);
}

describe.each(factories.map(({ name }) => name))('on %s', (engine) => {
  describe.each(VERSIONS)('%s', (version) => {
    let kernel: Kernel;
    beforeAll(async () => {
      kernel = await bootLab({ engine, version });
      defineNanosleep(kernel);
      defineStructOps(kernel);
      kernel.createTask('warm');
      warmProbes(kernel, version);
      kernel.call('bpf_fentry_test1', 1n);
    });
    afterAll(() => kernel.close());

    it.each(SCENARIOS.filter(({ on }) => on.includes(version)))('$name', ({ run }) => {
      const before = inUse(kernel);
      run(kernel, version);
      const { slab: _slab, ...left } = inUse(kernel) as Record<string, unknown>;
      const { slab: _before, ...expected } = before as Record<string, unknown>;
      expect(left).toEqual(expected);
    });
  });
});
