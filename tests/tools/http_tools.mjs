// Tools of Node that speak HTTP, as people use them, against a running server: one line for each.
//
//     npm install --prefix .tools openai @langchain/openai @langchain/cohere cohere-ai ai …
//     bertd serve --repository ROOT --http-api 127.0.0.1:8003   # models VECTORS and RANKS
//     node tests/tools/http_tools.mjs .tools http://127.0.0.1:8003 VECTORS RANKS

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [folder, url, vectors, ranks] = process.argv.slice(2);
const modules = path.resolve(folder, "node_modules");
const required = createRequire(path.join(modules, "x.js"));
const load = (name) => import(pathToFileURL(required.resolve(name)).href);
const TEXTS = ["the cat sat on a mat", "a dog in the rain"];
const [v1, apiKey] = [`${url}/v1`, "none"];

const TOOLS = {
  openai: async ({ default: OpenAI }) => {
    const made = await new OpenAI({ baseURL: v1, apiKey }).embeddings.create({ model: vectors, input: TEXTS });
    return made.data.map((one) => one.embedding);
  },
  "@langchain/openai": async ({ OpenAIEmbeddings }) =>
    new OpenAIEmbeddings({ model: vectors, apiKey, configuration: { baseURL: v1 } }).embedDocuments(TEXTS),
  "@langchain/cohere": async ({ CohereRerank }) => {
    const { CohereClient } = await load("cohere-ai");
    const client = new CohereClient({ token: apiKey, environment: url });
    const found = await new CohereRerank({ client, model: ranks, topN: 2 }).rerank(TEXTS, "cat");
    return found.map((one) => one.relevanceScore);
  },
  "cohere-ai": async ({ CohereClientV2 }) => {
    const client = new CohereClientV2({ token: apiKey, environment: url });
    const { results } = await client.rerank({ model: ranks, query: "cat", documents: TEXTS });
    return results.map((one) => one.relevanceScore);
  },
  "@ai-sdk/openai": async ({ createOpenAI }) => {
    const { embedMany } = await load("ai");
    const model = createOpenAI({ baseURL: v1, apiKey }).textEmbeddingModel(vectors);
    return (await embedMany({ model, values: TEXTS })).embeddings;
  },
  "@ai-sdk/openai-compatible": async ({ createOpenAICompatible }) => {
    const { embedMany } = await load("ai");
    const model = createOpenAICompatible({ name: "bertd", baseURL: v1, apiKey }).textEmbeddingModel(vectors);
    return (await embedMany({ model, values: TEXTS })).embeddings;
  },
  "@huggingface/inference": async ({ InferenceClient }) =>
    new InferenceClient().featureExtraction({ endpointUrl: `${url}/?model=${vectors}`, inputs: TEXTS }),
  "@chroma-core/openai": async ({ OpenAIEmbeddingFunction }) =>
    new OpenAIEmbeddingFunction({ apiKey, modelName: vectors, apiBase: v1 }).generate(TEXTS),
  "@llamaindex/openai": async ({ OpenAIEmbedding }) =>
    new OpenAIEmbedding({ model: vectors, apiKey, baseURL: v1 }).getTextEmbeddings(TEXTS),
};

let failed = 0;
for (const [name, tried] of Object.entries(TOOLS)) {
  let said;
  let version = "";
  try {
    version = JSON.parse(readFileSync(path.join(modules, name, "package.json"))).version;
    const found = await tried(await load(name));
    const finite = found.every((one) => [one].flat().length && [one].flat().every(Number.isFinite));
    const width = [found[0]].flat().length;
    said = found.length === TEXTS.length && finite ? `works, ${width} values` : `answered ${JSON.stringify(found).slice(0, 200)}`;
  } catch (error) {
    said = version ? `${error.name}: ${String(error.message).slice(0, 300)}` : "not installed";
    failed += version ? 1 : 0;
  }
  failed += said.startsWith("answered") ? 1 : 0;
  console.log(name.padEnd(28), version.padEnd(10), said);
}
process.exitCode = failed ? 1 : 0;
