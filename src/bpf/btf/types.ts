/**
 * The kinds of BTF types as a discriminated union.
 *
 * Reference: Documentation/bpf/btf.rst, include/uapi/linux/btf.h. References to other types are type
 * ids; id 0 is void.
 */

export interface BtfMember {
  readonly name: string;
  readonly type: number;
  readonly bitOffset: number;
  /** 0: not a bit field. */
  readonly bitSize: number;
}

interface BtfParameter {
  /** Empty for `...` and unnamed parameters. */
  readonly name: string;
  /** 0 in last place stands for `...`. */
  readonly type: number;
}

interface BtfVariable {
  readonly type: number;
  readonly offset: number;
  readonly size: number;
}

export type Linkage = 'static' | 'global' | 'extern';

export type BtfType =
  | { readonly kind: 'void' }
  | {
      readonly kind: 'int';
      readonly name: string;
      readonly size: number;
      readonly bits: number;
      readonly signed: boolean;
      readonly char: boolean;
      readonly bool: boolean;
    }
  | { readonly kind: 'ptr'; readonly type: number }
  | {
      readonly kind: 'array';
      readonly type: number;
      readonly indexType: number;
      readonly count: number;
    }
  | {
      readonly kind: 'struct' | 'union';
      readonly name: string;
      readonly size: number;
      readonly members: readonly BtfMember[];
    }
  | {
      readonly kind: 'enum' | 'enum64';
      readonly name: string;
      readonly size: number;
      readonly signed: boolean;
      readonly values: readonly { readonly name: string; readonly value: bigint }[];
    }
  | { readonly kind: 'fwd'; readonly name: string; readonly of: 'struct' | 'union' }
  | {
      readonly kind: 'typedef' | 'type_tag';
      readonly name: string;
      readonly type: number;
    }
  | { readonly kind: 'const' | 'volatile' | 'restrict'; readonly type: number }
  | {
      readonly kind: 'func';
      readonly name: string;
      readonly type: number;
      readonly linkage: Linkage;
    }
  | {
      readonly kind: 'func_proto';
      readonly returnType: number;
      readonly parameters: readonly BtfParameter[];
    }
  | {
      readonly kind: 'var';
      readonly name: string;
      readonly type: number;
      readonly linkage: Linkage;
    }
  | {
      readonly kind: 'datasec';
      readonly name: string;
      readonly size: number;
      readonly variables: readonly BtfVariable[];
    }
  | { readonly kind: 'float'; readonly name: string; readonly size: number }
  | {
      readonly kind: 'decl_tag';
      readonly name: string;
      readonly type: number;
      /** Parameter or member it belongs to; -1 for the whole. */
      readonly componentIndex: number;
    };

export type BtfKind = BtfType['kind'];

/** A kind's variant of the union. */
export type BtfTypeOf<K extends BtfKind> = Extract<BtfType, { readonly kind: K }>;
