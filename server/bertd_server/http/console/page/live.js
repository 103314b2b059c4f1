// What the server does at this moment: looks every second, and differences between looks.

import { get, Refusal } from "/console/api.js";
import { byId, el, svg } from "/console/dom.js";
import { filled } from "/console/words.js";

const EVERY = 1000; // ms
const KEPT = 61; // looks: a minute
const RATE_LOOKS = 5;
const SHOWN = 12; // batches
const MOST_BARS = 64; // of a picture; what is behind them is drawn as one

/** Upper bound, in seconds, of the bucket that a percentile lies in; null of no values. */
export function percentile(buckets, share) {
  const total = buckets.reduce((sum, [, count]) => sum + count, 0);
  if (!total) return null;
  let below = 0;
  for (const [bound, count] of buckets) {
    below += count;
    if (below >= total * share) return bound ?? Infinity;
  }
  return null;
}

/** The values that came between two looks. */
export function between(before, after) {
  const known = new Map(before.map(([bound, count]) => [bound, count]));
  return after.map(([bound, count]) => [bound, count - (known.get(bound) ?? 0)]).filter(([, count]) => count > 0);
}

export const paddedTokens = (lengths) => lengths.length * Math.max(...lengths);

/** Pieces [row, start, end] of texts that lie end to end in rows of a width. */
export function rowsOf(lengths, width) {
  const pieces = [];
  let at = 0;
  for (const length of lengths) {
    let left = length;
    while (left > 0) {
      const row = Math.floor(at / width), start = at % width;
      const taken = Math.min(left, width - start);
      pieces.push([row, start, start + taken]);
      at += taken;
      left -= taken;
    }
  }
  return pieces;
}

const milliseconds = (seconds) => {
  if (seconds === null || seconds === undefined) return "–";
  const ms = 1000 * seconds;
  return ms < 10 ? ms.toFixed(1) : ms.toFixed(0);
};
const few = (value) => (value < 10 ? value.toFixed(1) : value.toFixed(0));
const sum = (lengths) => lengths.reduce((total, one) => total + one, 0);
const extra = (lengths) => Math.round(100 * (paddedTokens(lengths) / sum(lengths) - 1));

function bar(kind, x, y, width, height) {
  return svg("rect", { class: kind, x, y, width: Math.max(0.2, width), height: Math.max(0.2, height) });
}

/** Texts in rows, without padding and with it, on one scale. */
function newest(batch, words) {
  const [, lengths, seconds] = batch;
  const longest = Math.max(...lengths), rows = lengths.length, gap = rows > 32 ? 0.05 : 0.15;
  const picture = (name) => svg("svg", {
    role: "img", "aria-label": name, viewBox: `0 0 ${longest} ${rows}`, preserveAspectRatio: "none",
  });
  const space = Math.min(0.5, longest / 200);
  const packed = picture(words.packed), padded = picture(words.padded);
  for (const [row, start, end] of rowsOf(lengths, longest)) {
    packed.append(bar("text-bar", start, row + gap / 2, end - start - space, 1 - gap));
  }
  lengths.forEach((length, row) => {
    padded.append(bar("text-bar", 0, row + gap / 2, length - space, 1 - gap));
    if (length < longest) padded.append(bar("waste-bar", length, row + gap / 2, longest - length, 1 - gap));
  });
  const tokens = sum(lengths), all = paddedTokens(lengths);
  const said = (name, text) => el("figcaption", {}, el("b", {}, name), " ", text);
  return el(
    "div",
    { class: "pair" },
    el("figure", {}, packed, said(words.packed, filled(words.packedText, { tokens, ms: milliseconds(seconds) }))),
    el("figure", {}, padded, said(words.padded, filled(words.paddedText, { tokens: all, percent: extra(lengths) }))),
  );
}

function row(batch, scale, words) {
  const [, lengths, seconds, , kind] = batch;
  const tokens = sum(lengths), drawn = lengths.slice(0, MOST_BARS);
  const name = filled(lengths.length > 1 ? words.batch : words.batchOne, {
    texts: lengths.length, tokens, ms: milliseconds(seconds), percent: extra(lengths),
  });
  const how = kind === "lane" ? "" : `, ${words[kind]}`;
  const picture = svg("svg", { "aria-hidden": "true", viewBox: `0 0 ${scale} 1`, preserveAspectRatio: "none" });
  let at = 0;
  for (const length of [...drawn, tokens - sum(drawn)].filter(Boolean)) {
    picture.append(bar("text-bar", at, 0, length - Math.min(length / 3, scale / 250), 1));
    at += length;
  }
  if (paddedTokens(lengths) > tokens) picture.append(bar("waste-bar", tokens, 0, paddedTokens(lengths) - tokens, 1));
  return el("li", {}, picture, el("span", {}, name + how));
}

/** Follows the server, and draws the model that is chosen. */
export class Live {
  #looks = [];
  #timer = 0;
  #turn = 0;
  #drawn = "";
  paused = false;

  /** `chosen` gives the model, `words` the language; `heard` is told of each state, `refused` of a 401. */
  constructor({ chosen, words, heard, refused }) {
    Object.assign(this, { chosen, words, heard, refused });
    document.addEventListener("visibilitychange", () => document.hidden || this.start());
  }

  start() {
    clearTimeout(this.#timer);
    this.#turn += 1;
    this.#look(this.#turn);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#turn += 1;
  }

  forget() {
    this.#looks = [];
    this.#drawn = "";
  }

  async #look(turn) {
    let wait = EVERY;
    try {
      const state = await get("/console/state");
      if (turn !== this.#turn) return;
      byId("live-error").textContent = "";
      this.#looks = [...this.#looks, { at: performance.now() / 1000, state }].slice(-KEPT);
      this.heard(state);
      if (!this.paused) this.draw();
    } catch (error) {
      if (turn !== this.#turn) return;
      if (!(error instanceof Refusal)) throw error;
      if (error.status === 401) {
        this.refused(error);
        return;
      }
      wait = Math.max(EVERY, 1000 * Number(error.details.retry ?? 3));
      byId("live-error").textContent = filled(this.words().waiting, { error: error.message });
      this.heard(null);
    }
    if (!document.hidden) this.#timer = setTimeout(() => this.#look(turn), wait);
  }

  draw() {
    const last = this.#looks.at(-1), words = this.words(), named = this.chosen();
    if (!last || !named) return;
    const same = (model) => model.name === named.name && model.version === named.version;
    const seen = this.#looks
      .map(({ at, state }) => ({ at, model: state.models.find(same) }))
      .filter(({ model }) => model);
    if (!seen.length) return;
    const { model } = seen.at(-1);
    byId("live-of").textContent = `${model.name} · ${model.version}`;
    byId("figures").replaceChildren(...this.#figures(seen, words));
    this.#rates(seen, words);
    // Pictures are drawn where there is something new to see.
    const state = JSON.stringify([model.name, model.version, model.batches.at(-1)?.[0], model.refused, words.live]);
    if (state === this.#drawn) return;
    this.#drawn = state;
    this.#batches(model, words);
    const refused = Object.entries(model.refused).sort((a, b) => b[1] - a[1]);
    const most = Math.max(1, ...refused.map(([, count]) => count));
    byId("refusals").replaceChildren(
      refused.length
        ? el("ul", { class: "bars" }, ...refused.map(([reason, count]) =>
            el("li", {}, el("span", {}, reason),
              el("div", { class: "track", "aria-hidden": "true" }, el("div", { class: "bar", "--part": `${(100 * count) / most}%` })),
              el("span", { class: "value" }, String(count)))))
        : el("p", { class: "empty" }, words.noRefused),
    );
  }

  #figures(seen, words) {
    const { model } = seen.at(-1), first = seen.at(0);
    const early = seen.at(Math.max(0, seen.length - 1 - RATE_LOOKS));
    const seconds = Math.max(EVERY / 1000, seen.at(-1).at - early.at);
    const recent = between(first.model.latency, model.latency);
    const timed = (name, share) => {
      const now = percentile(recent, share), ever = percentile(model.latency, share);
      return [name, milliseconds(now), "ms", filled(words.lastMinute, { ms: `${milliseconds(ever)} ms` })];
    };
    const lost = model.expired + model.failed;
    const wait = model.predicted_wait;
    const entries = [
      [words.rate, few((model.calls - early.model.calls) / seconds), words.perSecond, filled(words.sinceStart, { n: model.calls })],
      [words.textsRate, few((model.texts - early.model.texts) / seconds), words.perSecond, filled(words.sinceStart, { n: model.texts })],
      [words.queue, wait === null ? words.none : wait.toFixed(2), words.seconds,
        wait === null ? words.noLane : filled(words.waitingTexts, { n: model.waiting, tokens: model.waiting_tokens })],
      [words.lanes, String(model.running), filled(words.lanesOf, { n: model.lanes }), filled(words.lanesAlive, { n: model.lanes_alive })],
      timed(words.median, 0.5),
      timed(words.slowest, 0.99),
      [words.late, String(lost), "", filled(words.lateText, model)],
    ];
    return entries.map(([name, value, unit, more]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, value, el("small", {}, unit)), el("dd", { class: "more" }, more)));
  }

  #rates(seen, words) {
    const rates = seen.slice(1).map(({ at, model }, place) => (model.calls - seen[place].model.calls) / Math.max(0.1, at - seen[place].at));
    const most = Math.max(1, ...rates), step = 300 / (KEPT - 2);
    const start = 300 - step * (rates.length - 1);
    const points = rates.map((rate, place) => `${(start + place * step).toFixed(1)},${(46 - (44 * rate) / most).toFixed(1)}`);
    const picture = byId("rates");
    picture.setAttribute("aria-label", `${words.minute}: ${filled(words.ratesSaid, { now: few(rates.at(-1) ?? 0), most: few(Math.max(0, ...rates)) })}`);
    picture.replaceChildren(...(points.length > 1 ? [svg("path", { d: `M${points.join("L")}` })] : []));
  }

  #batches(model, words) {
    const last = model.batches.slice(-SHOWN).reverse();
    const empty = () => el("p", { class: "empty" }, words.noBatch);
    byId("newest").replaceChildren(last.length ? newest(last[0], words) : empty());
    const scale = Math.max(1, ...last.map(([, lengths]) => paddedTokens(lengths)));
    byId("batches").replaceChildren(...last.map((batch) => row(batch, scale, words)));
  }
}
