/** What an update means, in plain words. */

export const GOODS = {
  beans: "Coffee beans",
  machine: "Espresso machine",
  giftcard: "Gift card",
  unicorn: "Unicorn mug",
};

const WHY_QUEUED = {
  recovered: "The lease ran out, so its worker is taken for gone. The order is back in the queue; whatever that worker had begun was rolled back, and if it wakes up again it is refused.",
  replayed: "You sent it round again, with all its attempts.",
  released: "The processor is being stopped and gave the order back. The attempt does not count.",
  no_handler: "No processor serves this type at the moment. The order waits for one that does.",
};

/** One sentence or two about an event's state. */
export function sentence({ state, version, attempt, detail }) {
  const error = detail?.error;
  const why = error?.message || error?.type;
  switch (state) {
    case "queued":
      return WHY_QUEUED[detail?.reason] ?? "Accepted: committed to PostgreSQL, and only then answered. From here on no crash loses it.";
    case "processing":
      return attempt > 1
        ? `Attempt ${attempt}: a worker has taken it, by a new lease.`
        : "A worker has taken it. It holds the order by a lease, which it renews as long as it lives.";
    case "failed":
      return `Attempt ${attempt} failed: ${why}. It is tried again${wait(detail)}.`;
    case "processed":
      return `Done. The result, the state and all that a handler writes are committed as one. This is version ${version}.`;
    case "dead":
      return error?.type === "no_handler"
        ? "A dead letter: this stack runs other handlers than the shop’s. Start it without HOLDFAST_HANDLERS, then replay."
        : `A dead letter: ${why}. It is kept until somebody decides. A replay runs it again; as nothing has changed, it will end here again.`;
    case "discarded":
      return "Given up by an operator. It stays on record, and can still be replayed.";
    default:
      return state;
  }
}

const wait = (detail) => (detail?.retry_in_seconds === undefined ? "" : ` in ${Math.round(detail.retry_in_seconds)} s`);

/** About the worker's silence, in whole seconds. */
export function silence(quietSeconds, leaseSeconds) {
  const left = Math.ceil(leaseSeconds - quietSeconds);
  const heard = `Nothing heard from its worker for ${Math.floor(quietSeconds)} s.`;
  if (left > 0) return `${heard} If it is gone, its lease runs out within ${left} s, and another worker begins anew.`;
  return `${heard} The lease has run out: maintenance takes the order back about now.`;
}

export const clock = (at) => new Date(at).toLocaleTimeString([], { hourCycle: "h23", hour: "2-digit", minute: "2-digit", second: "2-digit" });
