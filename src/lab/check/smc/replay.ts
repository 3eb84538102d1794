/**
 * Which records of `vectors/smc` are replayed together, and where the result of each lies.
 *
 * Sockets are listed in records of their own (`diag`): those of a session belong to it, those of a case with
 * bytes by hand have its name.
 */
import type { VectorRecord } from '../record.js';
import { compareSocks, differenceOf, skip, type Difference } from './compare.js';
import { replayClient, replayCrafted, type CraftedResult } from './crafted.js';
import type { Machine } from './machines.js';
import { replaySession, sessionsOf, type Session } from './sessions.js';
import { compareSingle, unconnected } from './single.js';

export class SmcReplay {
  readonly #machine: Machine;
  readonly #sessions = new Map<VectorRecord, Session>();
  readonly #replayed = new Map<Session, ReadonlyMap<VectorRecord, Difference> | undefined>();
  /** By run and name. */
  readonly #cases = new Map<string, VectorRecord>();
  readonly #crafted = new Map<VectorRecord, CraftedResult>();

  constructor(file: readonly VectorRecord[], machine: Machine) {
    this.#machine = machine;
    for (const session of sessionsOf(file)) {
      for (const record of session.records) this.#sessions.set(record, session);
    }
    for (const record of file) {
      if (record.has('case')) this.#cases.set(caseKey(record, record.text('case')), record);
    }
  }

  async compare(record: VectorRecord): Promise<Difference> {
    if (record.has('case')) return (await this.#case(record)).difference;
    if (record.text('x') === 'diag') {
      const of = this.#cases.get(caseKey(record, record.text('at')));
      if (of) {
        const { difference, socks, port } = await this.#case(of);
        return difference.kind === 'skipped' ? difference : compareSocks(record, socks, port);
      }
      const compared = await unconnected(record, this.#machine);
      if (compared) return differenceOf(compared);
    }
    const session = this.#sessions.get(record);
    return session ? this.#inSession(session, record) : compareSingle(record, this.#machine);
  }

  async #case(record: VectorRecord): Promise<CraftedResult> {
    const known = this.#crafted.get(record);
    if (known) return known;
    const replay = record.text('x') === 'client' ? replayClient : replayCrafted;
    const result = await replay(record, this.#machine);
    this.#crafted.set(record, result);
    return result;
  }

  async #inSession(session: Session, record: VectorRecord): Promise<Difference> {
    if (!this.#replayed.has(session)) {
      this.#replayed.set(session, await replaySession(session, this.#machine));
    }
    return this.#replayed.get(session)?.get(record) ?? skip('what was called is not told');
  }
}

function caseKey(record: VectorRecord, name: string): string {
  return `${record.text('run')} ${name}`;
}
