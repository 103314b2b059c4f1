// What can be tried: for each, its fields, its request, and how others write the same.

export const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

const TEXTS = { name: "texts", rows: 4, hint: "aLine" };
const number = (value) => Math.max(1, Math.trunc(Number(value)) || 1);

// Ids are those of the routes: /v1/tasks/ID.
export const TRIES = {
  embed: {
    of: ["feature-extraction"],
    fields: [TEXTS],
    request: (v) => ({ texts: lines(v.texts) }),
    rpc: "Embed",
    curl: (r) => ["/v1/embeddings", { model: r.model, input: r.texts }],
    command: (r) => ["embed", [], r.texts],
    python: (r, py) => [`vectors = client.embed(${py(r.texts)}, model=${py(r.model)})`, "print(vectors @ vectors.T)"],
  },
  classify: {
    of: ["text-classification"],
    fields: [TEXTS],
    request: (v) => ({ inputs: lines(v.texts).map((text) => ({ text })) }),
    rpc: "Classify",
    command: (r) => ["classify", [], r.inputs.map((one) => one.text)],
    python: (r, py) => each(`client.classify(${py(r.inputs.map((one) => one.text))}, model=${py(r.model)})`),
  },
  "zero-shot-classify": {
    of: ["zero-shot-classification"],
    fields: [{ ...TEXTS, rows: 3 }, { name: "labels", rows: 3, hint: "aLine" }],
    request: (v) => ({ texts: lines(v.texts), labels: lines(v.labels) }),
    rpc: "ZeroShotClassify",
    command: (r) => ["zero-shot", r.labels.flatMap((label) => ["--label", label]), r.texts],
    python: (r, py) => each(`client.classify_zero_shot(${py(r.texts)}, ${py(r.labels)}, model=${py(r.model)})`),
  },
  rerank: {
    of: ["text-ranking"],
    fields: [{ name: "query" }, { name: "documents", rows: 5, hint: "aLine" }],
    request: (v) => ({ query: v.query.trim(), documents: lines(v.documents) }),
    rpc: "Rerank",
    command: (r) => ["rerank", [], [r.query, ...r.documents]],
    python: (r, py) => each(`client.rerank(${py(r.query)}, ${py(r.documents)}, model=${py(r.model)})`),
  },
  "tag-tokens": {
    of: ["token-classification"],
    fields: [TEXTS],
    request: (v) => ({ texts: lines(v.texts) }),
    rpc: "TagTokens",
    command: (r) => ["tag", [], r.texts],
    python: (r, py) => each(`client.tag(${py(r.texts)}, model=${py(r.model)})`),
  },
  answer: {
    of: ["question-answering"],
    fields: [{ name: "question" }, { name: "context", rows: 4 }],
    request: (v) => ({ inputs: [{ question: v.question.trim(), context: v.context.trim() }], top_k: 3 }),
    rpc: "Answer",
    command: (r) => ["answer", ["--context", r.inputs[0].context, "--top-k", String(r.top_k)], [r.inputs[0].question]],
    python: (r, py) =>
      each(
        `client.answer([(${py(r.inputs[0].question)}, ${py(r.inputs[0].context)})], top_k=${r.top_k}, model=${py(r.model)})`,
      ),
  },
  "fill-mask": {
    of: ["fill-mask"],
    fields: [{ ...TEXTS, hint: "aMask" }],
    request: (v) => ({ texts: lines(v.texts), top_k: 5 }),
    rpc: "FillMask",
    command: (r) => ["fill", ["--top-k", String(r.top_k)], r.texts],
    python: (r, py) => each(`client.fill_mask(${py(r.texts)}, top_k=${r.top_k}, model=${py(r.model)})`),
  },
  "embed-sparse": {
    of: ["fill-mask"],
    fields: [{ ...TEXTS, rows: 3 }, { name: "terms", type: "number", value: "12" }],
    request: (v) => ({ texts: lines(v.texts), max_active_dims: number(v.terms) }),
    rpc: "EmbedSparse",
    command: (r) => ["embed", ["--sparse", "--max-active-dims", String(r.max_active_dims)], r.texts],
    python: (r, py) =>
      each(`client.embed_sparse(${py(r.texts)}, max_active_dims=${r.max_active_dims}, model=${py(r.model)})`),
  },
  tokenize: {
    of: [],
    fields: [{ ...TEXTS, rows: 3 }],
    request: (v) => ({ inputs: lines(v.texts).map((text) => ({ text })) }),
    rpc: "Tokenize",
    command: (r) => ["tokenize", [], r.inputs.map((one) => one.text)],
    python: (r, py) => each(`client.tokenize(${py(r.inputs.map((one) => one.text))}, model=${py(r.model)})`),
  },
};

function each(asked) {
  return [`for found in ${asked}:`, "    print(found)"];
}

/** Ids of what a model answers; any model shows its tokens. */
export const triesOf = (model) =>
  Object.keys(TRIES).filter((id) => id === "tokenize" || TRIES[id].of.includes(model.task));
