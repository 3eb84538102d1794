/**
 * Vectors of virtio-net guests: packets, attach cases, limits, offload states, panics, receive hashes.
 *
 * Packets and attach cases bring a driver of their own, so each takes a kernel of its own, booted when the
 * first such record comes. The programs run on `engine`.
 *
 * Usage:
 *   const kind = new VirtioKind(() => bootLab(), 'interpreter');
 *   for await (const result of checkFile(name, text, options, [kind])) ...
 *   kind.close();
 */
import { InputError } from '../../../common/errors.js';
import type { Kernel } from '../../../kernel/kernel.js';
import type { RunEngine } from '../../run-program.js';
import { failed, passed, skipped, type CaseResult, type VectorKind } from '../kind.js';
import { VectorRecord } from '../record.js';
import { AttachLab } from './attach.js';
import type {
  AttachRecord,
  CrashRecord,
  LimitRecord,
  OffloadStateRecord,
} from './attach-record.js';
import { modelledVersion } from './guest-version.js';
import { PacketLab } from './packet.js';
import type { PacketRecord } from './packet-record.js';
import { FIELDS, type FieldKind } from './record-fields.js';
import { RssLab } from './rss.js';

type Compared =
  | { readonly kind: 'equal' }
  | { readonly kind: 'skipped'; readonly why: string }
  | { readonly kind: 'different'; readonly differences: readonly string[] };

export class VirtioKind implements VectorKind {
  readonly name = 'virtio-net guests';
  readonly #boot: () => Promise<Kernel>;
  readonly #engine: RunEngine;
  readonly #kernels: Kernel[] = [];
  #packets: PacketLab | undefined;
  #attach: AttachLab | undefined;
  #rss: RssLab | undefined;

  constructor(boot: () => Promise<Kernel>, engine: RunEngine) {
    this.#boot = boot;
    this.#engine = engine;
  }

  matches({ fields }: VectorRecord): boolean {
    return fields['kernel_version'] !== undefined && String(fields['type']) in FIELDS;
  }

  async check(record: VectorRecord): Promise<CaseResult> {
    const type = record.text('type');
    checkFields(record, FIELDS[type] ?? {});
    const named = new VectorRecord(record.origin, { ...record.fields, name: nameOf(record) });
    const guest = record.text('kernel_version');
    if (modelledVersion(guest) === undefined) {
      return skipped(named, `the driver of ${guest} is not modelled`);
    }
    return verdict(named, await this.#compare(type, record));
  }

  close(): void {
    for (const kernel of this.#kernels.splice(0)) kernel.close();
  }

  async #compare(type: string, record: VectorRecord): Promise<Compared> {
    // checkFields has looked at them
    const fields: unknown = record.fields;
    switch (type) {
      case 'packet':
        this.#packets ??= new PacketLab(await this.#newKernel(), this.#engine);
        return this.#packets.check(fields as PacketRecord);
      case 'attach':
        return (await this.#attachLab()).attach(fields as AttachRecord);
      case 'limit':
        return (await this.#attachLab()).limit(fields as LimitRecord);
      case 'offload-state':
        return (await this.#attachLab()).offloadState(fields as OffloadStateRecord);
      case 'crash':
        return (await this.#attachLab()).crash(fields as CrashRecord);
      case 'rss':
      case 'rss-default':
        this.#rss ??= new RssLab(await this.#newKernel());
        return this.#rss.check(record);
      default:
        throw new InputError(`${record.origin}: no virtio record of type ${type}`);
    }
  }

  async #attachLab(): Promise<AttachLab> {
    this.#attach ??= new AttachLab(await this.#newKernel(), this.#engine);
    return this.#attach;
  }

  async #newKernel(): Promise<Kernel> {
    const kernel = await this.#boot();
    this.#kernels.push(kernel);
    return kernel;
  }
}

/** Throws InputError for a field that is missing or of another kind. */
function checkFields(record: VectorRecord, fields: Readonly<Record<string, FieldKind>>): void {
  for (const [field, kind] of Object.entries(fields)) {
    const value = record.fields[field];
    const isOptional = kind.endsWith('?');
    if (isOptional && (value === undefined || value === null)) continue;
    const wanted = kind.replace('?', '');
    const got = Array.isArray(value) ? 'list' : typeof value;
    if (got === wanted) continue;
    throw new InputError(`${record.origin}: field ${field} is not of kind ${wanted}`);
  }
}

/** Identifier, or what distinguishes a record without one. */
function nameOf(record: VectorRecord): string {
  const { id, type, kernel_version: version, rx_mode: mode, what, program } = record.fields;
  if (typeof id === 'string') return `${id} ${String(type)}`;
  const words = [type, version, mode, what, program].filter((word) => typeof word === 'string');
  return words.join(' ');
}

function verdict(record: VectorRecord, result: Compared): CaseResult {
  switch (result.kind) {
    case 'equal':
      return passed(record);
    case 'skipped':
      return skipped(record, result.why);
    case 'different':
      return failed(record, result.differences.join('; '));
  }
}
