/** The VMM ends itself: a failed assertion, or an allocation that cannot be had. */
export class VmmAbort extends Error {
  constructor(why: string) {
    super(why);
    this.name = 'VmmAbort';
  }
}
