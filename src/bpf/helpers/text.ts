/**
 * Text in memory and the format strings of bpf_trace_printk.
 *
 * Reference: bpf_bprintf_prepare in kernel/bpf/helpers.c, lib/vsprintf.c. Left out: %pB and other
 * pointer extensions beyond %p, %px, %pK, %ps, %pS, %pks, %pI4, %pI6; pointers are not hashed.
 */

/** Latin-1 text up to the first zero byte. */
export function bytesToText(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) {
    if (byte === 0) break;
    text += String.fromCharCode(byte);
  }
  return text;
}

/** Widths above this are cut: no line is longer. */
const MAX_WIDTH = 1024;

/** Gives the string at an address, or the bytes there. */
export interface TextSource {
  string(address: bigint): string;
  bytes(address: bigint, size: number): Uint8Array;
}

/** One conversion: flags, width, precision, length, letter with pointer extension. */
const CONVERSION =
  /%([-+ #0]*)(\d*)(?:\.(\d+))?(hh|h|ll|l|z)?(p[xKsS]|pks|pus|pI4|pI6|[diuxXcsp%])/y;

/**
 * Formats as bpf_trace_printk does; undefined when the format is refused (-EINVAL): an unknown
 * conversion, more conversions than arguments, bytes that are no ASCII.
 */
export function formatPrintk(
  format: string,
  values: readonly bigint[],
  source: TextSource,
): string | undefined {
  let text = '';
  let next = 0;
  for (let i = 0; i < format.length; i++) {
    const code = format.charCodeAt(i);
    if (code > 126 || (code < 32 && !/\s/.test(format.charAt(i)))) return undefined;
    if (format.charAt(i) !== '%') {
      text += format.charAt(i);
      continue;
    }
    CONVERSION.lastIndex = i;
    const match = CONVERSION.exec(format);
    if (!match) return undefined;
    i += match[0].length - 1;
    if (match[5] === '%') {
      text += '%';
      continue;
    }
    const value = values[next++];
    if (value === undefined) return undefined;
    text += pad(convert(match, value, source), match[1] ?? '', match[2] ?? '');
  }
  return text;
}

function convert(match: RegExpExecArray, value: bigint, source: TextSource): string {
  const [, flags = '', , precision, length = '', letter = ''] = match;
  const bits = { hh: 8, h: 16, '': 32 }[length] ?? 64;
  switch (letter) {
    case 'd':
    case 'i': {
      const number = BigInt.asIntN(bits, value);
      return number >= 0n && flags.includes('+') ? `+${number}` : `${number}`;
    }
    case 'u':
      return `${BigInt.asUintN(bits, value)}`;
    case 'x':
    case 'X': {
      const digits = BigInt.asUintN(bits, value).toString(16);
      const text = flags.includes('#') ? `0x${digits}` : digits;
      return letter === 'X' ? text.toUpperCase() : text;
    }
    case 'c':
      return String.fromCharCode(Number(value & 0xffn));
    case 's':
    case 'pks':
    case 'pus': {
      const text = source.string(value);
      return precision === undefined ? text : text.slice(0, Number(precision));
    }
    case 'pI4':
      return [...source.bytes(value, 4)].join('.');
    case 'pI6': {
      const bytes = source.bytes(value, 16);
      const groups = Array.from({ length: 8 }, (_, i) =>
        ((bytes[2 * i] << 8) | bytes[2 * i + 1]).toString(16).padStart(4, '0'),
      );
      return groups.join(':');
    }
    default:
      return BigInt.asUintN(64, value).toString(16).padStart(16, '0');
  }
}

function pad(text: string, flags: string, width: string): string {
  const wanted = Math.min(Number(width), MAX_WIDTH);
  if (flags.includes('-')) return text.padEnd(wanted);
  if (!flags.includes('0')) return text.padStart(wanted);
  const sign = /^[-+]/.exec(text)?.[0] ?? '';
  return sign + text.slice(sign.length).padStart(wanted - sign.length, '0');
}
