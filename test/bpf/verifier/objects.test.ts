import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../../src/common/errno.js';
import { helperBodies } from '../../../src/bpf/helpers/table.js';
import { linkProgram } from '../../../src/bpf/object/link.js';
import { load } from '../../../src/bpf/object/load.js';
import { PlainHost } from '../../../src/bpf/plain-host.js';
import { VerifierError } from '../../../src/bpf/verifier/error.js';
import { verifierInput } from '../../../src/bpf/verifier/from-object.js';
import type { VerifiedProgram } from '../../../src/bpf/verifier/input.js';
import { verify } from '../../../src/bpf/verifier/verify.js';
import { pathToFileURL } from 'node:url';
import { sharedFile } from '../../helpers/shared.js';
import { readLines, type ReferenceRecord } from '../xdp-reference.js';
import { readObject } from '../xdp-run.js';
import { verifyText } from './program-text.js';

interface Reject {
  readonly object: string;
  readonly source: string;
  readonly program: string;
  readonly errno: number;
}

const sample = new URL('../../vectors/xdp/', import.meta.url);

function check(object: URL, name: string): VerifiedProgram {
  const spec = readObject(object);
  const program = spec.programs.find((each) => each.name === name);
  if (!program) throw new Error(`no program ${name}`);
  const linked = linkProgram(spec, program, {
    map: () => 1n,
    data: () => 1n,
    symbol: () => 1n,
    kfunc: () => undefined,
    kernelTypes: () => {
      throw new Error(`${name} needs kernel types`);
    },
  });
  return verify(verifierInput(spec, program, linked, spec.maps));
}

function refusal(run: () => unknown): VerifierError {
  try {
    run();
  } catch (error) {
    if (error instanceof VerifierError) return error;
    throw error;
  }
  throw new Error('accepted');
}

describe('objects that a real kernel refuses', () => {
  const rejects = readLines<Reject>(new URL('rejects.jsonl', sample));

  it.each(rejects.map((reject) => [reject.object, reject] as const))('%s', (_, reject) => {
    const url = new URL(`obj/${reject.object}`, sample);
    const error = refusal(() => check(url, reject.program));
    expect(ERRNO[error.errno]).toBe(reject.errno);
    const source = reject.source.replace('reject_', '').replaceAll('.', '\\.');
    expect(error.message).toMatch(new RegExp(`\\(${source}:\\d+: `));
    expect(error.log.at(-1)).toBe(error.reason);
  });

  it('leave nothing allocated', () => {
    const host = new PlainHost({ helpers: helperBodies() });
    const before = host.memory.regions.length;
    const spec = readObject(new URL('obj/reject_null_value.o', sample));
    refusal(() => load(spec, host));
    expect(host.memory.regions).toHaveLength(before);
    load(spec, host, { check: false }).free();
  });
});

describe('objects that a real kernel accepts', () => {
  it.each(['siphash24.o siphash24', 'spin_bank.v3.o spin_bank', 'tail_chain.o chain_entry'])(
    '%s',
    (name) => {
      const [object = '', program = ''] = name.split(' ');
      const verified = check(new URL(`obj/${object}`, sample), program);
      expect(verified.processed).toBeGreaterThan(20);
    },
  );

  const folder = sharedFile('vectors', 'xdp');
  const corpus = folder === undefined ? undefined : pathToFileURL(`${folder}/`);

  it.runIf(corpus)('the whole corpus', { timeout: 60_000 }, () => {
    if (!corpus) return;
    const records = readLines<ReferenceRecord>(new URL('reference.jsonl', corpus));
    const seen = new Set<string>();
    for (const { object, program } of records) {
      // the two of these walk most of a million instructions; CO-RE and callbacks are other parts
      if (/^(crc_tables|core_reloc)/.test(object) || seen.has(object + program)) continue;
      seen.add(object + program);
      expect(check(new URL(`obj/${object}`, corpus), program).processed).toBeGreaterThan(0);
    }
    expect(seen.size).toBeGreaterThan(60);
  });
});

describe('what the rewriting learns', () => {
  it('which memory, how much stack, what is dead', () => {
    const { functions } = verifyText(`
      r2 = *(u32 *)(r1 +16)
      *(u64 *)(r10 -24) = r2
      r0 = 1
      if r0 == 1 goto end
      r0 = 2
    end:
      exit`);
    expect([...(functions[0]?.accesses ?? [])]).toEqual([
      [0, 'ctx'],
      [1, 'stack'],
    ]);
    expect(functions[0]?.stackDepth).toBe(24);
    expect([...(functions[0]?.dead ?? [])]).toEqual([4]);
  });
});
