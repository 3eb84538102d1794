/**
 * Exhibits 6 and 7: the address of the bpf_tramp_image that a trampoline passes to __bpf_tramp_enter.
 *
 * Reference: prepare_trampoline, arch_bpf_trampoline_size of arch/arm64/net/bpf_jit_comp.c;
 * emit_a64_mov_i64 and emit_addr_mov_i64. It is a slab object in the linear map, which begins at
 * 0xfff0000000000000 with 52-bit addresses and has a tag in its top byte with KASAN_SW_TAGS.
 */
import { describeCall, tryCall, withKernel, type Exhibit } from './exhibit.js';
import { loadNothing } from './programs.js';
import type { Kernel } from '../../kernel/kernel.js';
import { moveImagesAway } from '../far-images.js';
import { hex64 } from '../../common/bytes.js';

export const truncatedImage: Exhibit = {
  number: 6,
  name: 'truncated_image_address',
  wing: 'jit',
  fixedIn: '6.1.140 (CVE-2024-43840)',
  story:
    'The address of the bpf_tramp_image was made as that of a vmalloc object: 48 bits and ones above. It is a ' +
    'slab object; with 52-bit addresses __bpf_tramp_enter got a pointer to nowhere. Now it is made like any ' +
    'other 64-bit constant.',
  run: (variant, boot) =>
    withKernel(
      boot,
      {
        pageOffset: 0xfff0_0000_0000_0000n,
        codegen: { trampoline: { imageAddress: variant === 'broken' ? '48 bits' : '64 bits' } },
      },
      (kernel) => {
        const program = loadNothing(kernel, 'watcher');
        const { trampoline } = kernel.bpf.attach(program, 'fexit', 'bpf_fentry_test1');
        const outcome = tryCall(kernel, 'bpf_fentry_test1', 1n);
        return {
          lines: [
            `bpf_tramp_image at ${hex64(trampoline.image?.descriptor ?? 0n)}`,
            describeCall('bpf_fentry_test1(1) with an fexit program', outcome),
          ],
          right: outcome.kind === 'returned' && outcome.value === 2n,
        };
      },
    ),
};

/** A tag, and RAM above 32 GiB: an address of four parts that are all different. */
const TAGGED = 0xf7ff_0008_8000_0000n;
const CHUNK = 64;
/** Cookies of 0 to 4 MOVs: they move the end of the image word by word. */
const COOKIES = [0n, 1n, 0x10001n, 0x1_0001_0001n, 0x1234_5678_9abc_def0n];

interface Placed {
  readonly target: string;
  readonly allocated: number;
  readonly emitted: number;
  readonly attach: () => () => void;
}

/** An fexit program whose trampoline is estimated to end where a chunk of the pack does. */
function endAtChunk(kernel: Kernel): Placed {
  const program = loadNothing(kernel, 'watcher');
  moveImagesAway(kernel);
  for (const target of [1, 3, 4, 5, 6].map((n) => `bpf_fentry_test${n}`)) {
    for (const cookie of COOKIES) {
      const attach = (): (() => void) => {
        const { detach } = kernel.bpf.attach(program, 'fexit', target, cookie);
        return () => {
          detach();
          settle(kernel);
        };
      };
      const detach = attach();
      const code = kernel.bpf.trampolineAt(target)?.image?.code;
      const [allocated, emitted] = [code?.allocSize ?? 0, code?.length ?? 0];
      detach();
      if (allocated % CHUNK === 0) return { target, allocated, emitted, attach };
    }
  }
  throw new Error('no cookie brings the estimate to the end of a chunk');
}

/** Lets grace periods pass, so that what was put is freed. */
function settle(kernel: Kernel): void {
  for (let i = 0; i < 8; i++) kernel.call('bpf_fentry_test7', 0n);
}

export const imageOverflow: Exhibit = {
  number: 7,
  name: 'image_overflow',
  wing: 'jit',
  fixedIn: '6.1.140, 6.11.6 (CVE-2024-50203)',
  story:
    'The size of a trampoline was taken with the bpf_tramp_image on the stack and the code made with the one on ' +
    'the heap. A tagged heap address takes one MOV more, twice: the code ran over its allocation and into the ' +
    'next image. Now the estimate takes four MOVs for any address.',
  run: (variant, boot) =>
    withKernel(
      boot,
      {
        pageOffset: TAGGED,
        codegen: {
          trampoline: { imageAddressEstimate: variant === 'broken' ? 'of the copy' : 'most' },
        },
      },
      (kernel) => {
        const neighbour = loadNothing(kernel, 'neighbour');
        const { target, allocated, emitted, attach } = endAtChunk(kernel);
        const detach = attach();
        kernel.bpf.attach(neighbour, 'fentry', 'bpf_fentry_test2');
        const before = tryCall(kernel, 'bpf_fentry_test2', 2n, 3n);
        // the same again in the hole that it leaves, with the other behind it
        detach();
        attach();
        const after = tryCall(kernel, 'bpf_fentry_test2', 2n, 3n);
        return {
          lines: [
            `trampoline of ${target}: ${allocated} bytes allocated, ${emitted} written`,
            describeCall('bpf_fentry_test2(2, 3), whose trampoline lies behind it,', before),
            describeCall('and when the former has been detached and attached again', after),
          ],
          right: after.kind === 'returned' && after.value === 5n,
        };
      },
    ),
};
