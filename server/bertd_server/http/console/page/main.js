// The page: a model is chosen, asked, and watched.

import { get, hasKey, post, Refusal, useKey } from "/console/api.js";
import { byId, choices, el } from "/console/dom.js";
import { Live } from "/console/live.js";
import { failure, shown } from "/console/results.js";
import { grpcAddress, KINDS, snippet } from "/console/snippets.js";
import { TRIES, triesOf } from "/console/tasks.js";
import { EXAMPLES, filled, WORDS } from "/console/words.js";

const remembered = (name, allowed, otherwise) => {
  const known = localStorage.getItem(`bertd-${name}`);
  return allowed.includes(known) ? known : otherwise;
};

const page = {
  language: remembered("language", ["en", "ko"], navigator.language.toLowerCase().startsWith("ko") ? "ko" : "en"),
  theme: remembered("theme", ["auto", "light", "dark"], "auto"),
  models: [],
  model: null,
  id: "",
  kind: "command",
  state: null,
  served: "", // which models there were at the last look
  values: {}, // of fields, by try and name
  asked: 0,
  last: null, // the last answer, to be shown again in another language
};
const words = () => WORDS[page.language];

const live = new Live({
  chosen: () => page.model,
  words,
  heard,
  refused: askForKey,
});

// Languages and colours.

function speak() {
  document.documentElement.lang = page.language;
  for (const place of document.querySelectorAll("[data-word]")) place.textContent = words()[place.dataset.word];
  for (const place of document.querySelectorAll("[data-label]")) place.setAttribute("aria-label", words()[place.dataset.label]);
  byId("pause").setAttribute("aria-pressed", String(live.paused));
  choices(byId("languages"), [["en", "English", "en"], ["ko", "한국어", "ko"]], page.language, (chosen) => {
    page.language = chosen;
    localStorage.setItem("bertd-language", chosen);
    speak();
    focusPressed("languages");
  });
  byId("said").textContent = "";
  byId("copied").textContent = "";
  colour();
  showModels();
  showTry();
  showHealth();
  if (page.last) showAnswer();
  live.draw();
}

function colour() {
  document.documentElement.dataset.theme = page.theme;
  choices(byId("themes"), ["auto", "light", "dark"].map((theme) => [theme, words()[theme]]), page.theme, (chosen) => {
    page.theme = chosen;
    localStorage.setItem("bertd-theme", chosen);
    colour();
    focusPressed("themes");
  });
}

/** Buttons are made anew when one is pressed: the keyboard stays with it. */
const focusPressed = (id) => byId(id).querySelector('[aria-pressed="true"]')?.focus();

// Models.

function showModels() {
  byId("no-models").hidden = page.models.length > 0;
  byId("try").hidden = byId("code").parentElement.hidden = page.models.length === 0;
  byId("models").replaceChildren(...page.models.map((model) => {
    const facts = [
      `${words().short_tasks[model.task] ?? model.task}, ${model.precision}`,
      filled(words().atMost, { n: model.max_tokens }),
      model.dimensions ? `${model.dimensions} ${words().dimensions}` : "",
      model.labels.length > 1 ? `${words().labelsOf}: ${model.labels.slice(0, 6).join(", ")}${model.labels.length > 6 ? ", …" : ""}` : "",
    ].filter(Boolean);
    const chosen = model === page.model;
    return el(
      "li",
      {},
      el(
        "button",
        { type: "button", "aria-pressed": String(chosen), onclick: () => { choose(model); focusPressed("models"); } },
        el("b", {}, `${model.name} `, el("small", {}, model.version === "1" ? "" : `v${model.version}`)),
        ...facts.map((fact) => el("small", { class: "fact" }, fact)),
      ),
    );
  }));
}

function choose(model) {
  page.model = model;
  page.id = triesOf(model)[0];
  page.last = null;
  page.asked += 1; // an answer that is on its way is another model's
  showModels();
  showTry();
  emptyAnswer();
  live.draw();
}

async function readModels() {
  const { models } = await post("/v1/tasks/list-models", {});
  const before = page.model;
  page.models = models;
  const same = models.find((one) => before && one.name === before.name && one.version === before.version);
  if (same) {
    page.model = same;
    showModels();
  } else if (models.length) choose(models[0]);
  else showModels();
}

// A try.

function showTry() {
  const { model } = page;
  if (!model) return;
  byId("meaning").textContent = words().tasks[model.task] ?? model.task;
  choices(byId("tries"), triesOf(model).map((id) => [id, words().tries[id]]), page.id, (id) => {
    page.id = id;
    page.last = null;
    page.asked += 1;
    showTry();
    emptyAnswer();
    focusPressed("tries");
  });
  page.values[page.id] ??= exampleOf(page.language);
  const mask = model.mask_token;
  byId("fields").replaceChildren(...TRIES[page.id].fields.flatMap((field) => {
    const name = `field-${field.name}`;
    const value = page.values[page.id][field.name] ?? field.value ?? "";
    const hint = field.hint ? el("small", {}, ` ${filled(words()[field.hint], { mask })}`) : null;
    const set = { id: name, oninput: (event) => { page.values[page.id][field.name] = event.target.value; showSame(); } };
    const input = field.rows
      ? el("textarea", { ...set, rows: String(field.rows), spellcheck: "false" })
      : el("input", { ...set, type: field.type ?? "text", min: field.type ? "1" : null, autocomplete: "off" });
    input.value = value;
    return [el("label", { for: name }, words().fields[field.name], hint), input];
  }));
  showSame();
}

function exampleOf(language) {
  const given = EXAMPLES[language][page.id];
  const mask = page.model.mask_token;
  return Object.fromEntries(Object.entries(given).map(([name, text]) => [name, filled(text, { mask })]));
}

function takeExample(language) {
  page.values[page.id] = { ...page.values[page.id], ...exampleOf(language) };
  showTry();
}

const requestNow = () => {
  const { fields, request } = TRIES[page.id];
  const values = Object.fromEntries(fields.map((field) => [field.name, page.values[page.id]?.[field.name] ?? field.value ?? ""]));
  return { model: page.model.name, ...request(values) };
};

async function ask(event) {
  event.preventDefault();
  const turn = (page.asked += 1);
  const { id, model } = page, request = requestNow();
  const button = byId("question").querySelector(".primary");
  button.disabled = true;
  byId("said").textContent = words().asking;
  const began = performance.now();
  try {
    const answer = await post(`/v1/tasks/${id}`, request);
    page.last = { id, model, request, answer, seconds: (performance.now() - began) / 1000 };
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
    if (refusal.status === 401) askForKey(refusal);
    page.last = { id, model, request, refusal };
  } finally {
    button.disabled = false;
  }
  if (turn === page.asked) await showAnswer();
  else byId("said").textContent = "";
}

async function showAnswer() {
  const { id, model, request, answer, refusal, seconds } = page.last;
  if (refusal) {
    byId("said").textContent = "";
    byId("answer").replaceChildren(failure(refusal, words()));
    return;
  }
  const made = await shown(id, answer, request, words(), model);
  const good = answer.results.filter((one) => !one.error);
  const batch = good.map((one) => one.batch).find((one) => one?.sequences);
  const said = filled(batch ? words().answered : words().cachedIn, {
    n: good.length, ms: (1000 * seconds).toFixed(0), texts: batch?.sequences, tokens: batch?.tokens,
  });
  const failed = answer.results.length - good.length;
  byId("said").textContent = said + (failed ? `; ${filled(words().someFailed, { n: failed })}` : "");
  byId("answer").replaceChildren(...made);
}

function emptyAnswer() {
  byId("said").textContent = "";
  byId("answer").replaceChildren(el("p", { class: "empty" }, words().noAnswer));
}

// The same request elsewhere.

function showSame() {
  const tabs = KINDS.map(([kind, name]) =>
    el("button", {
      type: "button", role: "tab", id: `tab-${kind}`, "aria-selected": String(kind === page.kind), "aria-controls": "code",
      tabindex: kind === page.kind ? "0" : "-1", onclick: () => pick(kind),
    }, name));
  byId("tabs").replaceChildren(...tabs);
  byId("code").setAttribute("aria-labelledby", `tab-${page.kind}`);
  byId("copied").textContent = "";
  const { address = "127.0.0.1:8001", tls = false } = page.state?.grpc ?? {};
  const where = { address: grpcAddress(address, location.hostname), tls, origin: location.origin, key: hasKey() };
  byId("code").firstElementChild.textContent = snippet(page.kind, page.id, requestNow(), where);
}

function pick(kind) {
  page.kind = kind;
  showSame();
  byId(`tab-${kind}`).focus();
}

function moveTab(event) {
  const kinds = KINDS.map(([kind]) => kind), at = kinds.indexOf(page.kind);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: kinds.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  pick(kinds[(to + kinds.length) % kinds.length]);
}

async function copy() {
  const code = byId("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    byId("copied").textContent = words().copied;
  } catch {
    // Without TLS beyond loopback browsers give no clipboard.
    getSelection().selectAllChildren(code);
    code.focus();
    byId("copied").textContent = words().notCopied;
  }
}

// What the server says of itself.

function heard(state) {
  const address = page.state?.grpc.address;
  page.state = state ?? page.state;
  page.reachable = state !== null;
  showHealth();
  if (!state) return;
  const served = state.models.map((model) => `${model.name}/${model.version}`).join();
  if (served !== page.served) {
    page.served = served;
    readModels().catch(() => { page.served = ""; }); // tried again with the next look
  } else if (address !== state.grpc.address && page.model) showSame();
}

function showHealth() {
  const place = byId("health"), count = page.state?.models.length ?? 0;
  if (!page.state) return;
  byId("version").textContent = page.state.version;
  place.className = page.reachable && count ? "good" : "bad";
  place.textContent = !page.reachable
    ? words().unreachable
    : count === 1 ? words().servingOne : count ? filled(words().serving, { n: count }) : words().loading;
}

function askForKey(refusal) {
  live.stop();
  byId("console").hidden = true;
  byId("door").hidden = false;
  byId("forget").hidden = true;
  byId("door-error").textContent = hasKey() ? refusal.message : "";
  useKey("");
  byId("key").value = "";
  byId("key").focus();
}

async function enter() {
  try {
    const state = await get("/console/state");
    byId("door").hidden = true;
    byId("console").hidden = false;
    byId("forget").hidden = !hasKey();
    heard(state);
    live.start();
    return true;
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
    if (refusal.status === 401) askForKey(refusal);
    else {
      byId("console").hidden = false;
      live.start(); // it says what is wrong, and goes on asking
    }
    return false;
  }
}

byId("question").addEventListener("submit", ask);
byId("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("question").requestSubmit();
});
byId("example-en").addEventListener("click", () => takeExample("en"));
byId("example-ko").addEventListener("click", () => takeExample("ko"));
byId("tabs").addEventListener("keydown", moveTab);
byId("copy").addEventListener("click", copy);
byId("pause").addEventListener("click", () => {
  live.paused = !live.paused;
  byId("pause").setAttribute("aria-pressed", String(live.paused));
  live.draw();
});
byId("door").addEventListener("submit", async (event) => {
  event.preventDefault();
  byId("door-error").textContent = "";
  useKey(byId("key").value.trim());
  byId("key").value = "";
  if (await enter()) byId("try").focus();
});
byId("forget").addEventListener("click", () => {
  useKey("");
  Object.assign(page, { models: [], model: null, state: null, served: "", last: null, values: {} });
  live.forget();
  speak();
  enter();
});

speak();
enter();
