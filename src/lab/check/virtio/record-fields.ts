/** Fields that the checks of virtio-net records read, by the type of record; `?`: may be absent or null. */

export type FieldKind = `${'string' | 'number' | 'boolean' | 'list' | 'object'}${'' | '?'}`;

const GUEST = { kernel_version: 'string', rx_mode: 'string' } as const;

export const FIELDS: Readonly<Record<string, Readonly<Record<string, FieldKind>>>> = {
  packet: {
    ...GUEST,
    id: 'string',
    backend: 'string',
    features: 'list',
    xdp: 'string',
    program: 'string',
    frags_prog: 'boolean',
    rx_buffers: 'string',
    attach: 'object?',
    kind: 'string',
    target: 'string',
    note: 'string',
    injected: 'string',
    rx_segments: 'object',
    at_stack: 'object?',
    drop_reasons: 'list',
    received: 'list',
    counters: 'object',
    trace: 'list',
    out: 'list',
  },
  attach: {
    ...GUEST,
    id: 'string',
    device: 'string',
    features: 'list',
    case: 'string',
    mtu: 'number?',
    frags: 'boolean?',
    enabled: 'list?',
    dmesg: 'list?',
    events: 'list?',
  },
  limit: { ...GUEST, what: 'string', frame_len: 'number', value: 'number' },
  'offload-state': {
    ...GUEST,
    id: 'string',
    features: 'list',
    case: 'string',
    tap: 'object',
    attach: 'object?',
    detach: 'list?',
  },
  crash: { ...GUEST, program: 'string', injected: 'string', console: 'list' },
  rss: { kernel_version: 'string' },
  'rss-default': { kernel_version: 'string' },
};
