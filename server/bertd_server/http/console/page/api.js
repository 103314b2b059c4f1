// Calls to the server. The key is kept here, in memory, and nowhere else.

let key = "";

export const hasKey = () => key !== "";
export function useKey(given) {
  key = given;
}

/** What the server said no with; `status` is HTTP's, 0 where nothing was heard. */
export class Refusal extends Error {
  constructor(status, message, details = {}) {
    super(message);
    this.status = status;
    this.details = details;
  }
}

async function call(path, options, headers) {
  const sent = key ? { ...headers, authorization: `Bearer ${key}` } : headers;
  let response;
  try {
    response = await fetch(path, { ...options, headers: sent, credentials: "omit", cache: "no-store" });
  } catch (error) {
    throw new Refusal(0, String(error.message || error));
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw refusalOf(response.status, body, response.headers.get("retry-after"));
  return body;
}

/** A google.rpc.Status, or OpenAI's object, as it is. */
export function refusalOf(status, body, retry = null) {
  const said = body?.error?.message ?? body?.message ?? `HTTP ${status}`;
  const found = { field: body?.error?.param ?? "", reason: body?.error?.code ?? "", retry };
  for (const detail of body?.details ?? []) {
    if (detail["@type"]?.endsWith("ErrorInfo")) {
      found.reason = (detail.reason ?? "").toLowerCase();
      found.field = detail.metadata?.field ?? found.field;
    }
  }
  return new Refusal(status, said, found);
}

export const get = (path) => call(path, { method: "GET" }, {});

export const post = (path, given) =>
  call(path, { method: "POST", body: JSON.stringify(given) }, { "content-type": "application/json" });
