/** The Toeplitz hash as it is defined, one bit of data at a time: what the tables are held against. */
export function bitwiseToeplitz(key: Readonly<Uint8Array>, data: Readonly<Uint8Array>): number {
  const keyBit = (n: number): number => ((key[n >> 3] ?? 0) >> (7 - (n & 7))) & 1;
  let window = 0;
  for (let n = 0; n < 32; n++) window = (window << 1) | keyBit(n);
  let hash = 0;
  for (let n = 0; n < 8 * data.length; n++) {
    const bit = ((data[n >> 3] ?? 0) >> (7 - (n & 7))) & 1;
    if (bit === 1) hash ^= window;
    window = (window << 1) | keyBit(n + 32);
  }
  return hash >>> 0;
}
