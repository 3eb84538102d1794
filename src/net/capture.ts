/**
 * A packet capture as a value, whatever file format it came from.
 *
 * Times are nanoseconds since the epoch; coarser files give multiples, finer ones (pcapng allows
 * picoseconds) are cut to nanoseconds.
 */

/** Link types (www.tcpdump.org/linktypes.html); this lab runs Ethernet. */
export const LINKTYPE_ETHERNET = 1;

/** A pcapng option as it stands in the file. */
export interface CaptureOption {
  readonly code: number;
  readonly value: Uint8Array;
}

/** Option codes with meaning here (pcapng §3.5, §4.1, §4.2). */
export const OPTION = {
  COMMENT: 1,
  IF_NAME: 2,
  IF_TSRESOL: 9,
  IF_TSOFFSET: 14,
} as const;

export interface CaptureInterface {
  readonly linkType: number;
  /** Bytes kept of each packet; 0 is unlimited. */
  readonly snapLength: number;
  /** All options of the file except resolution and offset of times, which `time` has absorbed. */
  readonly options: readonly CaptureOption[];
}

export interface CapturedPacket {
  /** Index in `Capture.interfaces`. */
  readonly interfaceIndex: number;
  /** Nanoseconds since the epoch; `undefined` where the file keeps none (simple packet blocks). */
  readonly time: bigint | undefined;
  /** The captured bytes: at most the interface's snapLength. */
  readonly bytes: Uint8Array;
  /** Length on the wire. */
  readonly originalLength: number;
  readonly options: readonly CaptureOption[];
}

export interface Capture {
  readonly format: 'pcap' | 'pcapng';
  readonly interfaces: readonly CaptureInterface[];
  readonly packets: readonly CapturedPacket[];
  /** Options of the (first) section: hardware, operating system, application, comments. */
  readonly options: readonly CaptureOption[];
}

/** A capture that is read packet by packet. */
export interface CaptureReader {
  readonly format: Capture['format'];
  /** Those met so far: pcapng may bring more between packets. */
  readonly interfaces: readonly CaptureInterface[];
  /** As `Capture.options`; complete when the first packet has come. */
  readonly options: readonly CaptureOption[];
  /** Yields every packet once. Throws InputError where the file is cut or damaged. */
  packets(): Iterable<CapturedPacket>;
}

/** The comments among `options`. */
export function commentsOf(options: readonly CaptureOption[]): readonly string[] {
  const decoder = new TextDecoder();
  return options
    .filter(({ code }) => code === OPTION.COMMENT)
    .map(({ value }) => decoder.decode(value));
}

export function commentOption(text: string): CaptureOption {
  return { code: OPTION.COMMENT, value: new TextEncoder().encode(text) };
}

/** A capture of Ethernet frames, one nanosecond-stamped packet each. */
export function ethernetCapture(
  frames: readonly {
    readonly bytes: Uint8Array;
    readonly time: bigint | undefined;
    readonly options?: readonly CaptureOption[];
  }[],
  format: Capture['format'] = 'pcap',
): Capture {
  return {
    format,
    interfaces: [{ linkType: LINKTYPE_ETHERNET, snapLength: 262144, options: [] }],
    packets: frames.map(({ bytes, time, options }) => ({
      interfaceIndex: 0,
      time,
      bytes,
      originalLength: bytes.length,
      options: options ?? [],
    })),
    options: [],
  };
}
