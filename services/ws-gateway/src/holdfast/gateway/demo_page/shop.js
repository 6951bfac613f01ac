/** The shop's counter: requests to this gateway. No key is involved; a cookie says whose orders these are. */

/** @returns the body of the answer; throws an Error with the problem's detail. */
async function ask(path, body) {
  const request = body === undefined ? {} : { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const response = await fetch(path, { ...request, signal: AbortSignal.timeout(10_000) });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  return answer;
}

/** A live token of a few minutes, its topic, and how long a lease lasts: `{token, topic, lease_seconds}`. */
export const openSession = () => ask("session", {});

/** @returns `{id, goods, number, state, version}` */
export const placeOrder = (goods) => ask("orders", { goods });

/** @returns `{id, state, version}` */
export const replayOrder = (id) => ask(`orders/${id}/replay`, {});

/** The last orders as they stand, the oldest first. */
export const listOrders = async () => (await ask("orders")).items.reverse();
