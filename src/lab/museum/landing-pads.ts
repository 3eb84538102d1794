/**
 * Exhibits 4 and 5: branches by register into guarded text that has no landing pad for them.
 *
 * Reference: prepare_trampoline and build_prologue of arch/arm64/net/bpf_jit_comp.c; Arm ARM D8.4.5. Both need
 * CONFIG_ARM64_BTI_KERNEL, and here the embedded engine.
 */
import { describeCall, tryCall, withKernel, type Exhibit } from './exhibit.js';
import { loadNothing, loadText } from './programs.js';

export const originalByBlr: Exhibit = {
  number: 4,
  name: 'original_by_blr',
  wing: 'jit',
  fixedIn: '6.1.25',
  story:
    'The trampoline entered the original behind its patch site with BLR. There is no BTI at that place, so a ' +
    'CPU that checks landing pads took a Branch Target exception. Now x30 is set by ADR and RET goes there.',
  run: (variant, boot) =>
    withKernel(
      boot,
      {
        guarded: true,
        codegen: {
          config: { bti: true },
          trampoline: { originalBy: variant === 'broken' ? 'blr' : 'ret' },
        },
      },
      (kernel) => {
        kernel.bpf.attach(loadNothing(kernel, 'watcher'), 'fexit', 'bpf_fentry_test1');
        const outcome = tryCall(kernel, 'bpf_fentry_test1', 1n);
        return {
          lines: [describeCall('bpf_fentry_test1(1) with an fexit program', outcome)],
          right: outcome.kind === 'returned' && outcome.value === 2n,
        };
      },
    ),
};

/** More than BL and B reach. */
const FAR = 256n << 20n;

export const padOfReplacement: Exhibit = {
  number: 5,
  name: 'pad_of_replacement',
  wing: 'jit',
  fixedIn: '6.1.52',
  story:
    'Programs began with `bti c`, which accepts calls. A program that replaces another (freplace) is jumped to, ' +
    "through the replaced one's PLT by BR x10 when it is far. Now they begin with `bti jc`.",
  run: (variant, boot) =>
    withKernel(
      boot,
      {
        version: '6.1',
        guarded: true,
        codegen: {
          config: { bti: true },
          jit: { entryPad: variant === 'broken' ? 'c' : 'jc' },
        },
      },
      (kernel) => {
        const target = kernel.bpf.load({
          name: 'replaced',
          type: 'raw',
          functions: [loadText(kernel, 'replaced', 'r0 = 1\nexit').xlated.functions[0]],
        });
        kernel.vmalloc.take(FAR, 4096n);
        const replacement = kernel.bpf.load({
          name: 'replacement',
          type: 'raw',
          functions: [loadText(kernel, 'replacement', 'r0 = 2\nexit').xlated.functions[0]],
        });
        kernel.bpf.attach(replacement, 'freplace', { program: target });
        const outcome = tryCall(kernel, target.entry, 0n);
        return {
          lines: [
            describeCall('the replaced program, of which the other should return 2,', outcome),
          ],
          right: outcome.kind === 'returned' && outcome.value === 2n,
        };
      },
    ),
};
