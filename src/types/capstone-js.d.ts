/** What the lab uses of @alexaltea/capstone-js 5, which carries no types. */
declare module '@alexaltea/capstone-js' {
  export interface CapstoneInstruction {
    /** Signed; `BigInt.asUintN(64, ...)` gives the address. */
    readonly address: bigint;
    readonly size: number;
    readonly mnemonic: string;
    readonly op_str: string;
    readonly bytes: readonly number[];
  }
  export interface CapstoneHandle {
    disasm(
      code: Uint8Array | readonly number[],
      address: bigint,
      count?: number,
    ): CapstoneInstruction[];
    option(option: number, value: number | boolean): void;
    close(): void;
  }
  export interface CapstoneModule {
    readonly ARCH_ARM64: number;
    readonly MODE_LITTLE_ENDIAN: number;
    readonly OPT_SKIPDATA: number;
    Capstone: new (arch: number, mode: number) => CapstoneHandle;
  }
  const create: () => Promise<CapstoneModule>;
  export default create;
}
