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

process.send?.(await measure(JSON.parse(process.argv[2] ?? '{}') as PacketJob));
