/**
 * Whoever wants to know what ftrace stores where other CPUs look, in the order in which it does: tests, and
 * explorers of interleavings.
 *
 * | kind                | what                                                              |
 * | ------------------- | ----------------------------------------------------------------- |
 * | `list`              | a pointer of ftrace_ops_list: its head, or an ops' next           |
 * | `literal`           | the 8 bytes before a function                                     |
 * | `instruction`       | a patch site, or the BL at ftrace_call                            |
 * | `function_trace_op` | the variable that ftrace_caller passes where there is no literal  |
 * | `ipi`               | no store: every CPU has executed a barrier                        |
 */
export interface FtraceStore {
  readonly kind: 'list' | 'literal' | 'instruction' | 'function_trace_op' | 'ipi';
  readonly address: bigint;
  readonly value: bigint;
}

export interface StoreObserver {
  /** Told of each store after it was made. */
  onStore: ((store: FtraceStore) => void) | undefined;
}
