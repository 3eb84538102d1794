/**
 * Exhibit 8: the run time of programs that did not run.
 *
 * Reference: invoke_bpf_prog of arch/arm64/net/bpf_jit_comp.c; update_prog_stats of kernel/bpf/trampoline.c.
 */
import { tryCall, withKernel, type Exhibit } from './exhibit.js';
import { loadText } from './programs.js';

const GET_PRANDOM_U32 = 7;

export const runStatistics: Exhibit = {
  number: 8,
  name: 'run_statistics',
  wing: 'jit',
  fixedIn: '6.1.94',
  story:
    'The start time went from x0 to x20 behind the branch around a program that is not entered (it runs on this ' +
    'CPU already). The exit function then got whatever x20 held, counted a run and added the time since that. ' +
    'Now x20 is set before the branch: 0 says that there was no run.',
  run: (variant, boot) =>
    withKernel(
      boot,
      {
        codegen: {
          trampoline: { startSaved: variant === 'broken' ? 'if entered' : 'always' },
        },
      },
      (kernel) => {
        kernel.bpf.statsEnabled = true;
        // r7 is x20: what the trampoline inside finds there
        const program = loadText(
          kernel,
          'recursing',
          `r7 = 2\ncall ${GET_PRANDOM_U32}\nr0 = 0\nexit`,
        );
        kernel.bpf.attach(program, 'fentry', 'bpf_get_prandom_u32');
        // a machine that has been up for a while
        kernel.bpf.host.advanceClock(3_600_000_000_000n);
        tryCall(kernel, 'bpf_get_prandom_u32');
        const { runs, nanoseconds, misses } = program.stats;
        return {
          lines: [
            'a program that calls the function it is attached to: entered once, skipped once',
            `statistics: run_cnt ${runs}, run_time_ns ${nanoseconds}, recursion_misses ${misses}`,
          ],
          right: runs === 1n && nanoseconds < 1_000_000n && misses === 1n,
        };
      },
    ),
};
