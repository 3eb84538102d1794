/**
 * The part of koffi that the lab uses. koffi is an optional dependency: with its types declared here the
 * package builds where it could not be installed.
 */
declare module 'koffi' {
  /** A type made by koffi; only handed back to it. */
  export interface TypeHandle {
    readonly koffiType: unique symbol;
  }
  export interface LibraryHandle {
    /** A C function from its prototype. Arguments and result are what the prototype says. */
    func(prototype: string): (...args: unknown[]) => number;
    func(
      name: string,
      result: unknown,
      parameters: readonly unknown[],
    ): (...args: unknown[]) => number;
  }
  export interface Configuration {
    readonly sync_stack_size?: number;
  }
  export function config(): Configuration;
  export function config(configuration: Configuration): void;
  export function load(path: string): LibraryHandle;
  export function proto(result: string, parameters: readonly string[]): TypeHandle;
  export function pointer(type: TypeHandle | string): TypeHandle;
  export function out(type: TypeHandle): TypeHandle;
  export function address(value: ArrayBufferView): bigint;
  export function register(call: (...args: never[]) => unknown, type: TypeHandle): bigint;
  export function unregister(callback: bigint): void;
  /** Counts of what koffi holds. */
  export function stats(): { readonly callbacks: number };
  export const decode: { uint64(address: bigint): bigint };
}
