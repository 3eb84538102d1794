/** The process of `packet-job.ts`: gets a job as its first argument, sends back the rate. */
import type { PacketJob } from './packet-job.js';
import { garbageCollector, type PacketRate } from './packet-rate.js';
import { measureReceive } from './receive.js';
import { measureTraffic } from './traffic.js';

function measure(job: PacketJob): Promise<PacketRate> {
  const collect = garbageCollector();
  switch (job.kind) {
    case 'receive':
      return measureReceive(job, collect);
    case 'traffic':
      return measureTraffic(job, collect);
  }
}

const [, , job] = process.argv;
if (job === undefined || !process.send) {
  console.error('packet-child: started by trampolab bench traffic, which gives it a job');
  process.exit(2);
}
process.send(await measure(JSON.parse(job) as PacketJob));
