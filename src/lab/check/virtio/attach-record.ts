/** Records of the virtio measurements beside packets: attach cases, limits, offload states, panics. */

interface GuestRecord {
  readonly kernel_version: string;
  /** small, mergeable, big; also mergeable_gso, nogc. */
  readonly rx_mode: string;
}

/** What was sent over the control queue, as probes of the guest printed it; null: refused. */
type Events = readonly string[] | null;

export interface NetlinkResult {
  readonly netlink_errno: number;
  readonly extack: string;
  readonly attach_events: Events;
  readonly detach_events: Events;
}

export interface LinkResult {
  readonly rc: number;
  readonly events: readonly string[];
}

export interface AttachRecord extends GuestRecord {
  readonly type: 'attach';
  readonly id: string;
  readonly device: string;
  readonly features: readonly string[];
  readonly case: string;
  readonly result: unknown;
  readonly mtu?: number;
  readonly frags?: boolean;
  /** Queues that the backend had enabled afterwards. */
  readonly enabled?: readonly number[];
  readonly dmesg?: readonly string[];
  readonly events?: readonly string[];
}

export interface LimitRecord extends GuestRecord {
  readonly type: 'limit';
  readonly what: string;
  readonly frame_len: number;
  readonly value: number;
}

export interface OffloadStateRecord extends GuestRecord {
  readonly type: 'offload-state';
  readonly id: string;
  readonly features: readonly string[];
  readonly case: string;
  readonly tap: {
    readonly tap_tx_checksum: number;
    readonly tap_sg: number;
    readonly tap_tso: number;
  };
  readonly attach?: LinkResult;
  readonly detach?: readonly string[];
}

export interface CrashRecord extends GuestRecord {
  readonly type: 'crash';
  readonly program: string;
  readonly injected: string;
  readonly console: readonly string[];
}
