/** An event's full state, not a change of it. */
export interface LiveEvent {
  id: string;
  type: string;
  state: "queued" | "processing" | "processed" | "failed" | "dead" | "discarded";
  /** Grows with every transition. */
  version: number;
  /** Counts progress reports within a version. */
  step: number;
  attempt: number;
  /** RFC 3339. */
  at: string;
  detail: {
    result?: unknown;
    /** The message is null where none was written for clients: an exception's own text is for operators. */
    error?: { type: string; message: string | null };
    retry_in_seconds?: number;
    progress?: { fraction: number; message?: string | null };
    reason?: string;
    /** Parts that were left out because the update would have been too long: fetch the event. */
    truncated?: string[];
    [more: string]: unknown;
  };
}

/**
 * What a snapshot needs of an event, to be told from an older or newer update: `id`, or `event_id` as the API names it, and
 * `version`. Whatever else it has reaches `show`.
 */
export type Versioned = ({ id: string; event_id?: undefined } | { event_id: string; id?: string }) & {
  version: number;
  step?: number;
};

export type GapReason = "epoch" | "trimmed" | "too_many";

export type Status =
  | { state: "connecting" }
  | { state: "live" }
  /** The gateway has lost its Redis: updates are late, nothing is lost, the connection stays. */
  | { state: "degraded" }
  /** The client connects again after `retryMs`. */
  | { state: "disconnected"; code: number; reason: string; retryMs: number }
  /** For good: by `close()` (code 1000), or by the gateway (codes from 4500 on). */
  | { state: "closed"; code: number; reason: string };

export interface LiveError {
  /**
   * `forbidden`, `invalid_topic`, `too_many_topics` of the gateway; `token` or `snapshot` when a function of yours failed;
   * `connect` when the browser refuses to open a connection at all.
   */
  code: string;
  message: string;
  temporary: boolean;
}

export interface Options {
  /**
   * A live token, or a function that gets a new one of the same subject from your backend (`POST /v1/tokens` needs an API key,
   * which never belongs in a page). The function is called for each connection and before a token expires; when it rejects, it is called
   * again after a pause.
   */
  token: string | (() => string | Promise<string>);
  /**
   * `websocket` (the default), or `sse` for networks that let no WebSocket through: Server-Sent Events with at most 16 topics,
   * from `…/v1/live/sse` beside the address that is given.
   */
  transport?: "websocket" | "sse";
  /** An event moved on. Each (version, step) of an event is told once, also when it comes by several topics. */
  onUpdate?(event: LiveEvent, topic: string): void;
  /** Updates of the topic were missed and are not coming: refetch what you show, after `delayMs`. `follow` does so by itself. */
  onGap?(topic: string, reason: GapReason, delayMs: number): void;
  /** The topic is live. `true`: nothing was missed; `false`: a gap came before; `null`: there was no position to resume from. */
  onSubscribed?(topic: string, recovered: boolean | null): void;
  onStatus?(status: Status): void;
  onError?(error: LiveError): void;
}

export interface LiveClient {
  /** The session of the last connection; empty before the first one. */
  readonly session: string;
  /** Where each topic stands. Give them to `subscribe` to resume after a reload of the page. */
  readonly positions: Record<string, string>;
  /** Watch topics. What is subscribed already stays as it is. */
  subscribe(topics: string | readonly string[], positions?: Record<string, string>): void;
  unsubscribe(topics: string | readonly string[]): void;
  /**
   * Snapshot, then stream: subscribe, keep the updates that come, call `fetch` once the topic is live, then `show` each of its
   * events and every newer update. After a gap it fetches again. `onUpdate` is not called for this topic.
   *
   * @returns a function that ends it
   */
  follow<Item extends Versioned>(
    topic: string,
    options: { fetch(): Promise<Iterable<Item>>; show(event: Item | LiveEvent): void },
  ): () => void;
  close(): void;
}

/** Connect to a gateway (`wss://…/v1/live`) and stay connected until `close()`, or until the gateway closes for good. */
export function connect(url: string | URL, options: Options): LiveClient;
