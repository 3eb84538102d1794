/**
 * RSS contexts: further sets of hash types, key and table beside the one of RSS_CONFIG.
 *
 * Reference: virtio 1.4, "RSS Context" (class VIRTIO_NET_CTRL_RSS_CTX, feature RSS_CONTEXT). A context is
 * `le16 rss_ctx_id`, six reserved bytes, `struct virtio_net_rss_config`; ids go from 1 to max_rss_contexts, which
 * CAP_GET answers. Left out: flow filters, which are what sends packets to a context, so that contexts are
 * kept and checked here and steer nothing.
 *
 * Usage:
 *   const outcome = commandRssContext(state.rssContexts, VIRTIO_NET_CTRL_RSS_CTX_ADD, data, device);
 */
import { viewOf } from '../../../common/bytes.js';
import {
  isRefusal,
  parseRssConfig,
  type RssConfig,
  type RssDevice,
} from '../../../net/rss/config.js';
import {
  VIRTIO_NET_CTRL_RSS_CTX_ADD,
  VIRTIO_NET_CTRL_RSS_CTX_CAP_GET,
  VIRTIO_NET_CTRL_RSS_CTX_DEL,
} from './commands.js';

/** max_rss_contexts of this device. */
export const MAX_RSS_CONTEXTS = 16;

/** Offset of virtio_net_rss_config behind the id and what is reserved. */
const CONFIG_OFFSET = 8;

/** By id. */
export type RssContexts = ReadonlyMap<number, RssConfig>;

export type RssContextOutcome =
  { readonly contexts: RssContexts; readonly reply?: Uint8Array } | { readonly why: string };

/** One command of the class: the contexts behind it, with a reply where there is one, or why it is refused. */
export function commandRssContext(
  contexts: RssContexts,
  command: number,
  data: Uint8Array,
  device: RssDevice,
): RssContextOutcome {
  if (command === VIRTIO_NET_CTRL_RSS_CTX_CAP_GET) {
    const reply = new Uint8Array(2);
    viewOf(reply).setUint16(0, MAX_RSS_CONTEXTS, true);
    return { contexts, reply };
  }
  const least = command === VIRTIO_NET_CTRL_RSS_CTX_DEL ? 2 : CONFIG_OFFSET;
  if (data.length < least) return { why: `${data.length} bytes, not ${least}` };
  const id = viewOf(data).getUint16(0, true);
  const exists = contexts.has(id);
  const isNew = command === VIRTIO_NET_CTRL_RSS_CTX_ADD;
  if (isNew && exists) return { why: `context ${id} exists` };
  if (!isNew && !exists) return { why: `no context ${id}` };
  if (isNew && (id < 1 || id > MAX_RSS_CONTEXTS)) {
    return { why: `context ${id}, not 1 to ${MAX_RSS_CONTEXTS}` };
  }
  const changed = new Map(contexts);
  if (command === VIRTIO_NET_CTRL_RSS_CTX_DEL) {
    changed.delete(id);
    return { contexts: changed };
  }
  const config = parseRssConfig(data.subarray(CONFIG_OFFSET), device);
  if (isRefusal(config)) return { why: config.why };
  changed.set(id, config);
  return { contexts: changed };
}
