/** The options of `trampolab rss` that say what the device is set to. */
import {
  ALL_HASH_TYPES,
  ALL_TUNNEL_TYPES,
  DEFAULT_SETTINGS,
  InputError,
  LINUX_HASH_TYPES,
  parseKey,
  TUNNEL_PORTS,
  UsageError,
  VIRTIO_NET_HASH_TUNNEL_TYPE as TUNNEL,
  VIRTIO_NET_HASH_TYPE,
  type RssSettings,
  type TunnelPorts,
} from '../index.js';
import { choiceOption, integerOption } from './command.js';

export const RSS_OPTIONS = {
  queues: { type: 'string' },
  key: { type: 'string' },
  types: { type: 'string' },
  tunnels: { type: 'string' },
  form: { type: 'string' },
  table: { type: 'string' },
  entries: { type: 'string' },
  unclassified: { type: 'string' },
  port: { type: 'string', multiple: true },
  qemu: { type: 'boolean' },
} as const;

type RssValues = {
  readonly [K in keyof typeof RSS_OPTIONS]?: (typeof RSS_OPTIONS)[K]['type'] extends 'boolean'
    ? boolean
    : K extends 'port'
      ? readonly string[]
      : string;
};

const TYPE_NAMES: Readonly<Record<string, number>> = {
  ...VIRTIO_NET_HASH_TYPE,
  all: ALL_HASH_TYPES,
  linux: LINUX_HASH_TYPES,
  none: 0,
};

const TUNNEL_NAMES: Readonly<Record<string, number>> = {
  ...TUNNEL,
  GRE: TUNNEL.GRE_2784 | TUNNEL.GRE_2890 | TUNNEL.GRE_7676,
  all: ALL_TUNNEL_TYPES,
  none: 0,
};

const PORT_NAMES: Readonly<Record<string, keyof TunnelPorts>> = {
  'gre-udp': 'greUdp',
  vxlan: 'vxlan',
  'vxlan-gpe': 'vxlanGpe',
  geneve: 'geneve',
};

/** Names with commas between them, in any case, or a mask in hex. */
function maskOption(
  name: string,
  text: string | undefined,
  fallback: number,
  names: Readonly<Record<string, number>>,
): number {
  if (text === undefined) return fallback;
  if (/^0x[0-9a-f]{1,8}$/i.test(text)) return Number(text) >>> 0;
  let mask = 0;
  for (const word of text.split(',')) {
    const found = Object.entries(names).find(
      ([each]) => each.toLowerCase() === word.trim().toLowerCase(),
    );
    if (!found) {
      throw new UsageError(
        `--${name} takes ${Object.keys(names).join(', ')} or 0xMASK, not '${word}'`,
      );
    }
    mask |= found[1];
  }
  return mask >>> 0;
}

function tableOption(text: string | undefined): readonly number[] | undefined {
  if (text === undefined) return undefined;
  return text.split(',').map((word) => {
    if (/^\s*\d+\s*$/.test(word)) return Number(word);
    throw new UsageError(`--table takes queue numbers with commas between them, not '${word}'`);
  });
}

function portsOption(texts: readonly string[] | undefined): TunnelPorts | undefined {
  if (texts === undefined) return undefined;
  const ports: Record<keyof TunnelPorts, number> = { ...TUNNEL_PORTS };
  for (const text of texts) {
    const [name = '', value = ''] = text.split('=');
    const known = PORT_NAMES[name];
    if (known === undefined) {
      const names = Object.keys(PORT_NAMES).join('|');
      throw new UsageError(`--port takes ${names}=NUMBER, not '${text}'`);
    }
    ports[known] = integerOption(`port ${name}=`, value, 0, { min: 1, max: 65535 });
  }
  return ports;
}

function keyOption(text: string | undefined): Readonly<Uint8Array> {
  if (text === undefined) return DEFAULT_SETTINGS.key;
  try {
    return parseKey(text);
  } catch (error) {
    if (error instanceof InputError) throw new UsageError(`--${error.message}`);
    throw error;
  }
}

export function rssSettings(values: RssValues): RssSettings {
  const table = tableOption(values.table);
  const ports = portsOption(values.port);
  if (table && values.entries !== undefined) {
    throw new UsageError('--table says how many entries there are: it goes without --entries');
  }
  const queues = integerOption('queues', values.queues, 8, { min: 1, max: 0x8000 });
  const unclassifiedQueue = integerOption('unclassified', values.unclassified, 0, {
    min: 0,
    max: queues - 1,
  });
  return {
    queues,
    key: keyOption(values.key),
    hashTypes: maskOption('types', values.types, ALL_HASH_TYPES, TYPE_NAMES),
    tunnelTypes: maskOption('tunnels', values.tunnels, ALL_TUNNEL_TYPES, TUNNEL_NAMES),
    form: choiceOption('form', values.form, 'final', ['v7', 'final']),
    tableLength: integerOption('entries', values.entries, 128, { min: 1, max: 0x8000 }),
    unclassifiedQueue,
    qemu: values.qemu ?? false,
    ...(table ? { table } : {}),
    ...(ports ? { ports } : {}),
  };
}
