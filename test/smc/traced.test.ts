/** The functions of net/smc as trace targets: programs see each call, and the transfer does not notice. */
import { expect, it } from 'vitest';
import { PARAMETERS } from './prototypes.js';
import { factories } from '../helpers/cpus.js';
import { counter, recorder } from '../helpers/tracing.js';
import { bootSmc, connectPair, pattern } from './pair.js';

it('has an entry for every function that the description of SMC names', async () => {
  const { kernel } = await bootSmc();
  const missing = Object.entries(PARAMETERS).filter(([name, parameters]) => {
    const address = kernel.symbols.find(name)?.address ?? 0n;
    const prototype = kernel.text.prototypes.get(address);
    return prototype?.parameters.length !== parameters;
  });
  expect(missing).toEqual([]);
  kernel.close();
});

const TRACED = [
  'smc_connect',
  'smc_listen_work',
  'smc_clc_wait_msg',
  'smc_conn_create',
  'smcd_buf_attach',
  'smc_lo_move_data',
  'smcd_cdc_rx_tsklet',
  'smc_cdc_msg_recv_action',
  'smc_tx_sendmsg',
  'smc_rx_recvmsg',
  'smc_close_passive_work',
  'smc_release',
] as const;

it.each(factories.map((factory) => [factory.name]))('are entered on %s', async (name) => {
  const engine = name === 'unicorn' ? 'unicorn' : 'embedded';
  const { kernel, smc } = await bootSmc({}, { engine });
  const counts = kernel.kmalloc(8 * TRACED.length);
  const links = TRACED.map((target, i) => {
    const program = counter(kernel, counts + BigInt(8 * i));
    return kernel.bpf.attach(program, i % 2 === 0 ? 'fentry' : 'fexit', target);
  });
  const args = kernel.kmalloc(8 * 8);
  const cursor = recorder(kernel, args, 3);
  links.push(kernel.bpf.attach(cursor, 'fentry', 'smc_rx_update_consumer'));
  const move = kernel.kmalloc(8 * 8);
  links.push(kernel.bpf.attach(recorder(kernel, move, 7), 'fentry', 'smc_lo_move_data'));

  const { client, server, close } = await connectPair(smc);
  const data = pattern(3000);
  const got = new Uint8Array(3000);
  for (let i = 0; i < 3; i++) {
    expect(client.sendNow(data)).toBe(3000);
    expect(server.recvNow(got)).toBe(3000);
    expect(got).toEqual(data);
  }
  // union smc_host_cursor by value: count in the upper half
  expect(kernel.memory.read64(args + 8n)).toBe(6000n << 32n);
  expect(kernel.memory.read64(args + 16n)).toBe(3000n);
  // sf, offset and size of a record
  const word = (i: number): bigint => kernel.memory.read64(move + BigInt(8 * i));
  expect([word(3), word(4), word(6)]).toEqual([1n, 0n, 32n]);
  close();
  const seen = Object.fromEntries(
    TRACED.map((target, i) => [target, Number(kernel.memory.read64(counts + BigInt(8 * i)))]),
  );
  expect(seen).toEqual({
    smc_connect: 1,
    smc_listen_work: 1,
    smc_clc_wait_msg: 3,
    smc_conn_create: 2,
    smcd_buf_attach: 2,
    smc_lo_move_data: 3 + 3 + 2,
    smcd_cdc_rx_tsklet: 3 + 2,
    smc_cdc_msg_recv_action: 3 + 2,
    smc_tx_sendmsg: 3,
    smc_rx_recvmsg: 3,
    smc_close_passive_work: 2,
    smc_release: 3,
  });
  for (const link of links) link.detach();
  kernel.close();
});
