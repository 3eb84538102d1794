/**
 * Exhibit 36: a frame in several chunks of an AF_XDP socket goes around the XDP program.
 *
 * Reference: virtnet_receive_xsk_merge of drivers/net/virtio_net.c. What the fix changes is told from its title and
 * from the driver that came after.
 */
import { XdpSocket } from '../../stack/xsk-socket.js';
import { VERDICTS, returnProgram } from '../csum/programs.js';
import type { Exhibit } from './exhibit.js';
import { testFrame, withNet } from './net-lab.js';

const CHUNK = 2048;

export const severalChunks: Exhibit = {
  number: 36,
  name: 'chunks_beside_xdp',
  wing: 'network',
  fixedIn: '6.12.63',
  story:
    'Where an AF_XDP socket receives without a copy, the buffers of the queue are the chunks of its memory, and a long ' +
    'frame takes several. The program, which sees one chunk, was not run then, and its verdict taken to be XDP_PASS: ' +
    'what a filter drops reached the stack if it was long enough. Now such a frame is dropped.',
  run: (variant, boot) => {
    const bugs = variant === 'broken' ? (['chunks pass the program'] as const) : [];
    return withNet(boot, { device: { features: ['RING_RESET'], bugs } }, (lab) => {
      const { kernel, driver, net, program } = lab;
      const socket = new XdpSocket(driver.stack, { frameSize: CHUNK });
      socket.fill();
      socket.bind(kernel.memory.ram.virtToPhys(net.dev), 0, { zeroCopy: true });
      net.attachXdp(program(returnProgram(VERDICTS.DROP)));
      const arrives = (length: number): string => {
        net.receive(testFrame(length));
        net.poll();
        return net.drain() === 0 ? 'dropped' : 'in the stack';
      };
      const short = arrives(1000);
      const long = arrives(3000);
      socket.close();
      return {
        lines: [
          `chunks of ${CHUNK} bytes, a program that drops everything`,
          `a frame of 1000 bytes, in one chunk: ${short}`,
          `a frame of 3000 bytes, in two: ${long}`,
        ],
        right: long === 'dropped',
      };
    });
  },
};
