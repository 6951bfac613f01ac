import { connect } from "./holdfast-live.js";

const MOST_ROWS = 200;
const MOST_LINES = 50;

const element = (id) => document.getElementById(id);
const [form, token, topics, stop] = ["connect", "token", "topics", "stop"].map(element);
const rows = new Map(); // event id → table row
let client = null;

token.addEventListener("input", () => {
  topics.value = grantsOf(token.value.trim()).join(" ") || topics.value;
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  client?.close();
  const own = (client = connect("/v1/live", {
    token: token.value.trim(),
    onUpdate: show,
    onGap: (topic, reason) => log(`gap in ${topic} (${reason}): updates were missed; a page of yours fetches again here`),
    onSubscribed: (topic, recovered) => log(`${topic} is live${recovered ? ", nothing was missed" : ""}`),
    onStatus: (status) => own === client && say(status),
    onError: ({ code, message }) => log(`${code}: ${message}`),
  }));
  client.subscribe(topics.value.split(/\s+/).filter(Boolean));
  stop.disabled = false;
});

stop.addEventListener("click", () => client?.close());

/** The topics that a token grants by name. */
function grantsOf(jwt) {
  try {
    const claims = JSON.parse(atob(jwt.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    return claims.topics.filter((grant) => !grant.endsWith("*"));
  } catch {
    return [];
  }
}

function show(event, topic) {
  const row = rows.get(event.id) ?? document.createElement("tr");
  rows.set(event.id, row);
  row.dataset.event = event.id;
  row.dataset.state = event.state;
  row.dataset.version = event.version;
  row.title = topic;
  const texts = [event.at.slice(11, 23), event.state, event.version, event.type, event.id.slice(-12), noteOf(event.detail)];
  row.replaceChildren(...texts.map(cell));
  element("events").prepend(row);
  element("empty").hidden = true;
  if (rows.size > MOST_ROWS) {
    const oldest = element("events").lastElementChild;
    rows.delete(oldest.dataset.event);
    oldest.remove();
  }
}

function cell(text) {
  const made = document.createElement("td");
  made.textContent = text;
  return made;
}

function noteOf({ progress, error, result, reason }) {
  if (progress) return `${Math.round(progress.fraction * 100)} % ${progress.message ?? ""}`;
  if (error) return error.message ? `${error.type}: ${error.message}` : error.type;
  return result == null ? (reason ?? "") : JSON.stringify(result).slice(0, 120);
}

function say(status) {
  const wait = status.retryMs === undefined ? "" : `, again in ${(status.retryMs / 1000).toFixed(1)} s`;
  const why = status.reason ? `: ${status.reason} (${status.code})${wait}` : "";
  element("status").dataset.state = status.state;
  element("status").textContent = status.state;
  stop.disabled = status.state === "closed";
  log(`${status.state}${why}`);
}

function log(text) {
  const line = document.createElement("li");
  line.textContent = `${new Date().toISOString().slice(11, 23)}  ${text}`;
  element("log").prepend(line);
  if (element("log").childElementCount > MOST_LINES) element("log").lastElementChild.remove();
}
