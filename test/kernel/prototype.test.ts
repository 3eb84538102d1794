import { describe, expect, it } from 'vitest';
import { parsePrototype } from '../../src/kernel/prototype.js';

describe.each<[string, string, number[], number]>([
  ['int bpf_fentry_test2(int a, u64 b)', 'bpf_fentry_test2', [4, 8], 4],
  ['void f(void)', 'f', [], 0],
  ['void *g(const char *s, unsigned long n)', 'g', [8, 8], 8],
  [
    'static void receive_buf(struct virtnet_info *vi, struct receive_queue *rq, void *buf, unsigned int len, void **ctx, unsigned int *xdp_xmit, struct virtnet_rq_stats *stats)',
    'receive_buf',
    [8, 8, 8, 4, 8, 8, 8],
    0,
  ],
])('%s', (text, name, sizes, returnSize) => {
  it('has the right model', () => {
    const prototype = parsePrototype(text);
    expect(prototype.name).toBe(name);
    expect(prototype.parameters.map((parameter) => parameter.size)).toEqual(sizes);
    expect(prototype.returnSize).toBe(returnSize);
  });
});

it.each(['int f', 'f(int', 'int f(struct pair p)'])('refuses %j', (text) => {
  expect(() => parsePrototype(text)).toThrow(/prototype|unknown type|no size/);
});

it('takes the sizes of structures', () => {
  const prototype = parsePrototype('int f(struct pair p, struct other *q)', { pair: 12 });
  expect(prototype.parameters).toMatchObject([
    { size: 12, struct: true },
    { size: 8, struct: false },
  ]);
});
