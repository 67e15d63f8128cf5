// One explorer as one object, the view: the model that it talks to, what it shows, its state and its elements. The
// functions of all pieces take it; nothing of an explorer is kept outside it, so that several live on one page.

const AGAIN_MS = 3000; // an ask without an answer is repeated when it is needed again: the notebook drops old ones
const SENTENCES_KEPT = 300; // answers
const SILENT_MS = 12000; // without an answer, after which it is said
const LOOK_MS = 1000;
const FIRST_MAPS = 4; // models shown at first
const ASKS = {
  map: ["model", "kind", "layer"],
  drift: ["model"],
  alignment: ["model", "layer"],
  similarity: ["one", "other", "measure"],
  sentence: ["row", "layer"],
};

function makeView(model, el) {
  const about = model.get("about");
  const texts = model.get("texts");
  const names = about.models.map((one) => one.name);
  const view = {
    model,
    el,
    root: h("div", { class: "lsc" }),
    grid: h("div", { class: "lsc-grid" }),
    status: h("div", { class: "lsc-status", role: "status", "aria-live": "polite" }),
    tip: h("div", { class: "lsc-tip", "aria-hidden": "true", hidden: true }), // one for all regions
    about,
    texts,
    n: about.n,
    codes: array(Int16Array, model.get("codes")),
    curves: array(Float32Array, model.get("curves")),
    layers: Math.max(1, ...about.models.map((one) => one.layers)),
    names,
    others: names.map((_, i) => i).filter((i) => i !== about.baseline),
    named: texts?.text.some((text) => text.trim()) ? null : texts?.id, // what stands for texts that there are none of
    sameId: null, // id -> its rows, where there are texts
    regions: [],
    endings: [], // what the clean-up has to undo
    answers: new Map(), // key of an ask -> its answer, or {why}
    waiting: new Map(), // key of an ask -> when it was sent
    heard: 0, // when the notebook said something last
    broken: false, // the notebook cannot be reached
    progress: new Map(),
    theme: {},
    clock: { id: 0, stepped: null, drawers: [] }, // one frame loop for everything that moves
    said: 0, // the timer of what is said next
    state: {
      hover: -1,
      open: -1,
      lastHover: -1,
      ownScale: false, // colours of drift end at each model's own end
      hidden: new Set(), // categories switched off in the legend
      muted: new Set(), // models switched off in the curves
      zoom: { k: 1, x: 0, y: 0 },
    },
  };
  for (const name of Object.keys(KNOWN)) view.state[name] = KNOWN[name](view, model.get(name));
  if (texts) view.sameId = rowsById(texts.id, view.n);
  return view;
}

function rowsById(ids, n) {
  const rows = new Map();
  for (let i = 0; i < n; i++) {
    if (rows.has(ids[i])) rows.get(ids[i]).push(i);
    else rows.set(ids[i], [i]);
  }
  return rows;
}

// ---------------------------------------------------------------------------------------------- synced traits

/** What a trait's value becomes where it is not known here. */
const KNOWN = {
  layer: ({ layers }, value) => clamp(Math.round(Number(value) || 0), 0, layers - 1),
  models: ({ names }, value) => {
    const kept = [...new Set(value ?? [])].filter((name) => names.includes(name));
    return kept.length ? kept : names.slice(0, FIRST_MAPS);
  },
  probe: ({ about }, value) => (about.probes.some((one) => one.name === value) ? value : (about.probes[0]?.name ?? "")),
  language: ({ about }, value) => oneOf(about.curve_languages, value, ""),
  colour: ({ about }, value) => oneOf(about.colours, value, ""),
  kind: ({ about }, value) => oneOf(about.kinds, value, "pca"),
  selected: ({ n }, value) =>
    (value instanceof Int32Array ? value : array(Int32Array, value)).filter((row) => row >= 0 && row < n),
  compared: ({ about, names }, value) => {
    const pair = (value ?? []).filter((name) => names.includes(name));
    const first = pair[0] ?? names[Math.max(0, about.baseline)];
    return [first, pair[1] ?? names.find((name) => name !== first) ?? first];
  },
  focus: ({ about, names }, value) =>
    names.includes(value) ? value : (names.find((_, i) => i !== about.baseline) ?? names[0]),
  measure: ({ about }, value) => oneOf(about.measures, value, ""),
  order: ({ about }, value) => oneOf(about.orders, value, "corpus"),
  step: ({ about }, value) => (about.steps?.includes(value) ? value : (about.steps?.at(-1) ?? 0)),
};

const oneOf = (list, value, otherwise) => (list.includes(value) ? value : (list[0] ?? otherwise));
const same = (a, b) =>
  a === b || (typeof a === "object" && a.length === b.length && a.every((value, i) => value === b[i]));

function notify(view, what, detail) {
  for (const region of view.regions) region.update(what, detail);
}

/** Take a new value of a synced trait, tell the notebook and redraw what depends on it. */
function change(view, name, value) {
  const { model, state } = view;
  const next = KNOWN[name](view, value);
  if (same(next, state[name])) return;
  take(view, name, next);
  model.set(name, name === "selected" ? new DataView(next.slice().buffer) : next);
  toNotebook(view, () => model.save_changes());
}

function take(view, name, next) {
  const { state } = view;
  // representers are those of the first model shown
  if (name === "models" && next[0] !== state.models[0]) forget(view, "sentence", 0);
  state[name] = next;
  if (name === "colour") state.hidden.clear();
  if (name === "selected") state.open = next.length === 1 ? next[0] : next.includes(state.open) ? state.open : -1;
  if (name === "layer" || name === "step") stepClock(view);
  if (name === "step") followStep(view);
  notify(view, name);
  if (name === "selected") {
    notify(view, "open");
    say(view, next.length ? `${plural(next.length, "sentence")} selected` : "No sentence selected");
  }
}

/** Take what the notebook sets. */
function hearTraits(view) {
  const { model, state, endings } = view;
  for (const name of Object.keys(KNOWN)) {
    const changed = () => {
      const next = KNOWN[name](view, model.get(name));
      if (!same(next, state[name])) take(view, name, next);
    };
    model.on(`change:${name}`, changed);
    endings.push(() => model.off(`change:${name}`, changed));
  }
}

/** Set what the notebook does not know of. */
function set(view, name, value) {
  if (view.state[name] === value) return;
  view.state[name] = value;
  notify(view, name);
}

// ---------------------------------------------------------------------------------------------- asks and answers

/** The answer to an ask if it is here; asks for it once if it is not. */
function answer(view, ask, send = true) {
  const { model, answers, waiting } = view;
  const key = keyOf(ask);
  const found = answers.get(key);
  if (!found && send && !(performance.now() - (waiting.get(key) ?? -Infinity) < AGAIN_MS)) {
    waiting.set(key, performance.now());
    toNotebook(view, () => model.send(ask));
  }
  return found;
}

function hearAnswers(view) {
  const { model, endings } = view;
  const heard = (content, buffers) => receive(view, content, buffers);
  model.on("msg:custom", heard);
  endings.push(() => model.off("msg:custom", heard));
}

function receive(view, content, buffers) {
  const { answers, waiting, progress } = view;
  if (!content || !content.give) return;
  Object.assign(view, { heard: performance.now(), broken: false });
  const { give, ...rest } = content;
  if (give === "progress") {
    progress.set(`${content.model}/${content.layer}`, content);
    notify(view, "progress", content);
    return;
  }
  const what = give === "missing" ? content.ask.ask : give;
  const from = give === "missing" ? content.ask : rest;
  if (!ASKS[what]) return;
  const ask = { ask: what };
  for (const name of ASKS[what]) if (from[name] !== undefined && from[name] !== null) ask[name] = from[name];
  const key = keyOf(ask);
  if (give === "missing") answers.set(key, { why: content.why });
  else {
    const kind = { map: Uint16Array, drift: Uint16Array }[give] ?? Float32Array;
    answers.set(key, { ...rest, data: buffers?.length ? array(kind, buffers[0]) : null });
    if (give === "sentence") forget(view, "sentence", SENTENCES_KEPT);
  }
  waiting.delete(key);
  notify(view, "answer", what);
}

/** Say something to the notebook; where that fails, there is none. */
function toNotebook(view, act) {
  try {
    act();
  } catch {
    view.broken = true;
  }
}

/** A line that says when the notebook does not answer, and what to do. */
function watchSilence(view) {
  const { about, endings, waiting, root } = view;
  const line = h("p", { class: "lsc-silent", role: "alert", hidden: true });
  if (about.static) return line;
  const look = () => {
    const gone = view.broken || root.closest(".jupyter-widgets-disconnected") !== null;
    // an ask may be dropped for newer ones: only those count after which nothing was heard
    const since = Math.min(...[...waiting.values()].filter((sent) => sent > view.heard));
    const silent = performance.now() - since > SILENT_MS;
    line.hidden = !gone && !silent;
    const text = gone
      ? "The kernel behind this view has ended or was restarted. Run the cell again to go on; what is here stays."
      : silent
        ? "The notebook does not answer. Its kernel is busy, has ended or was restarted: if it was, run the cell again."
        : "";
    if (line.textContent !== text) line.textContent = text;
  };
  const timer = setInterval(look, LOOK_MS);
  endings.push(() => clearInterval(timer));
  return line;
}

/** Forget the oldest answers of a kind but so many; if all, what was asked for too. */
function forget({ answers, waiting }, kind, most) {
  const of = (map) => [...map.keys()].filter((key) => key.includes(`"${kind}"`));
  const keys = of(answers);
  for (const key of keys.slice(0, Math.max(0, keys.length - most))) answers.delete(key);
  if (!most) for (const key of of(waiting)) waiting.delete(key);
}

// ---------------------------------------------------------------------------------------------- frames

function askFrame(view) {
  const { clock } = view;
  if (!clock.id) clock.id = requestAnimationFrame((time) => drawFrame(view, time));
}

/** A step of the layer slider: say when it is painted first, and when all has come to rest. */
function stepClock(view) {
  view.clock.stepped = { layer: view.state.layer, painted: false };
  askFrame(view);
}

function drawFrame(view, time) {
  const { clock, el } = view;
  clock.id = 0;
  let moving = false;
  for (const draw of clock.drawers) moving = draw(time) || moving;
  const { stepped } = clock;
  if (stepped && !stepped.painted) {
    stepped.painted = true;
    el.dispatchEvent(new CustomEvent("layerscope:painted", { detail: { layer: stepped.layer } }));
  }
  if (moving) askFrame(view);
  else if (stepped) {
    clock.stepped = null;
    el.dispatchEvent(new CustomEvent("layerscope:settled", { detail: { layer: stepped.layer } }));
  }
}
