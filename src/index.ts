/**
 * The library: everything a program that embeds the lab needs, without a file system.
 *
 * `trampolab/node` adds booting from the package's own files and the Unicorn engine.
 */
export { VERSION } from './common/version.js';
export { ERRNO, errnoName, type ErrnoName } from './common/errno.js';
export { formatIpv4 } from './net/address.js';
export { InputError, KernelError, UsageError } from './common/errors.js';
export { bytesToHex, hex32, hex64, hexToBytes } from './common/bytes.js';
export { Random } from './common/random.js';

export { decode, encode } from './a64/codec.js';
export { print } from './a64/print.js';
export { cpuFactory, embeddedFactory, type CpuFactory } from './cpu/engines.js';
export type { Cpu, RegisterChange, Registers, Stop, TraceEntry } from './cpu/cpu.js';
export { captureOops, printOops, type Oops } from './cpu/oops.js';
export { Memory, type Permissions, type Region } from './cpu/memory.js';

export {
  commentOption,
  ethernetCapture,
  type Capture,
  type CapturedPacket,
  type CaptureReader,
} from './net/capture.js';
export { describePacket } from './net/describe.js';
export { openCapture, readCapture } from './net/read-capture.js';
export { pcapHeader, pcapRecord, writePcap } from './net/pcap.js';
export { parseKey, ToeplitzKey } from './net/rss/toeplitz.js';
export { TUNNEL_PORTS, type TunnelPorts } from './net/rss/tunnel.js';
export {
  ALL_HASH_TYPES,
  ALL_TUNNEL_TYPES,
  LINUX_HASH_TYPES,
  VIRTIO_NET_HASH_TUNNEL_TYPE,
  VIRTIO_NET_HASH_TYPE,
} from './net/rss/types.js';
export {
  ReceiveHasher,
  type ReceiveHash,
  type ReceiveHashOptions,
} from './net/rss/receive-hash.js';
export { writePcapng } from './net/pcapng.js';

export { assemble } from './bpf/assemble.js';
export { helperBodies } from './bpf/helpers/table.js';
export { parseBtf } from './bpf/btf/parse.js';
export { writeBtf } from './bpf/btf/write.js';
export { createInterpreter } from './bpf/interpreter.js';
export type { BpfMap } from './bpf/maps/map.js';
export {
  load,
  type LoadOptions,
  type LoadedObject,
  type LoadedProgram,
} from './bpf/object/load.js';
export { parseObject } from './bpf/object/parse.js';
export type { ObjectSpec, SectionKind } from './bpf/object/spec.js';
export { selectProgram, withTailCallees } from './bpf/object/select.js';
export { PlainHost } from './bpf/plain-host.js';
export type { KernelVersion } from './jit/profile.js';
export type { Socket, SocketAddress, TcpState } from './bpf/socket.js';
export type { XlatedFunction, XlatedProgram } from './bpf/program.js';
export { textProgram } from './bpf/object/text.js';
export { callImmediate } from './bpf/call-immediate.js';
export { rawProgram } from './bpf/raw-program.js';
export { VerifierError } from './bpf/verifier/error.js';
export { createWasmBatch, createWasmProgram } from './bpf/wasm.js';

export { compile, type JitOptions, type JitProgram } from './jit/program.js';
export { compileTrampoline } from './jit/trampoline.js';
export { TRAMP_FLAGS } from './jit/trampoline-model.js';

export { Assembler } from './kernel/assembler.js';
export { ftraceCallback, type FtraceEvent } from './kernel/ftrace/callbacks.js';
export { listFunctions, type FtraceList } from './kernel/ftrace/listing.js';
export { FTRACE_OPS_FL, type FtraceOps, type OpsCommand } from './kernel/ftrace/ops.js';
export {
  FTRACE_PROFILES,
  FTRACE_VERSIONS,
  KERNEL_OF_FTRACE,
  type FtraceProfile,
  type FtraceVersion,
} from './kernel/ftrace/profile.js';
export type { FtraceRegs } from './kernel/ftrace/regs.js';
export { bootKernel, type AsmSources, type Kernel, type KernelOptions } from './kernel/kernel.js';
export { REACH_PROFILES, type ReachProfile } from './kernel/ftrace/reach.js';
export { layoutOf, type Layout, type LayoutOptions } from './kernel/layout/layout.js';
export { attachOutcome, describeOutcome, type AttachOutcome } from './kernel/layout/outcome.js';
export { LAYOUT_PROFILES, LAYOUT_VERSIONS, type LayoutVersion } from './kernel/layout/profile.js';
export {
  surveyLayout,
  surveySeeds,
  type LayoutSurvey,
  type SeedsSurvey,
  type SurveyOptions,
} from './kernel/layout/survey.js';
export type { KernelModule, ModuleSpec } from './kernel/module/modules.js';
export { KernelOops } from './kernel/executor.js';
export {
  atomic,
  call,
  step,
  type AtomicFunction,
  type KernelContext,
  type KernelFunction,
} from './kernel/function.js';
export { KernelArena } from './kernel/bpf/arena.js';
export type { AttachKind } from './kernel/bpf/attach-check.js';
export type { Attachment, ProgramTarget } from './kernel/bpf/bpf.js';
export { loadObject, type KernelObject, type LoadObjectOptions } from './kernel/bpf/object.js';
export type { KprobeMultiOptions, KprobeOptions, Link } from './kernel/bpf/probe-programs.js';
export type { KernelProgram, LoadProgramOptions } from './kernel/bpf/program.js';
export type { StructOps, StructOpsType } from './kernel/bpf/struct-ops.js';
export { defineStructOps } from './kernel/bpf/struct-ops-types.js';
export type { LinkKind } from './kernel/bpf/trampoline.js';

export { openDeviceQueue, type RingLayout } from './virtio/ring/open-device-queue.js';
export {
  createVirtqueue,
  virtqueueAdd,
  virtqueueGetBuf,
  virtqueueKickPrepare,
  virtqueueLayout,
} from './virtio/ring/virtqueue.js';
export { SCATTERLIST } from './virtio/ring/vring-virtqueue.js';
export { createVirtioNet, defineVirtioNet, type VirtioNet } from './virtio/virtio-net.js';
export type { NetStack, XdpEvent } from './stack/net-stack.js';
export { VethDevice } from './stack/veth.js';
export { XdpSocket } from './stack/xsk-socket.js';

export { defineShadowVirtqueue, type ShadowVirtqueueVmm } from './vhost/functions.js';
export { SVQ_MODES, type SvqMode } from './vhost/queue.js';
export type { SvqOptions, VhostVdpaNet } from './vhost/vhost-vdpa.js';

export { traceAttached, type AttachedTrace } from './lab/attached-trace.js';
export { checkFile, describeCase, summarize } from './lab/check/check-file.js';
export { ExecMachines } from './lab/check/exec-machines.js';
export { jitObjects } from './lab/check/jit-objects.js';
export { JitRunner } from './lab/check/jit-runner.js';
export { jitKind } from './lab/check/jit-vectors.js';
export { checkBooted, isBootedFile } from './lab/check/booted/check-booted.js';
export { checkTrace } from './lab/check/booted/check-trace.js';
export { isTraceFile } from './lab/check/booted/trace-file.js';
export { labVersion } from './lab/check/booted/kernel.js';
export type { BootedOptions } from './lab/check/booted/options.js';
export { checkKernelText, isKernelText } from './lab/check/kernel-text.js';
export type { CaseResult, VectorKind } from './lab/check/kind.js';
export { interpreterObjects, wasmObjects, type ObjectEngine } from './lab/check/object-engine.js';
export { VirtioKind } from './lab/check/virtio/kind.js';
export { rejectKind } from './lab/check/reject-vectors.js';
export { RUN_KINDS } from './lab/check/run-vectors.js';
export { smcChecker, type SmcChecker } from './lab/check/smc.js';
export {
  interpreterEngine,
  plainWorkbench,
  sampled,
  wasmEngine,
  type FuzzEngine,
} from './lab/fuzz/engine.js';
export { fuzz, type FuzzDifference } from './lab/fuzz/fuzz.js';
export { foreignEngine, jitEngine, type Jit, type JitVariant } from './lab/fuzz/jit-engine.js';
export { Workbench } from './lab/fuzz/workbench.js';
export {
  checkSavedTrampoline,
  describeTrampoline,
  fuzzTrampolines,
  isSavedTrampoline,
  minimiseTrampoline,
  saveTrampoline,
  type TrampolineDifference,
} from './lab/fuzz/trampoline-fuzz.js';
export { TrampolineRunner } from './lab/fuzz/trampoline-runner.js';
export { KernelWorkbench } from './lab/fuzz/kernel-workbench.js';
export { minimise } from './lab/fuzz/minimise.js';
export { describeDifference } from './lab/fuzz/report.js';
export { checkSavedCase, isSavedCase, saveCase } from './lab/fuzz/saved.js';
export { CONFORMANCE_HELPERS } from './lab/check/run-helpers.js';
export {
  InterpreterRunner,
  WasmRunner,
  type ProgramRunner,
  type RunOutcome,
  type RunRequest,
} from './lab/check/runner.js';
export { EXHIBITS, visit, type Visit } from './lab/museum/museum.js';
export type { Boot, Exhibit, Observation, Variant } from './lab/museum/exhibit.js';
export {
  addressRows,
  attachRows,
  distanceText,
  outcomeCells,
  outcomeRows,
  sizeText,
} from './lab/layout-report.js';
export {
  explorePlan,
  type ExploreOptions,
  type ExploreResult,
  type Figures,
} from './lab/race/explore.js';
export { INVARIANTS, isInvariant, type Invariant, type Problem } from './lab/race/invariants.js';
export {
  free,
  ipi,
  storeData,
  storeInstruction,
  storeText,
  sync,
  wait,
  type PatchPlan,
  type PlanCall,
  type PlanStep,
} from './lab/race/plan.js';
export { racePlanFile } from './lab/race/plan-file.js';
export { printReport, reportSchedule, type Report } from './lab/race/report.js';
export {
  bootRace,
  exploration,
  prepareRace,
  type Break,
  type Race,
  type RaceBoot,
  type Scenario as RaceScenario,
} from './lab/race/scenario.js';
export { SCENARIOS } from './lab/race/scenarios/index.js';
export { formatSchedule, parseSchedule, type Schedule } from './lab/race/schedule.js';
export { listProgramSite, listSite, listTrace } from './lab/listing.js';
export { callArguments } from './lab/call-arguments.js';
export { testRunStructOps, testRunTracing } from './lab/tracing-test-run.js';
export { dumpMaps, listMaps, mapRecords } from './lab/map-list.js';
export { listMap, mapTypes } from './lab/map-listing.js';
export { dumpMap, type DumpOptions, type MapTypes } from './bpf/maps/dump.js';
export { UserMap } from './bpf/maps/user.js';
export { applySetting } from './lab/map-setting.js';
export { withGlobal, withMaxEntries } from './lab/object-setting.js';
export { RedirectSetup, describeXdpEvent } from './lab/redirect-setup.js';
export {
  createRunner,
  fillXdp,
  xdpContext,
  type RunEngine,
  type RunResult,
} from './lab/run-program.js';
export { runPackets } from './lab/run-packets.js';
export { attachProbes, type ProbeCounts } from './lab/probes.js';
export { attachScenario, type Scenario } from './lab/scenario.js';
export { PARTS, WAY, type Outcome, type Part } from './lab/strategies/bench.js';
export { STRATEGIES } from './lab/strategies/catalogue.js';
export {
  PARTNERS,
  partnersOf,
  siteTable,
  type Partnership,
  type SiteState,
} from './lab/strategies/coexist.js';
export { GRID, StrategyLab, type Comparison } from './lab/strategies/compare.js';
export { CONDITIONS, attachOdds, type Odds } from './lab/strategies/layouts.js';
export type { PartMeasure } from './lab/strategies/measure.js';
export {
  ALONE,
  shortSituation,
  describeSituation,
  type Situation,
} from './lab/strategies/situation.js';
export { ownStrategy } from './lab/strategies/own.js';
export { OWN_OPERATIONS, ownRace } from './lab/strategies/own-race.js';
export { parseOwnStrategy, type OwnStrategy } from './lab/strategies/own-file.js';
export type { Strategy } from './lab/strategies/strategy.js';
export {
  callOpsRows,
  perOps,
  trigRows,
  type CallOpsRow,
  type TrigRow,
} from './lab/strategies/upstream.js';
export { CaptureRun, type CaptureRunReport } from './lab/rss/capture-run.js';
export { EXPERIMENTS, runExperiment, type ExperimentResult } from './lab/rss/experiments.js';
export { DEFAULT_PACKET_TIME, type FlowSpreadReport } from './lab/rss/flow-spread.js';
export { DEFAULT_SETTINGS, type RssSettings } from './lab/rss/receiver.js';
export type { Spread } from './lab/rss/spread.js';
export type { Fault as SvqFault } from './lab/svq/cases/fault.js';
export { controlCommand, type ControlCommandText } from './lab/svq/commands.js';
export { FAULTS as SVQ_FAULTS } from './lab/svq/fault-cases.js';
export { findFault, runFault, type FaultOutcome } from './lab/svq/faults.js';
export { migrateRandom, type Migration } from './lab/svq/migration.js';
export { SvqLab, SvqRig, type RigOptions } from './lab/svq/rig.js';
export { walkCommand, type Walk as SvqWalk } from './lab/svq/walk.js';
export { runTour, type TourRow } from './lab/tour.js';
export { tracedCall, tracedRun } from './lab/traced-call.js';
export { connectPair, type BufferSizes, type SmcPair } from './lab/smc-pair.js';
export { runPeers, type PeersOptions, type PeersResult } from './lab/smc-peers.js';
export {
  copyFigures,
  openTransfer,
  type CopyFigures,
  type Transfer,
  type TransferStep,
} from './lab/smc-transfer.js';
export { describeMessage, messageName, type DescribedField } from './smc/clc/describe.js';
export {
  encodeAcceptConfirm,
  encodeDecline,
  encodeProposal,
  type AcceptConfirm,
  type Decline,
  type Proposal,
} from './smc/clc/messages.js';
export {
  decodeAcceptConfirm,
  decodeDecline,
  decodeProposal,
  messageProblem,
} from './smc/clc/parse.js';
export { MSG, POLL, SMC_CLC_DECL, SMC_STATE, declineName } from './smc/constants.js';
export { SELECTION_POLICIES, type SelectionPolicy } from './smc/device/devices.js';
export { LOOPBACK_FORMS, type LoopbackForm } from './smc/device/loopback.js';
export { DECLINE_REASONS, type DeclineReason, type DeclinedBy } from './smc/reasons.js';
export { createSmc, type Smc, type SmcOptions } from './smc/smc.js';
export { smcStatistics, type SmcStatistics } from './smc/statistics.js';
export type { SmcSocket, SocketAddress as SmcAddress } from './smc/socket/smc-socket.js';
export type { Endpoint as SmcEndpoint } from './smc/socket/tcp.js';
export {
  connectionState,
  listDevices,
  listLinkGroups,
  listSocks,
  type ConnectionState,
  type SockState,
} from './smc/state.js';
export {
  installVirtioNet,
  openTraffic,
  runTraffic,
  TrafficRun,
  type RunCounts,
  verdictName,
  type PacketOutcome,
  type StreamCounts,
  type StreamOptions,
  type TrafficResult,
  type TrafficStream,
} from './lab/xdp-traffic.js';
export { runCsumCapture, type CsumCaptureRun } from './lab/csum/capture.js';
export { CsumLab, type CsumResult } from './lab/csum/matrix.js';
export {
  CSUM_MODES,
  CSUM_SECTIONS,
  CSUM_VARIANTS,
  describeRow,
  type CsumMode,
  type CsumVariant,
} from './lab/csum/rows.js';
export { runMatrix, type CsumCell } from './lab/csum/table.js';
export { PacketLab, type PacketResult } from './lab/check/virtio/packet.js';
export type { PacketRecord } from './lab/check/virtio/packet-record.js';
export { createXdpEngine, type XdpEngine } from './lab/xdp-engine.js';
export { createNetwork, type Network } from './stack/network.js';
export { describeNetHeader } from './virtio/net-header.js';
export { jitedRecords, listJited } from './lab/xlated-image.js';
export { readImage, type ForeignImage } from './lab/verify/image.js';
export { Kallsyms } from './lab/verify/kallsyms.js';
export { verifyImage, type VerifyRequest, type VerifyResult } from './lab/verify/verify.js';
export { listXlated, xlatedRecords, type ListedProgram } from './lab/xlated-listing.js';
export { VIRTIO_NET_VERSIONS, type VirtioNetVersion } from './virtio/driver/profiles.js';
export { describeCommand } from './virtio/device/control/commands.js';
