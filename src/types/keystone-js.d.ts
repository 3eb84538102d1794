/** The part of @alexaltea/keystone-js that the lab uses (the package ships no types). */
declare module '@alexaltea/keystone-js' {
  interface KeystoneResult {
    readonly failed: boolean;
    readonly count: number;
    readonly mc: Uint8Array;
  }
  interface KeystoneInstance {
    asm(source: string, address: bigint): KeystoneResult;
    errno(): number;
    close(): void;
  }
  interface KeystoneModule {
    readonly ARCH_ARM64: number;
    readonly MODE_LITTLE_ENDIAN: number;
    Keystone: new (architecture: number, mode: number) => KeystoneInstance;
    strerror(code: number): string;
  }
  export default function loadKeystone(): Promise<KeystoneModule>;
}
