/**
 * Ftrace as a kernel is booted with it: which symbols of its entry code the core has to know.
 *
 * The texts in `asm/` differ by version: without CALL_OPS the call in ftrace_caller is patched and a variable says
 * for which ops, so both are symbols; ftrace_regs_caller is there up to 6.1. What a text lacks has a stand-in or
 * is not used. Entry code of another version than the profile is refused.
 */
import { InputError } from '../../common/errors.js';
import type { SymbolTable } from '../symbols.js';
import type { DirectParts } from './direct.js';
import { Ftrace, type FtraceParts } from './ftrace.js';
import type { FtracePlts } from './reach.js';

type SymbolParts =
  | 'ftraceCaller'
  | 'ftraceRegsCaller'
  | 'stub'
  | 'nopFunc'
  | 'stubDirectTramp'
  | 'listFunc'
  | 'assistFunc'
  | 'call'
  | 'nameOf';

/** @param listFunc name of the function that walks the list of ops */
export function bootFtrace(
  symbols: SymbolTable,
  listFunc: string,
  parts: Omit<FtraceParts, SymbolParts>,
): Ftrace {
  const find = (name: string): bigint | undefined => symbols.find(name)?.address;
  const get = (name: string): bigint => symbols.get(name).address;
  const [ftraceCall, functionTraceOp] = [find('ftrace_call'), find('function_trace_op')];
  const isPatched = ftraceCall !== undefined && functionTraceOp !== undefined;
  if (isPatched === parts.profile.callOps) {
    throw new InputError(`asm: entry code of another version, ftrace is ${parts.profile.version}`);
  }
  return new Ftrace({
    ...parts,
    ftraceCaller: get('ftrace_caller'),
    ftraceRegsCaller: find('ftrace_regs_caller') ?? get('ftrace_caller'),
    stub: get('ftrace_stub'),
    nopFunc: find('ftrace_ops_nop_func') ?? get('ftrace_stub'),
    stubDirectTramp: find('ftrace_stub_direct_tramp') ?? 0n,
    listFunc: get(listFunc),
    assistFunc: get('ftrace_ops_assist_func'),
    call: isPatched ? { ftraceCall, functionTraceOp } : undefined,
    nameOf: (at) => symbols.lookup(at)?.name ?? '',
  });
}

/** What module PLT entries for ftrace go to. */
export function ftraceEntries(symbols: SymbolTable): FtracePlts {
  const regsCaller = symbols.find('ftrace_regs_caller')?.address;
  return {
    ftrace_caller: symbols.get('ftrace_caller').address,
    ...(regsCaller === undefined ? {} : { ftrace_regs_caller: regsCaller }),
  };
}

/** What both registers of direct calls need. */
export function directParts(
  symbols: SymbolTable,
  ftrace: Ftrace,
): Pick<DirectParts, 'ftrace' | 'callDirectFuncs' | 'ftraceRegsCaller'> {
  const regsCaller = symbols.find('ftrace_regs_caller') ?? symbols.get('ftrace_caller');
  return {
    ftrace,
    callDirectFuncs: symbols.find('call_direct_funcs')?.address ?? 0n,
    ftraceRegsCaller: regsCaller.address,
  };
}
