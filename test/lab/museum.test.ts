/**
 * Every exhibit of the bug museum: what the broken and the fixed run show. Expected values are what the
 * fixes' descriptions say of the bugs; see each exhibit's reference.
 */
import { describe, expect, it } from 'vitest';
import { EXHIBITS, visit } from '../../src/lab/museum/museum.js';
import { bootLab } from '../../src/node/boot.js';
import { runForTest } from '../helpers/cli.js';

const BROKEN: Readonly<Record<string, RegExp>> = {
  branch_range: /loaded: 28\d{4} words.*paging request/s,
  original_by_blr: /Oops - BTI.*pc bpf_fentry_test1\+0x8/,
  pad_of_replacement: /Oops - BTI.*pc bpf_prog_replacement/,
  truncated_image_address: /at 0xfff0000000\w+\n.*paging request at virtual address ffff0000/,
  image_overflow: /(\d+) bytes allocated.*returned 5\n.*attached again returned 2/s,
  run_statistics: /run_cnt 2, run_time_ns 36\d{11}, recursion_misses 1/,
  tail_call_hierarchy: /soft lockup.*the program has run \d{5,} times/s,
  twelve_arguments: /attach: -ENOTSUPP: trampoline for a function with 12 arguments.*saw nothing/s,
  wide_return: /attach of fexit: done\n.*returned [^7]/,
  torn_plt_target: /I6: cpu1 .* loads half of one PLT target/,
  sleeping_original: /sleeps at lab_schedule.*bpf_tramp_image, freed.*wakes up.*I7: cpu1/s,
  ftrace_range_check: /I2: cpu1 executes AARCH64_BREAK_FAULT at bpf_fentry_test1\+0x4/,
  ftrace_plt_compare: /I11: .* the site of module_function is not what it has to be/,
  ftrace_init_plt: /I2: cpu1 executes AARCH64_BREAK_FAULT at module_function\+0x4/,
  ftrace_plt_coherence: /CMODX: cpu1 may fetch ftrace_caller@plt.far_module\+0x0 as it was before/,
  stale_direct_target: /I2: cpu1 fetches .* from the old trampoline, freed/,
  hash_key_size: /255 bytes: done\nbytes changed in objects of others: 10$/,
  rss_without_feature:
    /-EIO: .*waits for ever\nthe device: .*zero sized buffers are not allowed, commands: 0$/,
  rss_layout: new RegExp(
    'all, the device: all up to 128\n.*table of 32513 entries, no power of two\n' +
      '.*: 0000000000000400\n.*4, the device: 1\n.*: (..)(..)(..).., the device: 00\\1\\2\\3$',
  ),
  inner_hash: /GRE tunnel: 0 frames arrive as they were sent\non 1 of 8 queues$/,
  xdp_skb_headroom: /head is 20 bytes below its buffer/,
  // header and frame from byte 256 of a page: 256 + 12 + 4000 - 4096
  xdp_linearize_overflow: /seen by the program 1.*behind the page .*: 172/s,
  partial_checksum_and_xdp: /saw the packet; L4 drop\n.*CHECKSUM_NONE/,
  flags_in_big_mode: /CHECKSUM_NONE/,
  trusted_length: /2888 bytes, with "what lay behind the buffer".*-EFAULT: .*NULL pointer/s,
  chunks_beside_xdp: /one chunk: dropped\n.*two: in the stack$/,
  flush_behind_napi_complete: /has returned: 3 of them/,
  csum_start_too_small: /taken: CHECKSUM_PARTIAL from byte 13 of the frame/,
  stale_redirect_target: /sent through eth1: 1$/,
  xdp_borders: /datagrams read: 0; IpInHdrErrors 1\n.*-EINVAL\n.*done, 452 bytes/,
  // 0xffffffff80000000 / 2, negated
  signed_division: /interpreted: 0x40000000\n.*JITed: 0xc0000000/,
};
const FIXED: Readonly<Record<string, RegExp>> = {
  branch_range: /^load: -EINVAL: branch of 28\d{4} instructions does not fit imm19/,
  original_by_blr: /returned 2$/,
  pad_of_replacement: /returned 2$/,
  truncated_image_address: /returned 2$/,
  image_overflow: /returned 5\n.*attached again returned 5$/s,
  run_statistics: /run_cnt 1, run_time_ns \d{1,5}, recursion_misses 1$/,
  tail_call_hierarchy: /returned 0\nthe program has run 34 times/,
  twelve_arguments: /attach: done\n.*returned 78\n.*saw 12 as the last argument/,
  wide_return: /-ENOTSUPP: trampoline that keeps a return value of 16 bytes\n.*returned 7$/,
  torn_plt_target: /^holds: \d{3} states$/,
  sleeping_original: /^holds: \d{3} states$/,
  ftrace_range_check: /^holds: \d\d states$/,
  ftrace_plt_compare: /^holds: \d\d states$/,
  ftrace_init_plt: /^holds: \d\d states$/,
  ftrace_plt_coherence: /^holds: \d\d states$/,
  stale_direct_target: /^holds: \d{3} states$/,
  hash_key_size: /-EINVAL: .*=255 exceeds the limit 40\nbytes changed in objects of others: 0$/,
  rss_without_feature: /: done\nthe device: works, commands: 0$/,
  rss_layout: /all, the device: all\n.*accepted\n.*: 0{16}\n.*4, the device: 4\n.*: (\w+), .*: \1$/,
  inner_hash: /GRE tunnel: 64 frames arrive as they were sent\non 8 of 8 queues$/,
  xdp_skb_headroom: /head is the start of its buffer/,
  xdp_linearize_overflow: /seen by the program 0, dropped 1\n.*: 0$/,
  partial_checksum_and_xdp: /was not run; driver drop\n.*CHECKSUM_UNNECESSARY/,
  flags_in_big_mode: /CHECKSUM_UNNECESSARY/,
  trusted_length: /: dropped\n.*: rx_length_errors 1$/,
  chunks_beside_xdp: /one chunk: dropped\n.*two: dropped$/,
  flush_behind_napi_complete: /has returned: 0 of them.*3 sent$/s,
  csum_start_too_small: /refused: rx_frame_errors 1/,
  stale_redirect_target: /sent through eth1: 0; xdp_redirect_err err=-56/,
  xdp_borders: /datagrams read: 1; IpInHdrErrors 0\n.*done\n.*-EINVAL/,
  signed_division: /interpreted: 0xc0000000\n.*JITed: 0xc0000000/,
};

describe.each(EXHIBITS.map((exhibit) => [exhibit.name, exhibit] as const))(
  '%s',
  (name, exhibit) => {
    it('shows the bug, and that it is gone', async () => {
      const { broken, fixed, ok } = await visit(exhibit, bootLab);
      expect(broken.lines.join('\n')).toMatch(BROKEN[name] ?? 'no expectation');
      expect(fixed.lines.join('\n')).toMatch(FIXED[name] ?? 'no expectation');
      expect([broken.right, fixed.right, ok]).toEqual([false, true, true]);
    });
  },
);

describe('trampolab museum', () => {
  it('shows one exhibit', async () => {
    const { code, lines } = await runForTest(['museum', '8']);
    expect(code).toBe(0);
    expect(lines[0]).toBe('#8 run_statistics (fixed in 6.1.94)');
    expect(lines).toContain('broken: wrong');
    expect(lines).toContain('fixed: right');
  });

  it('has JSON', async () => {
    const { lines } = await runForTest(['museum', '21', '--json']);
    expect(JSON.parse(lines.join(''))).toMatchObject([
      { number: 21, name: 'wide_return', wing: 'jit', ok: true },
    ]);
  });

  it('knows what it has', async () => {
    const { code, notices } = await runForTest(['museum', '3']);
    expect(code).toBe(2);
    expect(notices[0]).toMatch(/no exhibit '3' \(there are 2, 4, 5, /);
  });
});
