/**
 * The scenario of the kernel's selftest test_bpf_smc.c: four links, of which the policy of
 * `examples/smc/link_policy.c` blocks two; counters by fentry, protocol by fmod_ret, options by struct_ops.
 */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { UserMap } from '../../src/bpf/maps/user.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { findVariable } from '../../src/bpf/object/variables.js';
import { loadObject } from '../../src/kernel/bpf/object.js';
import { parseIpv4 } from '../../src/net/address.js';
import { SMC_CLC_DECL } from '../../src/smc/constants.js';
import { factories } from '../helpers/cpus.js';
import { bootSmc } from './pair.js';

const CLIENT = '127.0.0.1';
const SERVER = '127.0.1.0';
const RISKY = '127.0.2.0';

it.each(factories.map((factory) => [factory.name, factory] as const))(
  'counts (2,1), (3,1), (4,2) on %s',
  async (name) => {
    const engine = name === 'unicorn' ? 'unicorn' : 'embedded';
    const { kernel, smc } = await bootSmc({ ueid: 'SMC-BPFTEST-UEID' }, { engine });
    const path = new URL('../../examples/smc/link_policy.o', import.meta.url);
    const spec = parseObject(readFileSync(path), { name: 'link_policy' });
    const object = loadObject(kernel, spec);
    const get = (variable: string): number => {
      const { map, variable: found } = findVariable(spec, variable);
      const base = object.loaded.maps.get(map.name)?.valueAddress ?? 0n;
      return Number(kernel.memory.read64(base + BigInt(found.offset)));
    };
    const block = (from: string, to: string): void => {
      const key = Uint8Array.from([...parseIpv4(from), ...parseIpv4(to)]);
      const map = object.loaded.maps.get('blocked_links');
      if (map) new UserMap(map).update(key, Uint8Array.of(1));
    };
    const reasons: number[] = [];
    const runLink = async (from: string, to: string, port: number): Promise<void> => {
      const server = smc.inetSocket();
      const client = smc.inetSocket(1, 6);
      if (!server || !client) throw new Error('the protocol was not changed');
      server.listen({ address: to, port });
      client.bind({ address: from, port: 0 });
      await client.connect({ address: to, port });
      reasons.push(client.fallbackReason);
      client.closeNow();
      server.closeNow();
    };
    expect(smc.inetSocket()).toBeUndefined();
    object.attachAll();
    object.registerStructOps('by_link');
    smc.setHsCtrl('by_link');
    block(CLIENT, RISKY);
    block(SERVER, SERVER);

    await runLink(CLIENT, SERVER, 80);
    await runLink(SERVER, SERVER, 443);
    expect([get('released'), get('fallen_back')]).toEqual([2, 1]);
    await runLink(CLIENT, SERVER, 443);
    expect([get('released'), get('fallen_back')]).toEqual([3, 1]);
    await runLink(CLIENT, RISKY, 8443);
    expect([get('released'), get('fallen_back')]).toEqual([4, 2]);
    const { PEERNOSMC } = SMC_CLC_DECL;
    expect(reasons).toEqual([0, PEERNOSMC, 0, PEERNOSMC]);

    smc.setHsCtrl(undefined);
    object.close();
    expect(smc.inetSocket()).toBeUndefined();
    expect(() => smc.setHsCtrl('by_link')).toThrow("-EINVAL: no handshake policy 'by_link'");
    kernel.close();
  },
);
