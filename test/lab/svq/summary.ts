/** An outcome in one line, what is as it should be left out. */
import type { FaultOutcome } from '../../../src/lab/svq/faults.js';
import type { Leaks } from '../../../src/vhost/leaks.js';

export function summary(outcome: FaultOutcome): string {
  const parts = [`guest ${outcome.guest.length === 0 ? '-' : outcome.guest.join(' and ')}`];
  if (outcome.outstanding > 0) parts.push(`${outcome.outstanding} not back`);
  parts.push(`device ${outcome.device.length === 0 ? '-' : outcome.device.join(' ')}`);
  if (outcome.broken) parts.push('NEEDS_RESET');
  if (outcome.deviceError !== undefined) parts.push('device broken');
  if (outcome.abort !== undefined) parts.push(`abort: ${outcome.abort}`);
  if (outcome.refused !== undefined) parts.push('start fails');
  if (isLeak(outcome.leaks)) parts.push(`leaks ${leakText(outcome.leaks)}`);
  if (isLeak(outcome.afterStop)) parts.push(`after stop ${leakText(outcome.afterStop)}`);
  for (const [name, value] of Object.entries(outcome.notes)) parts.push(`${name} ${value}`);
  return parts.join('; ');
}

function isLeak({ descriptors, mappings, buffers }: Leaks): boolean {
  return descriptors !== 0 || mappings !== 0 || buffers !== 0;
}

/** Descriptors, mappings, buffers. */
function leakText({ descriptors, mappings, buffers }: Leaks): string {
  return `${descriptors}/${mappings}/${buffers}`;
}
