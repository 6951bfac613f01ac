/**
 * Holdfast's live updates in a browser: protocol `live.v1` over a WebSocket, described in docs/asyncapi.yaml.
 *
 * One client is one connection that reconnects and resumes by itself. Every update of a topic comes once and in order, or
 * the client says that there is a gap. Types and their documentation: holdfast-live.d.ts.
 */

import { EventStreamSocket } from "./event-stream.js";
import { Follow, Versions, backoffMs } from "./follow.js";

const FIRST_TERMINAL_CODE = 4500; // Below, reconnect; from here on, do not.
const MAX_FRAME_BYTES = 8 * 1024; // Longest frame that a gateway takes.
const COMMANDS_MS = 100; // Between two batches of commands: half of the 20 a second that a gateway allows.
const HEALTHY_MS = 5_000; // A connection that lasted this long was a good one: waits start small again.
const OPENING_MS = 20_000; // From the connection's start to `welcome`.
const PONG_MS = 15_000; // Silence beyond the ping interval after which the connection is taken for dead.
const PROBE_MS = 5_000; // For an answer, when there is reason to doubt the connection.
const LONGEST_TIMER_MS = 2 ** 31 - 1; // setTimeout fires at once for more.

const OPEN = 1; // WebSocket.OPEN, which is not there where there is no WebSocket.

/** When there is reason to doubt the connection. */
const SIGNALS = /** @type {[EventTarget | undefined, string][]} */ ([
  [globalThis.window, "online"],
  [globalThis.window, "pageshow"],
  [globalThis.document, "visibilitychange"],
]);

/** @typedef {import("./holdfast-live.js").LiveEvent} LiveEvent */

const bytes = (/** @type {unknown} */ value) => new TextEncoder().encode(JSON.stringify(value)).length;

/** See `connect`. */
class LiveClient {
  #url;
  #options;
  #topics = new Set();
  #positions = new Map();
  #follows = new Map();
  #versions = new Versions();
  #session = "";
  #socket = /** @type {WebSocket | null} */ (null);
  #isWelcome = false; // whether the current connection has been accepted
  #isClosed = false;
  #attempt = 0; // counts connections; what belongs to an earlier one is ignored
  #failures = 0;
  #askedMs = 0; // what `reconnect` asked for
  #commandId = 0;
  #pending = new Map(); // topic → "subscribe" or "unsubscribe", since the last batch
  #timers = { retry: 0, silence: 0, token: 0, commands: 0 };
  #silenceMs = OPENING_MS;
  #lastBatchAt = 0;
  #answersPing = false;
  #probe = () => this.#doubt();

  constructor(url, options) {
    if (!options?.token) throw new TypeError("connect(url, {token}) needs a token, or a function that gets one");
    this.#url = new URL(url, globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    this.#options = options;
    for (const [target, name] of SIGNALS) target?.addEventListener(name, this.#probe);
    queueMicrotask(() => this.#open()); // after whoever asked has the client, and has subscribed
  }

  get session() {
    return this.#session;
  }

  get positions() {
    return Object.fromEntries(this.#positions);
  }

  subscribe(topics, positions = {}) {
    for (const topic of [topics].flat().map(spelled)) {
      if (this.#topics.has(topic)) continue;
      this.#topics.add(topic);
      if (positions[topic]) this.#positions.set(topic, positions[topic]);
      this.#command(topic, "subscribe");
    }
  }

  unsubscribe(topics) {
    for (const topic of [topics].flat().map(spelled)) {
      if (!this.#topics.delete(topic)) continue;
      this.#positions.delete(topic);
      this.#follows.get(topic)?.end();
      this.#follows.delete(topic);
      this.#command(topic, "unsubscribe");
    }
  }

  follow(topic, { fetch, show }) {
    const name = spelled(topic);
    this.unsubscribe(name); // a snapshot belongs to a position: start over, whatever there was
    const follow = new Follow(fetch, show, (error) => this.#tell("onError", error));
    this.#follows.set(name, follow);
    this.subscribe(name);
    return () => this.#follows.get(name) === follow && this.unsubscribe(name);
  }

  close() {
    this.#end({ state: "closed", code: 1000, reason: "closed by this client" });
  }

  async #open() {
    if (this.#isClosed) return;
    const attempt = ++this.#attempt;
    this.#clearTimers();
    this.#isWelcome = false;
    this.#askedMs = 0;
    this.#tell("onStatus", { state: "connecting" });
    let token;
    try {
      token = await this.#token();
    } catch (error) {
      if (attempt === this.#attempt) this.#retry(`no token: ${error}`);
      return;
    }
    if (attempt !== this.#attempt) return; // closed, or begun anew, while the token was fetched
    const socket = this.#newSocket();
    if (!socket) return;
    const openedAt = Date.now();
    const ifCurrent = (act) => (event) => attempt === this.#attempt && act(event);
    this.#silenceMs = OPENING_MS;
    this.#watchSilence();
    socket.onopen = ifCurrent(() => this.#hello(token));
    socket.onmessage = ifCurrent(({ data }) => {
      this.#watchSilence();
      const frame = parsed(data);
      if (frame) this.#take(frame, token);
      else this.#retry("what answers does not speak live.v1");
    });
    socket.onclose = ifCurrent(({ code, reason }) => {
      if (this.#isWelcome && Date.now() - openedAt > HEALTHY_MS) this.#failures = 0;
      if (code >= FIRST_TERMINAL_CODE) this.#end({ state: "closed", code, reason });
      else this.#retry(reason || "connection lost", code);
    });
  }

  /** `null` when there can be none: the page's policy forbids the address, say, which throws instead of closing. */
  #newSocket() {
    try {
      return (this.#socket = this.#options.transport === "sse" ? new EventStreamSocket(this.#url) : new WebSocket(this.#url));
    } catch (error) {
      this.#tell("onError", { code: "connect", message: String(error), temporary: true });
      this.#retry(`no connection: ${error}`);
      return null;
    }
  }

  async #token() {
    const { token } = this.#options;
    return typeof token === "function" ? await token() : token;
  }

  #hello(token) {
    const topics = [...this.#topics];
    const positions = Object.fromEntries([...this.#positions].filter(([topic]) => this.#topics.has(topic)));
    const who = { type: "hello", v: 1, token, attempt: this.#attempt };
    const hello = { ...who, topics, positions, ...(this.#session && { session: this.#session }) };
    this.#pending.clear();
    if (bytes(hello) <= MAX_FRAME_BYTES) return this.#send(hello);
    // Too many for one frame: subscribe after it. Without the session, which would start the topics not named where
    // they are now, without what was missed.
    this.#send(who);
    for (const topic of topics) this.#command(topic, "subscribe");
  }

  #take(frame, token) {
    const { type, topic, pos } = frame;
    if (type === "ping") return this.#send({ type: "pong" });
    if (type === "pong") return; // that it came is what was asked for
    if (type === "welcome") return this.#welcome(frame, token);
    if (type === "reconnect") return void (this.#askedMs = frame.after_ms);
    if (type === "status") return this.#tell("onStatus", { state: frame.state === "ok" ? "live" : "degraded" });
    if (type === "error") return this.#refused(frame);
    if (topic === undefined || pos === undefined) return; // of a newer gateway
    if (!this.#topics.has(topic)) {
      // The session had it, and the gateway was gone before it learnt of its end. Or an update on its way.
      if (type === "subscribed") this.#command(topic, "unsubscribe");
      return;
    }
    this.#positions.set(topic, pos);
    const follow = this.#follows.get(topic);
    if (type === "update") {
      if (follow) follow.take(frame.event);
      else if (this.#versions.isNews(frame.event)) this.#tell("onUpdate", frame.event, topic);
    } else if (type === "gap") {
      const delayMs = Math.random() * frame.jitter_ms;
      follow?.load(delayMs);
      this.#tell("onGap", topic, frame.reason, delayMs);
    } else if (type === "subscribed") {
      if (follow && (frame.recovered === null || !follow.hasBegun)) follow.load();
      this.#tell("onSubscribed", topic, frame.recovered);
    }
  }

  #welcome(frame, token) {
    this.#session = frame.session;
    this.#isWelcome = true;
    this.#answersPing = frame.answers_ping === true && this.#options.transport !== "sse";
    this.#silenceMs = frame.ping_s * 1000 + PONG_MS;
    this.#watchSilence();
    this.#refreshBefore(token);
    this.#tell("onStatus", { state: "live" });
    this.#sendCommands();
  }

  #refused({ id, code, message, temporary }) {
    // As the answer to a subscribe it leaves the topic out: the hello of a new connection names them all.
    if (code === "token_expired") return id === undefined ? void this.#refresh() : this.#retry(message);
    this.#tell("onError", { code, message, temporary });
  }

  /** Fetch a fresh token when four fifths of this one's time have passed. A token in a string is all there is. */
  #refreshBefore(token) {
    const validMs = validForMs(token);
    if (typeof this.#options.token !== "function" || validMs === null) return;
    clearTimeout(this.#timers.token);
    this.#timers.token = setTimeout(() => this.#refresh(), Math.min(Math.max(1_000, validMs * 0.8), LONGEST_TIMER_MS));
  }

  async #refresh() {
    if (typeof this.#options.token !== "function") return;
    const attempt = this.#attempt;
    try {
      const token = await this.#token();
      if (attempt !== this.#attempt) return;
      this.#send({ type: "token", id: ++this.#commandId, token });
      this.#refreshBefore(token);
    } catch (error) {
      // Until it expires there is time: the gateway then asks, and at the latest a new connection does.
      this.#tell("onError", { code: "token", message: String(error), temporary: true });
    }
  }

  /** Commands of one turn, and of a tenth of a second, leave together: a loop over topics costs one frame. */
  #command(topic, kind) {
    this.#pending.set(topic, kind);
    if (this.#timers.commands) return;
    const waitMs = Math.max(0, this.#lastBatchAt + COMMANDS_MS - Date.now());
    this.#timers.commands = setTimeout(() => this.#sendCommands(), waitMs);
  }

  #sendCommands() {
    clearTimeout(this.#timers.commands);
    this.#timers.commands = 0;
    if (!this.#isWelcome) return; // the hello names the topics, or #welcome comes back here
    const of = (kind) => [...this.#pending].filter(([, wanted]) => wanted === kind).map(([topic]) => topic);
    const [gone, wanted] = [of("unsubscribe"), of("subscribe")];
    this.#pending.clear();
    this.#lastBatchAt = Date.now();
    this.#sendSplit("unsubscribe", gone);
    this.#sendSplit("subscribe", wanted.map((topic) => ({ topic, since: this.#positions.get(topic) })));
  }

  /** As few frames as the longest one that a gateway takes allows. */
  #sendSplit(type, topics) {
    if (!topics.length) return;
    const frame = { type, id: ++this.#commandId, topics };
    if (topics.length === 1 || bytes(frame) <= MAX_FRAME_BYTES) return this.#send(frame);
    this.#sendSplit(type, topics.slice(0, topics.length / 2));
    this.#sendSplit(type, topics.slice(topics.length / 2));
  }

  #send(frame) {
    if (this.#socket?.readyState === OPEN) this.#socket.send(JSON.stringify(frame));
  }

  /** A network that went away closes nothing: take a silence longer than the gateway's pings for the end. */
  #watchSilence(ms = this.#silenceMs) {
    clearTimeout(this.#timers.silence);
    this.#timers.silence = setTimeout(() => this.#retry("not a sign of life"), ms);
  }

  /**
   * The network came back, or the page did: the connection may be dead without having been closed. Ask at once, and take a
   * short silence for the end; where nothing can be asked, begin anew.
   */
  #doubt() {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (this.#timers.retry) this.#open();
    else if (this.#isWelcome && this.#answersPing) {
      this.#send({ type: "ping" });
      this.#watchSilence(PROBE_MS);
    } else if (this.#isWelcome) this.#retry("the network or the page was away");
  }

  #retry(reason, code = 1006) {
    this.#leave();
    const retryMs = this.#askedMs + backoffMs(++this.#failures);
    this.#tell("onStatus", { state: "disconnected", code, reason, retryMs });
    if (!this.#isClosed) this.#timers.retry = setTimeout(() => this.#open(), retryMs);
  }

  #end(status) {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#leave();
    for (const follow of this.#follows.values()) follow.end();
    for (const [target, name] of SIGNALS) target?.removeEventListener(name, this.#probe);
    this.#tell("onStatus", status);
  }

  /** Let go of the connection, whatever state it is in. */
  #leave() {
    this.#attempt++;
    this.#isWelcome = false;
    this.#clearTimers();
    this.#socket?.close();
    this.#socket = null;
  }

  #clearTimers() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#timers = { retry: 0, silence: 0, token: 0, commands: 0 };
  }

  /** A callback that throws must not stop the updates: the page's error handler sees it. */
  #tell(name, ...values) {
    try {
      this.#options[name]?.(...values);
    } catch (error) {
      setTimeout(() => {
        throw error;
      });
    }
  }
}

/** A frame, or `null`. @param {string} data */
function parsed(data) {
  try {
    const frame = JSON.parse(data);
    return typeof frame?.type === "string" ? frame : null;
  } catch {
    return null;
  }
}

/** A topic as the gateway names it in its frames: an event's id in lower case. @param {string} topic */
const spelled = (topic) => (topic.startsWith("event:") ? topic.toLowerCase() : topic);

/**
 * How long a JWT is good for; `null` when that can not be read. By this machine's clock, unless that contradicts the token.
 * @param {string} token
 */
function validForMs(token) {
  try {
    const { exp, iat } = JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    const [leftMs, wholeMs] = [exp * 1000 - Date.now(), (exp - iat) * 1000];
    return leftMs > 0 && leftMs < wholeMs ? leftMs : wholeMs || null;
  } catch {
    return null;
  }
}

/**
 * Connect to a gateway and stay connected until `close()`, or until the gateway closes for good (codes from 4500 on).
 *
 * @param {string | URL} url `wss://…/v1/live`
 * @param {import("./holdfast-live.js").Options} options
 * @returns {import("./holdfast-live.js").LiveClient}
 */
export function connect(url, options) {
  return new LiveClient(url, options);
}
