/**
 * Text in memory and the format strings of bpf_trace_printk.
 *
 * Reference: bpf_bprintf_prepare in kernel/bpf/helpers.c, lib/vsprintf.c. Left out: names of
 * symbols (%ps, %pS, %pB print addresses); pointers are not hashed.
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

/** One conversion: flags, width, length, letter with pointer extension; a plain %p ends at a space or sign. */
const CONVERSION =
  /%(?:([-+ 0]*)([1-9]\d*)?(?:(l{0,2})([diuxX])|(p(?:[xKsSB]|[ku]s|[iI][46]|(?=$|[\s!-/:-@[-`{-~]))|[cs]))|%)/y;

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
    if (match[0] === '%%') {
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
  const [, flags = '', , length = '', integer, other = ''] = match;
  const bits = length === '' ? 32 : 64;
  const letter = integer ?? other;
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
      const text = BigInt.asUintN(bits, value).toString(16);
      return letter === 'X' ? text.toUpperCase() : text;
    }
    case 'c':
      return String.fromCharCode(Number(value & 0xffn));
    case 's':
    case 'pks':
    case 'pus':
      return source.string(value);
    case 'pi4':
    case 'pI4':
      return [...source.bytes(value, 4)]
        .map((byte) => (letter === 'pI4' ? `${byte}` : `${byte}`.padStart(3, '0')))
        .join('.');
    case 'pi6':
    case 'pI6': {
      const bytes = source.bytes(value, 16);
      const groups = Array.from({ length: 8 }, (_, i) =>
        ((bytes[2 * i] << 8) | bytes[2 * i + 1]).toString(16).padStart(4, '0'),
      );
      return groups.join(letter === 'pI6' ? ':' : '');
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
