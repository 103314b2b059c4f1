// The request of a try as a command, Python, curl and grpcurl.

import { TRIES } from "/console/tasks.js";

export const KINDS = [
  ["command", "bertd"],
  ["python", "Python"],
  ["curl", "curl"],
  ["grpcurl", "grpcurl"],
];

/** A word of a shell. */
export function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** A literal of Python: JSON is one, of strings, numbers and lists. */
const py = (value) => JSON.stringify(value).replaceAll('","', '", "');

/** Where gRPC is asked: a wildcard is no address, so the page's own host stands for it. */
export function grpcAddress(given, hostname) {
  return given.replace(/^(0\.0\.0\.0|\[::\])(?=:\d+$)/, hostname);
}

/** The code that asks the same. `where`: address (gRPC), tls, origin (HTTP), key (whether one is needed). */
export function snippet(kind, id, request, where) {
  const one = TRIES[id];
  if (kind === "command") {
    const [name, own, texts] = one.command(request);
    const tls = where.tls ? ["--tls"] : [];
    // A text that begins with a hyphen is no option.
    const end = texts.some((text) => text.startsWith("-")) ? ["--"] : [];
    return (where.key ? "export BERTD_API_KEY=…\n" : "") + [
      ["bertd", name, ...own],
      ["--address", where.address, ...tls, "--model", request.model, ...end],
      ...texts.map((text) => [text]),
    ].map((words) => words.map(quoted).join(" ")).join(" \\\n  ");
  }
  if (kind === "python") {
    const security = [where.tls && "tls=True", where.key && 'api_key=os.environ["BERTD_API_KEY"]'].filter(Boolean);
    const given = security.length ? `, security=Security(${security.join(", ")})` : "";
    return [
      ...(where.key ? ["import os", ""] : []),
      `from bertd_client import Client${given ? ", Security" : ""}`,
      "",
      `with Client(${py(where.address)}${given}) as client:`,
      ...one.python(request, py).map((line) => `    ${line}`),
    ].join("\n");
  }
  if (kind === "curl") {
    const [path, body] = one.curl ? one.curl(request) : [`/v1/tasks/${id}`, request];
    return [
      `curl -s ${where.origin}${path}`,
      ...(where.key ? ['-H "authorization: Bearer $BERTD_API_KEY"'] : []),
      "-H 'content-type: application/json'",
      `-d ${quoted(JSON.stringify(body))}`,
    ].join(" \\\n  ");
  }
  return [
    `grpcurl ${where.tls ? "" : "-plaintext "}-d ${quoted(JSON.stringify(request))}`,
    ...(where.key ? ['-H "authorization: Bearer $BERTD_API_KEY"'] : []),
    `${where.address} bertd.v1.InferenceService/${one.rpc}`,
  ].join(" \\\n  ");
}
