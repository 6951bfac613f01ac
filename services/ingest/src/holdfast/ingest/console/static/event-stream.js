/**
 * Server-Sent Events in the shape of a WebSocket, for networks that let none through: `connect(url, { transport: "sse" })`.
 *
 * The stream is read with `fetch`, which, unlike `EventSource`, sends the token in a header: no ticket is needed, and the
 * status of a refusal can be read. Commands of `live.v1` become a new stream with the topics that are then wanted.
 */

const CONNECTING = 0;
const OPEN = 1;
const CLOSED = 3;
const LOST = 1006; // as a WebSocket that ended without a close frame
const CODES = /** @type {Record<string, number>} */ ({
  protocol: 4500, bad_token: 4501, forbidden: 4502, too_many_connections: 4504, revoked: 4506, unavailable: 4008,
  token_expired: 4004,
});
const PING = '{"type":"ping"}';
const IDLE_MS = 10_000; // Between two signs of life while there is no topic, and so no stream that could be lost.
const IDLE_WELCOME = '{"type":"welcome","session":"","ttl_s":0,"ping_s":25,"node":"","limits":{}}';

/** What `holdfast-live.js` uses of a WebSocket. */
export class EventStreamSocket {
  readyState = CONNECTING;
  onopen = () => {};
  onmessage = (/** @type {{ data: string }} */ _) => {};
  onclose = (/** @type {{ code: number, reason: string }} */ _) => {};
  #url;
  #token = "";
  #positions = new Map(); // topic → where it stands, undefined for one that has no position yet
  #abort = new AbortController();
  #idle = 0;

  /** @param {URL} url of the WebSocket: `…/v1/live` */
  constructor(url) {
    this.#url = new URL(`${url.pathname.replace(/\/$/, "")}/sse`, url);
    this.#url.protocol = url.protocol.replace("ws", "http");
    queueMicrotask(() => {
      if (this.readyState !== CONNECTING) return;
      this.readyState = OPEN;
      this.onopen();
    });
  }

  /** Take a command. @param {string} text a frame of a client */
  send(text) {
    const { type, token, topics = [], positions = {} } = JSON.parse(text);
    if (token) this.#token = token; // a stream keeps the token that it began with: a fresh one is for the next
    if (type === "hello") for (const topic of topics) this.#positions.set(topic, positions[topic]);
    else if (type === "subscribe") for (const { topic, since } of topics) this.#positions.set(topic, since);
    else if (type === "unsubscribe") for (const topic of topics) this.#positions.delete(topic);
    if (["hello", "subscribe", "unsubscribe"].includes(type)) this.#restart();
  }

  close() {
    this.readyState = CLOSED;
    clearInterval(this.#idle);
    this.#abort.abort();
  }

  async #restart() {
    this.#abort.abort();
    clearInterval(this.#idle);
    if (!this.#positions.size) return this.#rest();
    const abort = (this.#abort = new AbortController());
    try {
      await this.#stream(abort.signal);
      if (!abort.signal.aborted) this.#end(LOST, "the stream ended");
    } catch (error) {
      if (!abort.signal.aborted) this.#end(LOST, `no stream: ${error}`);
    }
  }

  /** Without topics there is nothing to stream, and nothing to lose: a later subscribe begins. */
  #rest() {
    this.#idle = setInterval(() => this.onmessage({ data: PING }), IDLE_MS);
    this.onmessage({ data: IDLE_WELCOME });
  }

  async #stream(signal) {
    const url = new URL(this.#url);
    const topics = [...this.#positions.keys()];
    url.search = String(new URLSearchParams(topics.map((topic) => ["topics", topic])));
    const headers = { Authorization: `Bearer ${this.#token}`, Accept: "text/event-stream" };
    const stands = topics.map((topic) => this.#positions.get(topic) ?? "-");
    if (stands.some((position) => position !== "-")) headers["Last-Event-ID"] = stands.join(",");
    const response = await fetch(url, { headers, signal, cache: "no-store", credentials: "omit" });
    if (!response.ok || !response.body) return this.#refused(response);
    let rest = "";
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let chunk; !(chunk = await reader.read()).done && !signal.aborted; ) {
      const blocks = (rest + chunk.value).replaceAll("\r\n", "\n").split("\n\n");
      rest = /** @type {string} */ (blocks.pop());
      for (const block of blocks) if (!signal.aborted) this.#take(block);
    }
  }

  /** One event: lines of `field: value` (WHATWG HTML, 9.2.6); a comment is the gateway's ping. */
  #take(block) {
    const lines = block.split("\n");
    const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).replace(/^ /, ""));
    if (!data.length) return this.onmessage({ data: PING });
    const frame = JSON.parse(data.join("\n"));
    if (frame.type === "close") return this.#end(frame.code, frame.reason);
    if (frame.pos && this.#positions.has(frame.topic)) this.#positions.set(frame.topic, frame.pos);
    this.onmessage({ data: data.join("\n") });
  }

  async #refused(response) {
    const problem = await response.json().catch(() => ({}));
    const code = CODES[problem.code] ?? (response.status < 500 && response.status !== 408 && response.status !== 429 ? 4500 : LOST);
    this.#end(code, problem.detail ?? `HTTP ${response.status}`);
  }

  #end(code, reason) {
    if (this.readyState === CLOSED) return;
    this.close();
    this.onclose({ code, reason });
  }
}
