/**
 * Exhibit 46: a division whose result depends on whether the program was JITed.
 *
 * Reference: ALU_DIV_K and ALU_MOD_K with off 1 of kernel/bpf/core.c; CVE-2026-31525.
 */
import { assemble } from '../../bpf/assemble.js';
import { createInterpreter } from '../../bpf/interpreter.js';
import { rawProgram } from '../../bpf/raw-program.js';
import { tryCall, withKernel, type Exhibit } from './exhibit.js';

/** (s32)-2147483648 s/ 2. */
const TEXT = 'w0 = -2147483648\nw1 = 2\nw0 s/= w1\nexit';
const RIGHT = 0xc000_0000n;

export const signedDivision: Exhibit = {
  number: 46,
  name: 'signed_division',
  wing: 'interpreter',
  fixedIn: 'the fix of CVE-2026-31525',
  story:
    'The interpreter divided signed 32-bit numbers by their magnitudes, which it made with abs() of an int: the most ' +
    'negative one stays negative there, and was extended to 64 bits with ones. Its quotient was not what the verifier ' +
    'expects nor what the JIT makes. Now the magnitude is made as u32.',
  run: (variant, boot) =>
    withKernel(boot, {}, (kernel) => {
      const { host } = kernel.bpf;
      const program = rawProgram('divide', assemble(TEXT), { stackDepth: 0 });
      const magnitude = variant === 'broken' ? 'int' : 'u32';
      const interpreter = createInterpreter(program, host, { magnitude });
      const interpreted = interpreter.run(0n);
      interpreter.close();
      const jited = tryCall(kernel, kernel.bpf.load(program).entry, 0n);
      const own = interpreted.kind === 'return' ? interpreted.r0 : undefined;
      const jit = jited.kind === 'returned' ? jited.value : undefined;
      return {
        lines: [
          `-2147483648 s/ 2, interpreted: 0x${own?.toString(16)}`,
          `-2147483648 s/ 2, JITed: 0x${jit?.toString(16)}`,
        ],
        right: own === RIGHT && jit === RIGHT,
      };
    }),
};
