// Answers as pictures with numbers. Each takes the answer, the request, and the words.

import { post, refusalOf } from "/console/api.js";
import { el } from "/console/dom.js";
import { filled } from "/console/words.js";

/** float32, little-endian, from base64. */
export function vectorOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Array.from({ length: bytes.length / 4 }, (_, place) => view.getFloat32(4 * place, true));
}

export function cosine(a, b) {
  let dot = 0, left = 0, right = 0;
  for (let place = 0; place < a.length; place += 1) {
    dot += a[place] * b[place];
    left += a[place] ** 2;
    right += b[place] ** 2;
  }
  return dot / (Math.sqrt(left * right) || 1);
}

/** What the server said no with, as it said it. */
export function failure(refusal, words) {
  const { field, reason, retry } = refusal.details;
  const facts = [
    [words.field, field],
    [words.reason, reason],
    [words.retry, retry && `${retry} s`],
    ["HTTP", refusal.status || ""],
  ];
  return el(
    "div",
    { class: "failure", role: "alert" },
    el("p", {}, refusal.message),
    el("dl", {}, ...facts.filter(([, fact]) => fact).map(([name, fact]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, String(fact))))),
  );
}

/** A part of the answer for each input, or its error. */
function parts(results, texts, words, shown) {
  return results.map((result, place) =>
    el(
      "div",
      {},
      el("p", { class: "text" }, texts[place]),
      result.error ? failure(refusalOf(0, result.error), words) : shown(result, texts[place]),
    ),
  );
}

const percent = (part) => `${(100 * Math.max(0, Math.min(1, part))).toFixed(1)}%`;

function bars(entries, format = (value) => value.toFixed(3)) {
  const most = Math.max(1e-9, ...entries.map(([, value]) => value));
  const scale = most > 1 ? most : 1;
  return el("ul", { class: "bars" }, ...entries.map(([name, value]) =>
    el(
      "li",
      {},
      el("span", {}, name),
      el("div", { class: "track", "aria-hidden": "true" }, el("div", { class: "bar", "--part": percent(value / scale) })),
      el("span", { class: "value" }, format(value)),
    )));
}

function similarity(answer, request, words) {
  const good = answer.results.map((one) => (one.error ? null : vectorOf(one.embedding)));
  const known = request.texts.map((text, place) => [text, good[place], place]).filter(([, vector]) => vector);
  const heading = (place) => `${place + 1}`;
  const table = el(
    "table",
    {},
    el("caption", {}, `${words.similarity} (${answer.dimensions} ${words.dimensions})`),
    el("thead", {}, el("tr", {}, el("td", {}), ...known.map(([, , place]) => el("th", { scope: "col", class: "number" }, heading(place))))),
    el("tbody", {}, ...known.map(([text, vector, place]) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, `${heading(place)}. ${text}`),
        ...known.map(([, other]) => {
          const value = cosine(vector, other);
          return el("td", { "--heat": `${(45 * Math.max(0, value)).toFixed(0)}%` }, value.toFixed(3));
        }),
      ))),
  );
  const errors = answer.results
    .filter((one) => one.error)
    .map((one) => failure(refusalOf(0, one.error), words));
  return [el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": words.similarity }, table), ...errors];
}

const labelled = (answer, texts, words) =>
  parts(answer.results, texts, words, (result) => bars(result.labels.labels.map((one) => [one.label, one.score])));

function ranking(answer, request, words) {
  const found = answer.results.filter((one) => !one.error);
  const [most, least] = [Math.max(...found.map((one) => one.score)), Math.min(0, ...found.map((one) => one.score))];
  const list = el("ol", { class: "order" }, ...found.map((one) =>
    el(
      "li",
      {},
      el("span", {}, request.documents[one.index]),
      el("div", { class: "track", "aria-hidden": "true" },
        el("div", { class: "bar", "--part": percent((one.score - least) / (Math.max(1, most) - least)) })),
      el("span", { class: "value" }, one.score.toFixed(3)),
    )));
  const errors = answer.results.filter((one) => one.error).map((one) => failure(refusalOf(0, one.error), words));
  return [el("p", { class: "text" }, request.query), list, ...errors];
}

/** A text with stretches marked; ends are code points. Those that begin within another are left out. */
function marked(text, stretches) {
  const points = [...text];
  const shown = [];
  let at = 0;
  for (const one of [...stretches].sort((a, b) => a.start - b.start)) {
    if (one.start < at) continue;
    shown.push(points.slice(at, one.start).join(""));
    shown.push(el("mark", { class: one.class }, points.slice(one.start, one.end).join(""), el("small", {}, one.note)));
    at = one.end;
  }
  return el("p", { class: "marked" }, ...shown, points.slice(at).join(""));
}

function entities(answer, request, words) {
  const kinds = new Map();
  const kind = (label) => {
    if (!kinds.has(label)) kinds.set(label, kinds.size % 6);
    return `kind-${kinds.get(label)}`;
  };
  return answer.results.map((result, place) => {
    if (result.error) return failure(refusalOf(0, result.error), words);
    const found = result.entities.entities;
    const text = marked(request.texts[place], found.map((one) => ({
      ...one.offsets, class: kind(one.label), note: `${one.label} ${one.score.toFixed(2)}`,
    })));
    return found.length ? text : el("div", {}, text, el("p", { class: "empty" }, words.noEntity));
  });
}

function spans(answer, request, words) {
  const [result] = answer.results;
  if (result.error) return [failure(refusalOf(0, result.error), words)];
  const found = result.spans.spans.filter((one) => !one.no_answer);
  if (!found.length) return [el("p", { class: "empty" }, words.noSpan)];
  const [best] = found;
  return [
    el("p", { class: "text" }, request.inputs[0].question),
    marked(request.inputs[0].context, [{ ...best.offsets, note: best.score.toFixed(3) }]),
    bars(found.map((one) => [one.text, one.score])),
  ];
}

const masks = (answer, request, words, model) =>
  parts(answer.results, request.texts, words, (result) => {
    const found = result.masks.masks;
    if (!found.length) return el("p", { class: "empty" }, filled(words.noMask, { mask: model.mask_token }));
    return el("div", { class: "bars" }, ...found.map((one) => bars(one.candidates.map((each) => [each.text || `#${each.id}`, each.score]))));
  });

async function terms(answer, request, words, model) {
  const ids = [...new Set(answer.results.flatMap((one) => one.vector?.indices ?? []))];
  const names = new Map();
  try {
    const sequences = ids.map((id) => ({ ids: [id] }));
    const named = ids.length ? await post("/v1/tasks/detokenize", { model: model.name, sequences, with_special_tokens: true }) : { texts: [] };
    ids.forEach((id, place) => names.set(id, named.texts[place]));
  } catch {
    // Too many for a call: their numbers say it.
  }
  return parts(answer.results, request.texts, words, ({ vector }) => {
    const found = vector.indices.map((id, place) => [names.get(id) || `#${id}`, vector.values[place]]);
    if (!found.length) return el("p", { class: "empty" }, words.noTerm);
    return bars(found.sort((a, b) => b[1] - a[1]), (value) => value.toFixed(2));
  });
}

const tokens = (answer, request, words) =>
  parts(answer.results, request.inputs.map((one) => one.text), words, (result) =>
    el("ol", { class: "chips" }, ...result.tokens.map((one) =>
      el("li", { class: one.special ? "special" : undefined }, one.token, el("small", {}, String(one.id))))));

const VIEWS = {
  embed: similarity,
  classify: (answer, request, words) => labelled(answer, request.inputs.map((one) => one.text), words),
  "zero-shot-classify": (answer, request, words) => labelled(answer, request.texts, words),
  rerank: ranking,
  "tag-tokens": entities,
  answer: spans,
  "fill-mask": masks,
  "embed-sparse": terms,
  tokenize: tokens,
};

/** Elements that show an answer. */
export const shown = async (id, answer, request, words, model) => VIEWS[id](answer, request, words, model);
