// The explorer: curves by layer, maps of all shown models, sentences, alignment and similarity, drawn from one widget model.
// Plain canvas and SVG, no library, no network. Whatever comes from data reaches the page as text only.

const SVG = "http://www.w3.org/2000/svg";
const MOVE_MS = 160; // how long points travel after a step of the slider
const WAIT_MS = 120; // pause before the notebook is asked again while the slider moves
const AGAIN_MS = 3000; // an ask without an answer is repeated when it is needed again: the notebook drops old ones
const PLAY_MS = 800;
const NEAR = 12; // how far, in px, the pointer may be from a point
const LISTED = 50; // sentences listed at most
const DIVERGING = ["#9c4a05", "#d9822b", "#f2b873", "middle", "#94bfe0", "#3f86bf", "#0b4f8a"]; // a loss is orange
const DIVERGING_DARK = ["#ffd39a", "#e0892b", "#8f561d", "middle", "#32699b", "#62aeea", "#b5daf8"]; // there the ends are the bright ones
const SEQUENTIAL = ["#fbf7e3", "#dcebcb", "#a5d4c3", "#5fb2c5", "#3886b6", "#285b9c", "#1b2f6e"]; // ever darker: safe for the colour blind, and in grey
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 3", "1 2"];
const SHAPES = [
  (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  (r) => `M${-0.9 * r} ${-0.9 * r}h${1.8 * r}v${1.8 * r}h${-1.8 * r}Z`,
  (r) => `M0 ${-1.35 * r}L${1.2 * r} ${0.8 * r}H${-1.2 * r}Z`,
  (r) => `M0 ${-1.3 * r}L${1.3 * r} 0L0 ${1.3 * r}L${-1.3 * r} 0Z`,
  (r) => `M0 ${1.35 * r}L${1.2 * r} ${-0.8 * r}H${-1.2 * r}Z`,
  (r) => {
    const [a, b] = [1.25 * r, 0.45 * r];
    return `M${-b} ${-a}H${b}V${-b}H${a}V${b}H${b}V${a}H${-b}V${b}H${-a}V${-b}H${-b}Z`;
  },
  (r) => {
    const [a, b] = [1.2 * r, 0.55 * r];
    return `M${-a} ${-a + b}L${-a + b} ${-a}L0 ${-b}L${a - b} ${-a}L${a} ${-a + b}L${b} 0L${a} ${a - b}L${a - b} ${a}L0 ${b}L${-a + b} ${a}L${-a} ${a - b}L${-b} 0Z`;
  },
];
const CATEGORIES = 10; // colours before the shape changes
const MODEL_COLOURS = 6;
const ASKS = { map: ["model", "kind", "layer"], drift: ["model"], alignment: ["model", "layer"], similarity: ["one", "other", "measure"], sentence: ["row", "layer"] };
const COLOUR_NAMES = { label: "label", language: "language", prediction: "prediction", drift: "drift from the baseline", representer: "representers" };

// ---------------------------------------------------------------------------------------------- small helpers

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const count = (x) => x.toLocaleString("en");
const plural = (x, one, many) => `${count(x)} ${x === 1 ? one : many ?? `${one}s`}`;
const keyOf = (ask) => JSON.stringify(Object.entries(ask).sort(([a], [b]) => (a < b ? -1 : 1)));

function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function s(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Text from the data: any script, either direction. */
const words = (tag, name, text) => h(tag, { class: name, dir: "auto" }, String(text));

function number(x) {
  if (!Number.isFinite(x)) return "–";
  const size = Math.abs(x);
  let text;
  if (size === 0) text = "0";
  else if (size >= 1000) text = count(Math.round(x));
  else if (size < 0.001) text = x.toExponential(1);
  else text = size >= 100 ? x.toFixed(0) : size >= 10 ? x.toFixed(1) : size >= 1 ? x.toFixed(2) : x.toFixed(3);
  return text.replace("-", "−");
}

const percent = (share) => (Number.isFinite(share) ? `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %` : "–");
const probability = (p) => (p < 0.001 ? "< 0.001" : `= ${p.toFixed(3)}`);

/** Round positions between two values, and the digits they need. */
function ticks(low, high, wanted) {
  if (!(high > low)) return { values: [low], digits: 3 };
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) values.push(i * step);
  return { values, digits: clamp(-Math.floor(Math.log10(step) + 1e-9), 0, 8) };
}

/** Layer numbers to print under an axis with room for so many. */
function layerTicks(layers, room) {
  const step = [1, 2, 4, 5, 10, 20, 50, 100].find((size) => (layers - 1) / size + 1 <= room) ?? layers;
  const values = [];
  for (let layer = 0; layer < layers; layer += step) values.push(layer);
  return values;
}

/** Bytes of a trait or of an answer, as a fresh array of the given kind: the source may lie at any offset. */
function array(kind, source) {
  if (!source) return new kind(0);
  const [buffer, start, length] = ArrayBuffer.isView(source) ? [source.buffer, source.byteOffset, source.byteLength] : [source, 0, source.byteLength];
  const whole = length - (length % kind.BYTES_PER_ELEMENT);
  return new kind(buffer.slice(start, start + whole));
}

function debounced(action, wait) {
  let timer = 0;
  const call = () => {
    clearTimeout(timer);
    timer = setTimeout(action, wait);
  };
  call.cancel = () => clearTimeout(timer);
  return call;
}

const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
/** Any CSS colour as [red, green, blue]. */
function rgb(colour) {
  pixel.canvas.width = pixel.canvas.height = 1;
  pixel.fillStyle = "#808080";
  pixel.fillStyle = colour;
  pixel.fillRect(0, 0, 1, 1);
  return [...pixel.getImageData(0, 0, 1, 1).data.subarray(0, 3)];
}

/** A function from 0..1 to [red, green, blue] through the given colours. */
function ramp(stops) {
  return (share) => {
    const at = clamp(share, 0, 1) * (stops.length - 1);
    const i = Math.min(stops.length - 2, Math.floor(at));
    return stops[i].map((value, channel) => Math.round(value + (stops[i + 1][channel] - value) * (at - i)));
  };
}

const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
const luminance = (colour) => {
  const [r, g, b] = colour.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};

/** Alpha masks of one shape at sixteen quarter-pixel offsets, so that points move smoothly when stamped into an image. */
function stamp(shape, radius) {
  const half = Math.ceil(radius * 1.4) + 1;
  const side = 2 * half + 1;
  const path = new Path2D(SHAPES[shape](radius));
  pixel.canvas.width = pixel.canvas.height = side;
  const masks = [];
  for (let offset = 0; offset < 16; offset++) {
    pixel.setTransform(1, 0, 0, 1, 0, 0);
    pixel.clearRect(0, 0, side, side);
    pixel.setTransform(1, 0, 0, 1, half + (offset & 3) / 4, half + (offset >> 2) / 4);
    pixel.fillStyle = "#000";
    pixel.fill(path);
    masks.push(pixel.getImageData(0, 0, side, side).data.filter((_, i) => i % 4 === 3));
  }
  pixel.setTransform(1, 0, 0, 1, 0, 0);
  return { half, side, masks };
}

function isDark(saved) {
  const { body, documentElement: html } = document;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  if (document.querySelector(".vscode-dark, .vscode-high-contrast:not(.vscode-high-contrast-light)")) return true;
  const named = html.getAttribute("theme") ?? html.dataset.theme;
  if (named) return named.includes("dark");
  return Boolean(saved) && matchMedia("(prefers-color-scheme: dark)").matches;
}

// ---------------------------------------------------------------------------------------------- the whole

function render({ model, el }) {
  const about = model.get("about");
  const texts = model.get("texts");
  const n = about.n;
  const codes = array(Int16Array, model.get("codes"));
  const curves = array(Float32Array, model.get("curves"));
  const layers = Math.max(1, ...about.models.map((one) => one.layers));
  const names = about.models.map((one) => one.name);
  const endings = []; // what the clean-up has to undo
  const regions = [];
  const answers = new Map(); // key of an ask -> its answer, or {why}
  const waiting = new Map(); // key of an ask -> when it was sent
  const progress = new Map();

  const state = {
    hover: -1,
    open: -1,
    lastHover: -1,
    hidden: new Set(), // categories switched off in the legend
    muted: new Set(), // models switched off in the curves
    view: { k: 1, x: 0, y: 0 },
  };

  const known = {
    layer: (value) => clamp(Math.round(Number(value) || 0), 0, layers - 1),
    models: (value) => {
      const kept = [...new Set(value ?? [])].filter((name) => names.includes(name)).slice(0, 4);
      return kept.length ? kept : names.slice(0, 4);
    },
    probe: (value) => (about.probes.some((probe) => probe.name === value) ? value : (about.probes[0]?.name ?? "")),
    language: (value) => (about.curve_languages.includes(value) ? value : (about.curve_languages[0] ?? "")),
    colour: (value) => (about.colours.includes(value) ? value : (about.colours[0] ?? "")),
    kind: (value) => (about.kinds.includes(value) ? value : (about.kinds[0] ?? "pca")),
    selected: (value) => (value instanceof Int32Array ? value : array(Int32Array, value)).filter((row) => row >= 0 && row < n),
    compared: (value) => {
      const pair = (value ?? []).filter((name) => names.includes(name));
      const first = pair[0] ?? names[Math.max(0, about.baseline)];
      return [first, pair[1] ?? names.find((name) => name !== first) ?? first];
    },
    focus: (value) => (names.includes(value) ? value : (names.find((_, i) => i !== about.baseline) ?? names[0])),
    measure: (value) => (about.measures.includes(value) ? value : (about.measures[0] ?? "")),
  };
  for (const name of Object.keys(known)) state[name] = known[name](model.get(name));

  const same = (a, b) => a === b || (typeof a === "object" && a.length === b.length && a.every((value, i) => value === b[i]));
  const notify = (what, detail) => {
    for (const region of regions) region.update(what, detail);
  };

  /** Take a new value of a synced trait, tell the notebook and redraw what depends on it. */
  function change(name, value) {
    const next = known[name](value);
    if (same(next, state[name])) return;
    take(name, next);
    model.set(name, name === "selected" ? new DataView(next.slice().buffer) : next);
    model.save_changes();
  }
  function take(name, next) {
    if (name === "models" && next[0] !== state.models[0]) forget("sentence", 0); // representers are those of the first model shown
    state[name] = next;
    if (name === "colour") state.hidden.clear();
    if (name === "selected") state.open = next.length === 1 ? next[0] : next.includes(state.open) ? state.open : -1;
    if (name === "layer") clock.step();
    notify(name);
    if (name === "selected") {
      notify("open");
      say(next.length ? `${plural(next.length, "sentence")} selected` : "No sentence selected");
    }
  }
  for (const name of Object.keys(known)) {
    const changed = () => {
      const next = known[name](model.get(name));
      if (!same(next, state[name])) take(name, next);
    };
    model.on(`change:${name}`, changed);
    endings.push(() => model.off(`change:${name}`, changed));
  }
  function set(name, value) {
    if (state[name] === value) return;
    state[name] = value;
    notify(name);
  }

  /** The answer to an ask if it is here; asks for it once if it is not. */
  function answer(ask, send = true) {
    const key = keyOf(ask);
    const found = answers.get(key);
    if (!found && send && !(performance.now() - (waiting.get(key) ?? -Infinity) < AGAIN_MS)) {
      waiting.set(key, performance.now());
      model.send(ask);
    }
    return found;
  }
  const received = (content, buffers) => {
    if (!content || !content.give) return;
    const { give, ...rest } = content;
    if (give === "progress") {
      progress.set(`${content.model}/${content.layer}`, content);
      notify("progress", content);
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
      const kind = { map: Uint16Array, drift: Uint8Array }[give] ?? Float32Array;
      answers.set(key, { ...rest, data: buffers?.length ? array(kind, buffers[0]) : null });
      if (give === "sentence") forget("sentence", 300);
    }
    waiting.delete(key);
    notify("answer", what);
  };
  function forget(part, most) {
    const keys = [...answers.keys()].filter((key) => key.includes(`"${part}"`));
    for (const key of keys.slice(0, Math.max(0, keys.length - most))) answers.delete(key);
    if (!most) for (const key of [...waiting.keys()].filter((one) => one.includes(`"${part}"`))) waiting.delete(key);
  }
  model.on("msg:custom", received);
  endings.push(() => model.off("msg:custom", received));

  // One frame loop for everything that moves.
  const clock = {
    id: 0,
    stepped: null,
    drawers: [],
    ask() {
      if (!this.id) this.id = requestAnimationFrame((time) => this.frame(time));
    },
    step() {
      this.stepped = { layer: state.layer, painted: false };
      this.ask();
    },
    frame(time) {
      this.id = 0;
      let moving = false;
      for (const draw of this.drawers) moving = draw(time) || moving;
      const { stepped } = this;
      if (stepped && !stepped.painted) {
        stepped.painted = true;
        el.dispatchEvent(new CustomEvent("layerscope:painted", { detail: { layer: stepped.layer } }));
      }
      if (moving) this.ask();
      else if (stepped) {
        this.stepped = null;
        el.dispatchEvent(new CustomEvent("layerscope:settled", { detail: { layer: stepped.layer } }));
      }
    },
  };
  endings.push(() => cancelAnimationFrame(clock.id));

  // Colours follow the theme of the page.
  const root = h("div", { class: "lsc" });
  const theme = {};
  function readTheme() {
    root.dataset.theme = isDark(about.static) ? "dark" : "light";
    const style = getComputedStyle(root);
    const colour = (name) => rgb(style.getPropertyValue(name).trim());
    theme.dark = root.dataset.theme === "dark";
    theme.map = colour("--lsc-map");
    theme.ink = colour("--lsc-ink");
    theme.soft = colour("--lsc-soft");
    theme.none = colour("--lsc-none");
    theme.accent = colour("--lsc-accent");
    theme.categories = Array.from({ length: CATEGORIES }, (_, i) => colour(`--lsc-c${i}`));
    theme.sequential = ramp((theme.dark ? [...SEQUENTIAL].reverse() : SEQUENTIAL).map(rgb)); // more is further from the page's colour
    theme.points = (share) => theme.sequential(0.22 + 0.78 * share); // the palest would not be seen as points
    theme.diverging = ramp((theme.dark ? DIVERGING_DARK : DIVERGING).map((stop) => (stop === "middle" ? colour("--lsc-middle") : rgb(stop))));
    theme.font = style.fontFamily;
  }

  // Models: the baseline in ink, the others in colours, each with its own dash and marker.
  const others = names.map((_, i) => i).filter((i) => i !== about.baseline);
  const look = (i) => {
    if (i === about.baseline) return { colour: "var(--lsc-base)", dash: "", shape: 0 };
    const place = others.indexOf(i);
    const step = place + (about.baseline >= 0 ? 1 : 0); // solid lines and circles are the baseline's where there is one
    return { colour: `var(--lsc-m${place % MODEL_COLOURS})`, dash: DASHES[step % DASHES.length], shape: step % SHAPES.length };
  };
  function glyph(i, line = false) {
    const { colour, dash, shape } = look(i);
    const width = line ? 30 : 12;
    return s(
      "svg",
      { class: "lsc-glyph", width, height: 12, viewBox: `0 0 ${width} 12`, "aria-hidden": "true" },
      ...(line ? [s("line", { x1: 1, x2: width - 1, y1: 6, y2: 6, style: `stroke:${colour}`, "stroke-width": 2, "stroke-dasharray": dash })] : []),
      s("path", { d: SHAPES[shape](3.6), transform: `translate(${width / 2} 6)`, style: `fill:${colour}` }),
    );
  }

  const row = {
    language: (i) => about.languages[codes[i]] ?? "",
    label: (i) => about.labels[codes[n + i]] ?? "",
    predicted: (m, i) => about.classes[codes[(2 + m) * n + i]] ?? "",
  };
  const named = texts?.text.some((text) => text.trim()) ? null : texts?.id; // what stands for texts that there are none of
  const textOf = (i) => [texts?.text[i] || named?.[i] || "(empty text)", texts?.pair?.[i]].filter(Boolean).join(" | ");
  const sameId = new Map();
  if (texts) for (let i = 0; i < n; i++) sameId.has(texts.id[i]) ? sameId.get(texts.id[i]).push(i) : sameId.set(texts.id[i], [i]);
  const layerOf = (m) => Math.min(state.layer, Math.max(1, about.models[m].layers) - 1);

  const fullName = (m) => names[m] + (about.models[m].note ? `: ${about.models[m].note}` : "");

  const status = h("div", { class: "lsc-status", role: "status", "aria-live": "polite" });
  let said = 0;
  const say = (text) => {
    clearTimeout(said);
    said = setTimeout(() => (status.textContent = text), 80);
  };
  endings.push(() => clearTimeout(said));

  // One tooltip for all regions.
  const tip = h("div", { class: "lsc-tip", "aria-hidden": "true", hidden: true });
  function showTip(x, y, ...content) {
    tip.replaceChildren(...content);
    tip.hidden = false;
    const box = root.getBoundingClientRect();
    const [width, height] = [tip.offsetWidth, tip.offsetHeight];
    const left = x - box.left + (x - box.left + width + 24 > box.width ? -width - 14 : 14);
    const below = y + 16 + height < Math.min(window.innerHeight, box.bottom) || y - box.top < height + 16;
    tip.style.transform = `translate(${Math.round(clamp(left, 2, Math.max(2, box.width - width - 2)))}px, ${Math.round(y - box.top + (below ? 14 : -height - 12))}px)`;
  }
  const hideTip = () => (tip.hidden = true);

  const part = (name, title, ...tools) => {
    const head = h("div", { class: "lsc-head" }, h("h3", {}, title), ...tools);
    return h("section", { class: `lsc-part lsc-${name}`, "data-part": `lsc-${name}`, "aria-label": title }, head);
  };
  const picker = (label, className, options, value, picked) => {
    const select = h("select", { class: className, "aria-label": label, onchange: () => picked(select.value) });
    for (const option of options) select.append(h("option", { value: option.value, disabled: option.disabled }, option.text));
    select.value = value;
    const field = h("label", { class: "lsc-field" }, h("span", {}, label), select);
    return { field, select };
  };
  const note = (text) => words("p", "lsc-missing", text);
  const waits = () => h("p", { class: "lsc-dim lsc-late" }, "Waiting for the notebook…");
  /** A region that only says why it is empty. */
  const absent = (section, why) => {
    section.classList.add("lsc-absent");
    section.append(note(why));
    return { el: section, update() {} };
  };

  const ctx = {
    about, texts, n, codes, curves, layers, names, state, theme, row, sameId, el, root, clock, endings,
    change, set, notify, answer, progress, waiting, layerOf, fullName, look, glyph, say, showTip, hideTip, part, picker, note, absent, waits, textOf,
  };

  // Put together.
  const saved = model.get("parts");
  const wanted = (Array.isArray(saved) && saved.length ? saved : ["controls", "curves", "maps", "sentences", "alignment", "similarity"]).filter((name) => name in REGIONS);
  const head = h("header", { class: "lsc-top" });
  if (about.title) head.append(words("h2", "lsc-title", about.title));
  head.append(
    h("p", { class: "lsc-sub" }, [
      about.total > n ? `${count(n)} of ${plural(about.total, "sentence")}` : plural(n, "sentence"),
      plural(about.languages.length, "language"),
      about.labels.length ? plural(about.labels.length, "label") : null,
      plural(names.length, "model"),
    ].filter(Boolean).join(" · ")),
  );
  const notes = h("ul", { class: "lsc-notes" });
  const noted = () => {
    const list = model.get("about").notes ?? [];
    notes.replaceChildren(...list.map((text) => words("li", "lsc-note", text)));
    notes.hidden = !list.length;
  };
  head.append(notes);
  noted();
  model.on("change:about", noted);
  endings.push(() => model.off("change:about", noted));
  const grid = h("div", { class: "lsc-grid" });
  root.append(head);
  el.replaceChildren(root);
  readTheme();
  for (const name of wanted) {
    const region = REGIONS[name](ctx);
    regions.push(region);
    if (name === "controls") root.append(region.el);
    else grid.append(region.el);
  }
  root.append(grid, status, tip);
  const bar = root.querySelector(".lsc-controls");
  if (bar) bar.append(status);
  if (wanted.includes("sentences")) status.classList.add("lsc-unseen"); // the list shows it
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.defaultPrevented && event.target.tagName !== "SELECT") change("selected", new Int32Array(0));
  });

  const arrange = () => {
    const width = root.clientWidth;
    if (width) arrangeGrid(grid, wanted, width);
  };
  arrange();
  const sizes = new ResizeObserver(() => {
    themed(); // the element may have been drawn before it was in the page
    arrange();
    notify("size");
  });
  sizes.observe(root);
  endings.push(() => sizes.disconnect());

  const themed = () => {
    const before = JSON.stringify(theme);
    readTheme();
    if (JSON.stringify(theme) === before) return;
    cancelAnimationFrame(retheme); // in the next frame: while JupyterLab changes its theme nothing has a size
    retheme = requestAnimationFrame(() => notify("theme"));
  };
  let retheme = 0;
  endings.push(() => cancelAnimationFrame(retheme));

  // Plain keys pressed in here are not commands of JupyterLab, which would take them first ("d", "d" deletes a cell).
  const keyed = (event) => {
    if (root.contains(event.target)) event.target.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey || event.altKey));
  };
  window.addEventListener("keydown", keyed, { capture: true });
  endings.push(() => window.removeEventListener("keydown", keyed, { capture: true }));
  const watcher = new MutationObserver(themed);
  for (const node of [document.documentElement, document.body]) watcher.observe(node, { attributes: true, attributeFilter: ["class", "style", "theme", "data-theme", "data-jp-theme-light", "data-jp-theme-name", "data-vscode-theme-kind"] });
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", themed);
  endings.push(() => watcher.disconnect(), () => scheme.removeEventListener("change", themed));

  // The still picture that stands in for the explorer where no widgets run.
  let looks = 0;
  const hidePicture = () => {
    for (const picture of document.querySelectorAll(".lsc-picture")) if (about.token && picture.dataset.of === about.token) picture.style.display = "none";
    if (++looks >= 8) clearInterval(poll);
  };
  const poll = setInterval(hidePicture, 250);
  hidePicture();
  endings.push(() => clearInterval(poll));

  clock.ask();
  return () => {
    for (const end of endings) end();
    for (const region of regions) region.end?.();
    el.replaceChildren();
  };
}

/** Place the regions on twelve columns, for the room there is and the regions that are wanted. */
function arrangeGrid(grid, wanted, width) {
  const has = (...list) => list.filter((name) => wanted.includes(name));
  const row = (...cells) => `"${cells.flatMap(([name, span]) => Array(span).fill(name)).join(" ")}"`;
  const even = (list) => row(...list.map((name, i) => [name, Math.floor((12 * (i + 1)) / list.length) - Math.floor((12 * i) / list.length)]));
  const there = (name) => wanted.includes(name) && !grid.querySelector(`.lsc-${name}`).classList.contains("lsc-absent");
  const beside = there("maps") && there("sentences"); // then the list is as high as the maps
  const rows = [];
  const heights = [];
  const add = (line, height = "auto") => {
    rows.push(line);
    heights.push(height);
  };
  let mode = "wide";
  if (width < 900) {
    mode = "narrow";
    for (const name of has("curves", "maps", "sentences", "alignment", "similarity")) add(even([name]));
  } else if (width < 1560 || has("curves", "maps", "sentences").length < 3) {
    mode = "medium";
    const left = has("curves", "sentences");
    if (wanted.filter((name) => name !== "controls").join() === "curves,similarity") {
      add(row(["curves", 8], ["similarity", 4]));
    } else if (!has("maps").length) {
      if (left.length) add(even(left));
    } else if (!left.length) add(even(["maps"]));
    else if (left.length === 1) add(row([left[0], 5], ["maps", 7]));
    else {
      add(row(["curves", 5], ["maps", 7]));
      add(row(["sentences", 5], ["maps", 7]), beside ? "minmax(320px, 1fr)" : "1fr");
    }
    const below = has("alignment", "similarity").filter((name) => !rows.some((line) => line.includes(name)));
    if (below.length === 2) add(row(["alignment", 9], ["similarity", 3]));
    else if (below.length) add(even(below));
  } else {
    const under = has("similarity");
    add(row(["curves", 4], ["maps", 5], ["sentences", 3]));
    if (under.length) add(row(["similarity", 4], ["maps", 5], ["sentences", 3]), "minmax(0, 1fr)");
    if (has("alignment").length) add(even(["alignment"]));
  }
  grid.dataset.mode = mode;
  grid.classList.toggle("lsc-beside", mode !== "narrow" && beside);
  const areas = rows.join(" ");
  if (grid.dataset.areas === areas) return;
  grid.dataset.areas = areas;
  grid.style.gridTemplateAreas = areas;
  grid.style.gridTemplateRows = heights.join(" ");
  for (const child of grid.children) child.style.gridArea = child.dataset.part.replace("lsc-", "");
}

// ---------------------------------------------------------------------------------------------- layer slider

function controls(ctx) {
  const { layers, state, change, endings } = ctx;
  const el = h("div", { class: "lsc-part lsc-controls", "data-part": "lsc-controls", role: "group", "aria-label": "layer" });
  const slider = h("input", { class: "lsc-layer", type: "range", min: 0, max: Math.max(0, layers - 1), step: 1, "aria-label": "layer" });
  const shown = h("output", { class: "lsc-layer-text" });
  const icon = s("svg", { width: 12, height: 12, viewBox: "0 0 12 12", "aria-hidden": "true" }, s("path", { d: "", fill: "currentColor" }));
  const play = h("button", { class: "lsc-play", type: "button" }, icon);
  const marks = h("div", { class: "lsc-marks", "aria-hidden": "true" });
  let timer = 0;

  const set = (playing) => {
    clearInterval(timer);
    timer = 0;
    if (playing) {
      if (state.layer === layers - 1) change("layer", 0);
      timer = setInterval(() => {
        if (state.layer >= layers - 1) set(false);
        else {
          change("layer", state.layer + 1);
          if (state.layer === layers - 1) set(false);
        }
      }, PLAY_MS);
    }
    play.setAttribute("aria-label", playing ? "Pause" : "Play through the layers");
    play.setAttribute("aria-pressed", String(playing));
    play.title = playing ? "Pause" : "Play through the layers";
    icon.firstChild.setAttribute("d", playing ? "M2 1h3v10H2zM7 1h3v10H7z" : "M2.5 .8 11 6 2.5 11.2z");
  };
  play.addEventListener("click", () => set(!timer));
  slider.addEventListener("input", () => {
    set(false);
    change("layer", slider.valueAsNumber);
  });
  endings.push(() => clearInterval(timer));
  play.disabled = slider.disabled = layers < 2;

  const show = () => {
    slider.value = state.layer;
    const text = `layer ${state.layer} of ${layers - 1}`;
    slider.setAttribute("aria-valuetext", text);
    shown.replaceChildren(h("b", {}, `Layer ${state.layer}`), ` of ${layers - 1}`, state.layer === 0 ? h("small", {}, "embeddings") : "");
    slider.style.setProperty("--lsc-share", layers > 1 ? state.layer / (layers - 1) : 0);
  };
  const mark = () => {
    marks.replaceChildren(
      ...layerTicks(layers, Math.max(2, slider.clientWidth / 26)).map((layer) => {
        const one = h("span", {}, String(layer));
        one.style.left = layers > 1 ? `calc(8px + (100% - 16px) * ${layer / (layers - 1)})` : "8px";
        return one;
      }),
    );
  };
  el.append(play, shown, h("div", { class: "lsc-track" }, slider, marks));
  set(false);
  show();
  mark();
  return { el, update: (what) => (what === "layer" ? show() : what === "size" ? mark() : null) };
}

// ---------------------------------------------------------------------------------------------- curves

function curvesPart(ctx) {
  const { about, curves, layers, names, state, change, part, picker, note, look, glyph } = ctx;
  const probe = picker("Probe", "lsc-probe", about.probes.map((one) => ({ value: one.name, text: one.title || one.name })), state.probe, (value) => change("probe", value));
  const language = picker("Language", "lsc-language", about.curve_languages.map((one) => ({ value: one, text: one === "pooled" ? "pooled" : one })), state.language, (value) => change("language", value));
  const el = part("curves", "Curves", probe.field, ...(about.curve_languages.length > 1 ? [language.field] : []));
  const missing = about.missing?.curves ?? (about.probes.length ? null : "This comparison has no probe to draw.");
  if (missing) {
    probe.field.remove();
    language.field.remove();
    return ctx.absent(el, missing);
  }
  const label = h("p", { class: "lsc-ylabel" });
  const host = h("div", { class: "lsc-plot" });
  const legend = h("div", { class: "lsc-legend lsc-models-legend", role: "group", "aria-label": "models in the curves" });
  const ringNote = h("p", { class: "lsc-key" }, s("svg", { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true" }, s("circle", { r: 5, class: "lsc-ring-key" }), s("circle", { r: 2, class: "lsc-ring-dot" })), h("span", {}, ""));
  el.append(label, host, legend, ringNote);

  const C = about.curve_languages.length;
  const M = names.length;
  const at = (p, m, c, l, k) => curves[(((p * M + m) * C + c) * layers + l) * 4 + k];
  let drawn = null; // scales and marks of the last drawing
  let pointed = -1;

  function draw() {
    const width = host.clientWidth;
    if (!width) return;
    const p = about.probes.findIndex((one) => one.name === state.probe);
    const one = about.probes[p];
    const output = one.by === "output";
    language.select.disabled = output;
    language.field.title = output ? "This probe has no layers: all languages are drawn." : "";
    const better = { higher: "higher is better", lower: "lower is better" }[one.better];
    label.replaceChildren(words("b", "", one.title || one.name), ...(better ? [h("span", { class: "lsc-better" }, `${one.better === "higher" ? "↑" : "↓"} ${better}`)] : []));

    const c = Math.max(0, about.curve_languages.indexOf(state.language));
    const slots = output ? C : layers;
    const value = (m, i, k) => (output ? at(p, m, i, 0, k) : i < about.models[m].layers ? at(p, m, c, i, k) : NaN);
    const shown = names.map((_, m) => m).filter((m) => !state.muted.has(m));
    let [low, high] = [Infinity, -Infinity];
    let rings = false;
    for (const m of shown)
      for (let i = 0; i < slots; i++) {
        for (let k = 0; k < 3; k++) {
          const v = value(m, i, k);
          if (Number.isFinite(v)) [low, high] = [Math.min(low, v), Math.max(high, v)];
        }
        rings ||= value(m, i, 3) < 0.05;
      }
    const empty = !(low <= high);
    if (empty) [low, high] = [0, 1];
    if (high - low < 1e-9) [low, high] = [low - Math.max(0.05, Math.abs(low) * 0.05), high + Math.max(0.05, Math.abs(high) * 0.05)];
    const room = (high - low) * 0.06;
    [low, high] = [low - room, high + room];

    const height = clamp(Math.round(width * 0.56), 220, 330);
    const grid = ticks(low, high, 5);
    const marks = grid.values.map((v) => v.toFixed(grid.digits).replace("-", "−"));
    const left = Math.max(30, 10 + 6.8 * Math.max(...marks.map((text) => text.length)));
    const [right, top, bottom] = [14, 10, 40];
    const gap = output ? (width - left - right) / slots : (width - left - right - 16) / Math.max(1, slots - 1);
    const x = output ? (i) => left + gap * (i + 0.5) : (i) => (slots === 1 ? (left + width - right) / 2 : left + 8 + gap * i);
    const y = (v) => top + ((high - v) / (high - low)) * (height - top - bottom);
    const svg = s("svg", { class: "lsc-curve", width, height, viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "group" });
    svg.setAttribute("aria-label", `${one.title || one.name}, ${output ? "by language" : `by layer, ${state.language}`}${better ? `, ${better}` : ""}. Arrow keys read the values${output ? "" : ", Enter sets the layer"}.`);
    grid.values.forEach((v, i) => {
      svg.append(s("line", { class: "lsc-gridline", x1: left, x2: width - right, y1: Math.round(y(v)) + 0.5, y2: Math.round(y(v)) + 0.5 }), textAt(left - 8, y(v) + 4, marks[i], "end"));
    });
    const base = height - bottom;
    if (output) {
      const tight = Math.max(...about.curve_languages.map((name) => name.length)) * 6.6 > gap - 4;
      about.curve_languages.forEach((name, i) => {
        const text = textAt(x(i), base + 17, name.length > 9 ? `${name.slice(0, 8)}…` : name, tight ? "end" : "middle");
        if (tight) text.setAttribute("transform", `rotate(-35 ${x(i)} ${base + 14})`);
        svg.append(text);
      });
      if (!tight) svg.append(textAt((left + width - right) / 2, height - 5, "language", "middle", "lsc-axis"));
    } else {
      for (const i of layerTicks(slots, Math.max(2, (width - left - right) / 26))) svg.append(textAt(x(i), base + 17, String(i), "middle"));
      svg.append(textAt((left + width - right) / 2, height - 5, "layer (0: embeddings)", "middle", "lsc-axis"));
    }
    svg.append(s("line", { class: "lsc-baseline", x1: left, x2: width - right, y1: base + 0.5, y2: base + 0.5 }));

    const now = s("g", { class: "lsc-now" }, s("line", { y1: top - 4, y2: base }), s("path", { d: `M-5 ${base + 1}h10l-5 -6z` }));
    const guide = s("line", { class: "lsc-guide", y1: top, y2: base, visibility: "hidden" });
    svg.append(guide);
    if (!output) svg.append(now);
    const bands = s("g", {});
    const lines = s("g", {});
    const points = s("g", {});
    const dodge = output ? Math.min(12, (gap * 0.72) / Math.max(1, shown.length)) : 0;
    shown.forEach((m, place) => {
      const { colour, dash, shape } = look(m);
      const shift = output ? (place - (shown.length - 1) / 2) * dodge : 0;
      let path = "";
      let run = [];
      const closeBand = () => {
        if (run.length > 1) bands.append(s("path", { class: "lsc-band", style: `fill:${colour}`, d: `M${run.map((i) => `${x(i)} ${y(value(m, i, 2))}`).join("L")}L${[...run].reverse().map((i) => `${x(i)} ${y(value(m, i, 1))}`).join("L")}Z` }));
        else if (run.length === 1) bar(run[0]);
        run = [];
      };
      const bar = (i) => lines.append(s("line", { style: `stroke:${colour}`, "stroke-width": 1.5, x1: x(i) + shift, x2: x(i) + shift, y1: y(value(m, i, 1)), y2: y(value(m, i, 2)) }));
      let open = false;
      for (let i = 0; i < slots; i++) {
        const v = value(m, i, 0);
        const interval = Number.isFinite(value(m, i, 1)) && Number.isFinite(value(m, i, 2)) && Number.isFinite(v);
        if (output) {
          if (interval) bar(i);
        } else if (interval) run.push(i);
        else closeBand();
        if (!Number.isFinite(v)) {
          open = false;
          continue;
        }
        path += `${open ? "L" : "M"}${x(i)} ${y(v)}`;
        open = true;
        const many = slots > 40 && !output;
        if (!many) points.append(s("path", { class: "lsc-mark", d: SHAPES[shape](3), transform: `translate(${x(i) + shift} ${y(v)})`, style: `fill:${colour}` }));
        if (value(m, i, 3) < 0.05) points.append(s("circle", { class: "lsc-ring", cx: x(i) + shift, cy: y(v), r: 6, style: `stroke:${colour}` }));
      }
      closeBand();
      if (!output && path) lines.append(s("path", { class: "lsc-line", d: path, style: `stroke:${colour}`, "stroke-dasharray": dash }));
    });
    svg.append(bands, lines, points);
    if (empty) svg.append(textAt((left + width - right) / 2, height / 2 - 10, shown.length ? "No values for this choice." : "All models are switched off.", "middle", "lsc-axis"));
    host.replaceChildren(svg);
    host.style.height = `${height}px`;
    ringNote.style.visibility = rings ? "visible" : "hidden";
    ringNote.lastChild.textContent = about.baseline >= 0 ? `differs from ${names[about.baseline]}, adjusted p < 0.05; bands: 95 % intervals` : "adjusted p < 0.05; bands: 95 % intervals";
    drawn = { svg, now, guide, x, y, value, shown, slots, output, gap };
    place();

    const nearest = (event) => {
      const px = event.clientX - svg.getBoundingClientRect().left;
      return clamp(Math.round(output ? (px - left) / gap - 0.5 : slots === 1 ? 0 : (px - left - 8) / gap), 0, slots - 1);
    };
    svg.addEventListener("pointermove", (event) => point(nearest(event), event));
    svg.addEventListener("pointerleave", () => point(-1));
    svg.addEventListener("blur", () => point(-1));
    svg.addEventListener("click", (event) => !output && change("layer", nearest(event)));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) {
        const from = pointed >= 0 ? pointed : output ? (step > 0 ? -1 : slots) : state.layer;
        point(clamp(from + step, 0, slots - 1));
        ctx.say(reading(pointed));
      } else if ((event.key === "Enter" || event.key === " ") && !output) change("layer", pointed >= 0 ? pointed : state.layer);
      else if (event.key === "Escape") point(-1);
      else return;
      event.preventDefault();
    });
  }
  function textAt(x, y, text, anchor, name = "lsc-tick") {
    return s("text", { class: name, x, y, "text-anchor": anchor }, text);
  }
  const place = () => drawn && !drawn.output && drawn.now.setAttribute("transform", `translate(${drawn.x(state.layer)} 0)`);
  const slotName = (i) => (drawn.output ? about.curve_languages[i] : i === 0 ? "layer 0 (embeddings)" : `layer ${i}`);
  const reading = (i) => `${slotName(i)}: ${drawn.shown.map((m) => `${names[m]} ${number(drawn.value(m, i, 0))}`).join(", ")}`;
  function point(i, event) {
    if (!drawn) return;
    pointed = i;
    if (i < 0) {
      drawn.guide.setAttribute("visibility", "hidden");
      ctx.hideTip();
      return;
    }
    drawn.guide.setAttribute("visibility", "visible");
    for (const end of ["x1", "x2"]) drawn.guide.setAttribute(end, drawn.x(i));
    const table = h("table", {});
    for (const m of drawn.shown) {
      const [v, low, high, p] = [0, 1, 2, 3].map((k) => drawn.value(m, i, k));
      table.append(
        h("tr", {}, h("td", {}, glyph(m)), words("th", "", names[m]), h("td", { class: "lsc-num" }, number(v)), h("td", { class: "lsc-num lsc-dim" }, Number.isFinite(low) ? `[${number(low)}, ${number(high)}]` : ""), h("td", { class: "lsc-dim" }, Number.isFinite(p) ? `p ${probability(p)}` : "")),
      );
    }
    const box = drawn.svg.getBoundingClientRect();
    ctx.showTip(event?.clientX ?? box.left + drawn.x(i), box.bottom - 28, h("b", {}, slotName(i)), table); // under the axis: covers no line
  }
  const paintLegend = () =>
    legend.replaceChildren(
      ...names.map((name, m) => {
        const item = h("button", { class: "lsc-item", type: "button", "aria-pressed": String(!state.muted.has(m)), title: ctx.fullName(m) }, glyph(m, true), words("span", "lsc-name", name));
        item.addEventListener("click", () => {
          state.muted.has(m) ? state.muted.delete(m) : state.muted.add(m);
          item.setAttribute("aria-pressed", String(!state.muted.has(m)));
          draw();
        });
        return item;
      }),
    );
  paintLegend();
  return {
    el,
    update(what) {
      if (what === "layer") place();
      else if (what === "probe" || what === "language") {
        probe.select.value = state.probe;
        language.select.value = state.language;
        draw();
      } else if (what === "size" && host.clientWidth && (!drawn || Number(drawn.svg.getAttribute("width")) !== host.clientWidth)) draw();
    },
  };
}

// ---------------------------------------------------------------------------------------------- maps

function mapsPart(ctx) {
  const { about, texts, n, codes, names, state, theme, row, change, set, answer, part, picker, note, glyph, clock, endings } = ctx;
  const colourOptions = ["label", "language", "prediction", "drift", "representer"].map((value) => ({ value, text: COLOUR_NAMES[value], disabled: !about.colours.includes(value) }));
  const colour = picker("Colour", "lsc-colour", colourOptions, state.colour, (value) => change("colour", value));
  const kind = picker("Projection", "lsc-kind", ["pca", "umap"].map((value) => ({ value, text: value.toUpperCase(), disabled: !about.kinds.includes(value) })), state.kind, (value) => change("kind", value));
  const zooms = h(
    "div",
    { class: "lsc-zoom", role: "group", "aria-label": "zoom of all maps" },
    h("button", { class: "lsc-zoom-in", type: "button", "aria-label": "Zoom in", title: "Zoom in", onclick: () => zoom(1.5) }, "+"),
    h("button", { class: "lsc-zoom-out", type: "button", "aria-label": "Zoom out", title: "Zoom out", onclick: () => zoom(1 / 1.5) }, "−"),
  );
  const reset = h("button", { class: "lsc-reset", type: "button", title: "Show everything again", onclick: () => view(1, 0, 0) }, "Reset view");
  zooms.append(reset);
  const el = part("maps", "Maps", colour.field, kind.field, zooms);
  if (about.missing?.maps) {
    for (const tool of [colour.field, kind.field, zooms]) tool.remove();
    return ctx.absent(el, about.missing.maps);
  }
  const choices = h("div", { class: "lsc-choices" });
  const chooser = h("div", { class: "lsc-chooser", role: "group", "aria-label": "models shown as maps" }, h("span", { class: "lsc-dim" }, "Models shown"), choices);
  const grid = h("div", { class: "lsc-mapgrid" });
  const legend = h("div", { class: "lsc-legend lsc-categories", role: "group", "aria-label": "categories" });
  const repeats = h("p", { class: "lsc-dim lsc-repeats", hidden: true }, `Colours repeat after ${CATEGORIES}, each time with another shape.`);
  const foot = h("div", { class: "lsc-foot" }, repeats);
  if (names.length > 1) el.append(chooser);
  el.append(grid, legend, foot);
  const absent = ["label", "predictions", "drift", "representers", "umap"].filter((name) => about.missing?.[name]);
  if (absent.length) foot.append(h("details", { class: "lsc-why" }, h("summary", {}, "What is not available, and why"), h("ul", {}, ...absent.map((name) => h("li", {}, h("b", {}, `${name}: `), words("span", "", about.missing[name]))))));

  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const order = shuffled(n);
  const selected = new Uint8Array(n);
  let maps = [];
  let start = -1; // time the present movement began, or -1
  let dirty = true;
  let stamps = { key: "" };
  let palette = null;
  let lasso = null;
  let held = null; // the answer whose representers colour the maps

  // --- which maps there are
  function choose() {
    const focused = [...choices.querySelectorAll("input")].indexOf(document.activeElement);
    choices.replaceChildren(
      ...names.map((name, m) => {
        const box = h("input", { type: "checkbox", class: "lsc-show-model", "aria-label": `show ${name}` });
        box.checked = state.models.includes(name);
        box.disabled = (!box.checked && state.models.length >= 4) || (box.checked && state.models.length === 1);
        box.addEventListener("change", () => change("models", names.filter((other) => (other === name ? box.checked : state.models.includes(other)))));
        return h("label", { class: "lsc-check", title: box.disabled && !box.checked ? "At most four maps at a time" : ctx.fullName(m) }, box, glyph(m), words("span", "lsc-name", name));
      }),
    );
    choices.querySelectorAll("input")[focused]?.focus();
  }
  function build() {
    const before = new Map(maps.map((map) => [map.m, map]));
    for (const map of maps) map.observer.unobserve(map.stage);
    maps = state.models.map((name) => {
      const m = names.indexOf(name);
      return before.get(m) ?? makeMap(m);
    });
    grid.replaceChildren(...maps.map((map) => map.el));
    grid.dataset.count = maps.length;
    for (const map of maps) map.observer.observe(map.stage);
    size();
  }
  const observer = new ResizeObserver(() => size());
  endings.push(() => observer.disconnect());
  function makeMap(m) {
    const canvas = h("canvas", { class: "lsc-points", "aria-hidden": "true" });
    const over = h("canvas", { class: "lsc-over", tabindex: 0, role: "application", "aria-label": `map of ${names[m]}: ${plural(n, "sentence")}. Arrow keys go from point to point, Enter selects, Escape clears, plus and minus zoom.` });
    const stage = h("div", { class: "lsc-stage" }, canvas, over);
    const caption = words("span", "lsc-caption", "");
    const bar = h("progress", { class: "lsc-progress", hidden: true, "aria-label": "UMAP progress" });
    const wait = h("div", { class: "lsc-wait", hidden: true });
    stage.append(wait);
    const figure = h("figure", { class: "lsc-map", "data-model": names[m] }, h("figcaption", {}, h("div", { class: "lsc-map-title", title: ctx.fullName(m) }, glyph(m), words("span", "lsc-name", names[m]), words("span", "lsc-map-note lsc-dim", about.models[m].note ?? "")), h("div", { class: "lsc-map-sub" }, caption, bar)), stage);
    const map = { m, el: figure, stage, canvas, over, caption, bar, wait, observer, pen: canvas.getContext("2d", { alpha: false }), ring: over.getContext("2d"), from: new Float32Array(2 * n), now: new Float32Array(2 * n), to: new Float32Array(2 * n), has: false, source: null, image: null, width: 0, height: 0, scale: 1 };
    listen(map);
    return map;
  }
  function size() {
    const ratio = window.devicePixelRatio || 1;
    for (const map of maps) {
      const [width, height] = [map.stage.clientWidth, map.stage.clientHeight];
      if (!width || !height) continue;
      const [w, hgt] = [Math.round(width * ratio), Math.round(height * ratio)];
      if (map.canvas.width !== w || map.canvas.height !== hgt || !map.image) {
        for (const canvas of [map.canvas, map.over]) [canvas.width, canvas.height] = [w, hgt];
        map.image = map.pen.createImageData(w, hgt);
      }
      Object.assign(map, { width, height, ratio });
    }
    redraw();
  }
  const resized = () => size();
  window.addEventListener("resize", resized);
  endings.push(() => window.removeEventListener("resize", resized));
  const redraw = () => {
    dirty = true;
    clock.ask();
  };

  // --- where points go
  function aim() {
    let moved = false;
    for (const map of maps) {
      const layer = ctx.layerOf(map.m);
      const pca = answer({ ask: "map", model: map.m, kind: "pca" });
      const umap = state.kind === "umap" ? answer({ ask: "map", model: map.m, kind: "umap", layer }, false) : null;
      const [source, offset] = umap?.data ? [umap.data, 0] : pca?.data ? [pca.data, 2 * n * layer] : [null, 0];
      describe(map, layer, pca, umap);
      if (!source || source.length < offset + 2 * n) continue;
      if (map.source === source && map.offset === offset) continue;
      Object.assign(map, { source, offset });
      map.from.set(map.now);
      const { to } = map;
      for (let i = 0; i < 2 * n; i++) to[i] = source[offset + i] / 32767.5 - 1;
      if (!map.has || calm.matches) map.now.set(to);
      if (map.has && !calm.matches) moved = map.moving = true;
      map.has = true;
    }
    if (moved) start = -2; // begins with the next frame
    redraw();
  }
  const askUmap = debounced(() => {
    if (state.kind === "umap") for (const map of maps) answer({ ask: "map", model: map.m, kind: "umap", layer: ctx.layerOf(map.m) });
  }, WAIT_MS);
  const again = setInterval(askUmap, 10000); // asks that the notebook dropped or lost; what is there is not asked for
  endings.push(() => askUmap.cancel(), () => clearInterval(again));
  function describe(map, layer, pca, umap) {
    const last = about.models[map.m].layers - 1;
    const parts = [];
    if (state.layer > last) parts.push(`its last layer, ${last}`);
    map.el.classList.toggle("lsc-ended", state.layer > last);
    const going = ctx.progress.get(`${map.m}/${layer}`);
    let done = null;
    if (state.kind === "umap" && umap?.data) parts.push("UMAP");
    else {
      const share = pca?.explained?.[layer];
      const text = Number.isFinite(share) ? `PCA, ${percent(share)} of the variance` : "PCA";
      if (state.kind !== "umap") parts.push(text);
      else if (umap?.why) parts.push(`${text}. ${umap.why}`);
      else {
        parts.push("PCA until UMAP is ready");
        done = going?.of ? going.done / going.of : 0;
      }
    }
    map.caption.textContent = parts.join(" · ");
    map.caption.title = map.caption.textContent;
    map.bar.hidden = done === null;
    if (done !== null) map.bar.value = done;
    const why = pca?.why;
    map.wait.hidden = Boolean(pca?.data) || (map.has && !why);
    map.wait.textContent = why ?? "Waiting for the notebook…";
    map.wait.classList.toggle("lsc-late", !why);
  }

  // --- colours: one table of colours a map, a code a point
  function paletteOf() {
    const kindOf = state.colour;
    if (kindOf === "drift") {
      const found = maps.map((map) => answer({ ask: "drift", model: map.m }));
      const high = Math.max(...found.map((one) => one?.high ?? 0)) || 1;
      const tables = found.map((one) => table(256, (code) => (code === 255 ? theme.none : theme.points(((code / 254) * (one?.high ?? 0)) / high))));
      return { bar: true, high, why: found.find((one) => one?.why)?.why, pending: found.some((one) => !one), tables, none: 255, most: (map, place, i) => palette.codes(map, place)?.[i] === 254, read: (map, place, i) => { const code = palette.codes(map, place)?.[i] ?? 255; return code === 255 ? NaN : (code / 254) * found[place].high; }, codes: (map, i) => (found[i]?.data ? found[i].data.subarray(n * ctx.layerOf(map.m), n * (ctx.layerOf(map.m) + 1)) : null) };
    }
    if (kindOf === "representer") {
      const fresh = state.open >= 0 ? answer({ ask: "sentence", row: state.open, layer: state.layer }, false) : null;
      if (fresh || held?.row !== state.open) held = fresh; // the former layer's values stay until the new ones are here
      const open = held;
      const values = open?.data;
      let high = 0;
      const each = new Uint8Array(n).fill(255);
      if (values) {
        for (let i = 0; i < n; i++) if (Number.isFinite(values[i])) high = Math.max(high, Math.abs(values[i]));
        for (let i = 0; i < n; i++) if (Number.isFinite(values[i])) each[i] = Math.round(127 + (127 * values[i]) / (high || 1));
      }
      const colours = table(256, (code) => (code === 255 ? theme.none : theme.diverging(code / 254)));
      return { bar: true, diverging: true, values, high, model: open?.representers?.model, open: state.open, why: open && !values ? (open.why ?? "There are no representers for this sentence.") : null, tables: maps.map(() => colours), none: 255, codes: () => each };
    }
    const naming = { label: about.labels, language: about.languages, prediction: about.classes }[kindOf] ?? [];
    const place = (i) => {
      const found = kindOf === "prediction" ? about.labels.indexOf(naming[i]) : i;
      return found >= 0 ? found : about.labels.length + i;
    };
    const colours = table(naming.length + 1, (code) => (code === naming.length ? theme.none : theme.categories[place(code) % CATEGORIES]), (code) => (code === naming.length ? 0 : Math.floor(place(code) / CATEGORIES) % SHAPES.length));
    const read = (from) => {
      const each = new Uint16Array(n);
      for (let i = 0; i < n; i++) each[i] = codes[from + i] >= 0 ? codes[from + i] : naming.length;
      return each;
    };
    const shared = { label: () => read(n), language: () => read(0) }[kindOf]?.() ?? null;
    const each = maps.map((map) => shared ?? (kindOf === "prediction" ? read((2 + map.m) * n) : new Uint16Array(n)));
    return { naming, tables: maps.map(() => colours), none: naming.length, codes: (_, i) => each[i], noneName: { label: "no label", language: "no language", prediction: "no prediction" }[kindOf] ?? "sentences" };
  }
  function table(length, colourOf, shapeOf = () => 0) {
    const colours = new Uint8Array(3 * length);
    const shapes = new Uint8Array(length);
    for (let code = 0; code < length; code++) {
      colours.set(colourOf(code), 3 * code);
      shapes[code] = shapeOf(code);
    }
    return { colours, shapes };
  }
  function recolour() {
    palette = paletteOf();
    paintLegend();
    redraw();
  }
  const hiddenCode = (code) => !palette.bar && state.hidden.has(code);
  const visible = (i, place) => palette.bar || !state.hidden.size || !state.hidden.has(palette.codes(maps[place], place)?.[i]);

  // --- drawing: points are stamped into an image, thousands a millisecond, the same in every browser
  function stampOf(shape, large, ratio) {
    const radius = (clamp(4.6 - 0.55 * Math.log(Math.max(n, 100) / 100), 1.5, 4.6) + (large ? 0.9 : 0)) * ratio;
    const key = `${radius}`;
    stamps[key] ??= [];
    return (stamps[key][shape] ??= stamp(shape, radius));
  }
  function drawPoints(map, place) {
    const { image, now, width, height, ratio } = map;
    if (!image) return;
    const { data } = image;
    const [W, H] = [image.width, image.height];
    new Uint32Array(data.buffer).fill((255 << 24) | (theme.map[2] << 16) | (theme.map[1] << 8) | theme.map[0]);
    if (map.has && palette) {
      const each = palette.codes(map, place);
      const { colours, shapes } = palette.tables[place];
      const chosen = state.selected.length > 0 && state.colour !== "representer"; // there the values say what stands out
      const scale = (Math.min(width, height) / 2) * 0.95 * state.view.k * ratio;
      const [ox, oy] = [W / 2 - state.view.x * scale, H / 2 + state.view.y * scale];
      const strong = n > 8000 ? 170 : n > 800 ? 205 : 230;
      const passes = chosen || palette.bar ? [0, 1] : [1];
      for (const pass of passes) {
        for (let o = 0; o < n; o++) {
          const i = order[o];
          const code = each ? each[i] : palette.none;
          const isNone = code === palette.none;
          // first what stays behind: without a value, or not selected
          const front = chosen ? selected[i] === 1 : !(palette.bar && isNone);
          if (passes.length === 2 && front !== (pass === 1)) continue;
          if (hiddenCode(code)) continue;
          const px = Math.floor((ox + now[2 * i] * scale) * 4);
          const py = Math.floor((oy - now[2 * i + 1] * scale) * 4);
          const { half, side, masks } = stampOf(shapes[code] ?? 0, chosen && pass === 1, ratio);
          const x0 = (px >> 2) - half;
          const y0 = (py >> 2) - half;
          if (x0 >= W || y0 >= H || x0 + side <= 0 || y0 + side <= 0) continue;
          const mask = masks[((py & 3) << 2) | (px & 3)];
          const alpha = pass === 0 ? (chosen ? 34 : 110) : chosen ? 245 : isNone ? 140 : strong;
          const [r, g, b] = [colours[3 * code], colours[3 * code + 1], colours[3 * code + 2]];
          const [xa, xb] = [Math.max(0, -x0), Math.min(side, W - x0)];
          const [ya, yb] = [Math.max(0, -y0), Math.min(side, H - y0)];
          for (let yy = ya; yy < yb; yy++) {
            let at = ((y0 + yy) * W + x0 + xa) * 4;
            for (let k = yy * side + xa; k < yy * side + xb; k++, at += 4) {
              const cover = mask[k];
              if (!cover) continue;
              const a = cover * alpha;
              data[at] += ((r - data[at]) * a) / 65025;
              data[at + 1] += ((g - data[at + 1]) * a) / 65025;
              data[at + 2] += ((b - data[at + 2]) * a) / 65025;
            }
          }
        }
      }
    }
    map.pen.putImageData(image, 0, 0);
  }
  function screen(map, i) {
    const scale = (Math.min(map.width, map.height) / 2) * 0.95 * state.view.k;
    return [map.width / 2 + (map.now[2 * i] - state.view.x) * scale, map.height / 2 - (map.now[2 * i + 1] - state.view.y) * scale];
  }
  function drawOver(map) {
    const pen = map.ring;
    if (!map.width) return;
    pen.setTransform(map.ratio, 0, 0, map.ratio, 0, 0);
    pen.clearRect(0, 0, map.width, map.height);
    if (!map.has) return;
    const ring = (i, radius, width) => {
      const [x, y] = screen(map, i);
      for (const [colourOf, extra] of [[theme.map, 2.5], [theme.ink, 0]]) {
        pen.beginPath();
        pen.arc(x, y, radius, 0, 2 * Math.PI);
        pen.strokeStyle = css(colourOf);
        pen.lineWidth = width + extra;
        pen.stroke();
      }
    };
    if (state.open >= 0) ring(state.open, 8, 2);
    if (state.hover >= 0 && state.hover !== state.open) ring(state.hover, 7, 1.5);
    if (lasso?.map === map && lasso.moved) {
      pen.beginPath();
      lasso.path.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.closePath();
      pen.fillStyle = `rgb(${theme.accent.join(" ")} / 0.12)`;
      pen.fill();
      pen.strokeStyle = css(theme.accent);
      pen.lineWidth = 1.5;
      pen.setLineDash([5, 3]);
      pen.stroke();
      pen.setLineDash([]);
    }
  }
  clock.drawers.push((time) => {
    if (start === -2) start = time - 12; // the first frame already moves
    const share = start >= 0 ? clamp((time - start) / MOVE_MS, 0, 1) : 1;
    if (start >= 0) {
      const eased = 1 - (1 - share) ** 3;
      for (const map of maps) {
        if (!map.moving) continue;
        const { from, to, now } = map;
        if (share >= 1) {
          now.set(to);
          map.moving = false;
        } else for (let i = 0; i < 2 * n; i++) now[i] = from[i] + (to[i] - from[i]) * eased;
      }
    }
    if (dirty || start >= 0) maps.forEach((map, place) => drawPoints(map, place));
    maps.forEach(drawOver);
    dirty = false;
    if (share >= 1) start = -1;
    return start >= 0;
  });

  // --- pointer and keyboard
  function nearest(map, x, y, reach) {
    const place = maps.indexOf(map);
    const scale = (Math.min(map.width, map.height) / 2) * 0.95 * state.view.k;
    const [ox, oy] = [map.width / 2 - state.view.x * scale, map.height / 2 + state.view.y * scale];
    let [best, found] = [reach * reach, -1];
    const chosen = state.selected.length > 0;
    for (let i = 0; i < n; i++) {
      const dx = ox + map.now[2 * i] * scale - x;
      const dy = oy - map.now[2 * i + 1] * scale - y;
      // where points overlap, a selected one is drawn on top and is meant first
      const distance = (dx * dx + dy * dy) * (chosen && !selected[i] ? 1.5 : 1);
      if (distance < best && visible(i, place)) [best, found] = [distance, i];
    }
    return found;
  }
  function describeRow(i) {
    const lines = [words("p", "lsc-tip-text", ctx.textOf(i))];
    lines.push(h("p", { class: "lsc-dim" }, ...joined([words("span", "", texts?.id[i] ?? ""), words("span", "", row.language(i)), row.label(i) ? words("span", "", row.label(i)) : null])));
    if (palette.values && Number.isFinite(palette.values[i])) lines.push(h("p", {}, `representer value ${number(palette.values[i])}`));
    const list = h("table", {});
    maps.forEach((map, place) => {
      const predicted = row.predicted(map.m, i);
      const drift = state.colour === "drift" ? palette.read(map, place, i) : NaN;
      if (!predicted && !Number.isFinite(drift)) return;
      const line = h("tr", {}, h("td", {}, glyph(map.m)), words("th", "", names[map.m]));
      if (predicted) line.append(words("td", row.label(i) && predicted !== row.label(i) ? "lsc-wrong" : "", predicted));
      if (Number.isFinite(drift)) line.append(h("td", { class: "lsc-num" }, `drift ${palette.most(map, place, i) ? "≥ " : ""}${number(drift)}`));
      list.append(line);
    });
    if (list.children.length) lines.push(list);
    return lines;
  }
  function hover(map, i, event) {
    if (i >= 0) state.lastHover = i;
    set("hover", i);
    if (i < 0) return ctx.hideTip();
    const box = map.stage.getBoundingClientRect();
    const [x, y] = screen(map, i);
    ctx.showTip(event?.clientX ?? box.left + x, event?.clientY ?? box.top + y, ...describeRow(i));
  }
  function pick(rows, add) {
    change("selected", add ? Int32Array.from(new Set([...state.selected, ...rows])).sort() : Int32Array.from(rows));
  }
  const clear = () => {
    lasso = null;
    change("selected", new Int32Array(0));
    redraw();
  };
  function listen(map) {
    const { over } = map;
    const where = (event) => {
      const box = over.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    over.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      over.setPointerCapture(event.pointerId);
      lasso = { map, path: [where(event)], moved: false, add: event.shiftKey };
    });
    over.addEventListener("pointermove", (event) => {
      const [x, y] = where(event);
      if (!lasso) return hover(map, map.has ? nearest(map, x, y, NEAR) : -1, event);
      const [lx, ly] = lasso.path.at(-1);
      if (Math.hypot(x - lx, y - ly) < (lasso.moved ? 2 : 4)) return;
      lasso.moved = true;
      lasso.path.push([x, y]);
      hover(map, -1);
      clock.ask();
    });
    over.addEventListener("pointerup", (event) => {
      if (lasso?.map !== map) return;
      const { path, moved, add } = lasso;
      lasso = null;
      if (moved) pick(inside(map, path), add);
      else {
        const i = nearest(map, ...where(event), NEAR);
        if (i >= 0) pick([i], add);
      }
      clock.ask();
    });
    over.addEventListener("pointercancel", () => {
      lasso = null;
      clock.ask();
    });
    over.addEventListener("pointerleave", () => !lasso && hover(map, -1));
    over.addEventListener("dblclick", clear);
    over.addEventListener("blur", () => hover(map, -1));
    over.addEventListener(
      "wheel",
      (event) => {
        // a page that is being scrolled goes on scrolling when a map comes under the pointer
        if (event.timeStamp - elsewhere < 300 || (event.deltaY > 0 && state.view.k <= 1)) {
          elsewhere = event.timeStamp;
          return;
        }
        event.preventDefault();
        const [x, y] = where(event);
        zoom(Math.exp(-clamp(event.deltaY, -120, 120) / 300), map, x, y);
      },
      { passive: false },
    );
    over.addEventListener("keydown", (event) => {
      const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (way) stepTo(map, way);
      else if (event.key === "Enter" || event.key === " ") {
        if (state.hover >= 0) pick([state.hover], event.shiftKey);
      } else if (event.key === "Escape") clear();
      else if (event.key === "+" || event.key === "=") zoom(1.5);
      else if (event.key === "-") zoom(1 / 1.5);
      else if (event.key === "0") view(1, 0, 0);
      else return;
      event.preventDefault();
    });
  }
  let elsewhere = -1000; // time of the last wheel event outside the maps
  const wheeled = (event) => {
    if (!event.target.classList?.contains("lsc-over")) elsewhere = event.timeStamp;
  };
  document.addEventListener("wheel", wheeled, { passive: true, capture: true });
  endings.push(() => document.removeEventListener("wheel", wheeled, { capture: true }));

  function stepTo(map, [dx, dy]) {
    if (!map.has) return;
    const place = maps.indexOf(map);
    let next = state.hover;
    if (next < 0) next = nearest(map, map.width / 2, map.height / 2, Infinity);
    else {
      const [x, y] = screen(map, next);
      let best = Infinity;
      for (let i = 0; i < n; i++) {
        if (i === state.hover || !visible(i, place)) continue;
        const [px, py] = screen(map, i);
        const along = (px - x) * dx + (py - y) * dy;
        const across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
        if (along <= 0.5 || across > 2 * along) continue;
        if (along + 2 * across < best) [best, next] = [along + 2 * across, i];
      }
    }
    hover(map, next);
    ctx.say(`${ctx.textOf(next)} ${row.language(next)} ${row.label(next)}`);
  }
  function inside(map, path) {
    const place = maps.indexOf(map);
    const found = [];
    const xs = path.map((at) => at[0]);
    const ys = path.map((at) => at[1]);
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    if (!map.has) return found;
    for (let i = 0; i < n; i++) {
      const [x, y] = screen(map, i);
      if (x < x0 || x > x1 || y < y0 || y > y1 || !visible(i, place)) continue;
      let within = false;
      for (let a = 0, b = path.length - 1; a < path.length; b = a++) if (ys[a] > y !== ys[b] > y && x < ((xs[b] - xs[a]) * (y - ys[a])) / (ys[b] - ys[a]) + xs[a]) within = !within;
      if (within) found.push(i);
    }
    return found;
  }
  function view(k, x, y) {
    state.view = { k, x: clamp(x, -1, 1), y: clamp(y, -1, 1) };
    reset.disabled = k === 1 && x === 0 && y === 0;
    redraw();
  }
  function zoom(factor, map = maps[0], px = map.width / 2, py = map.height / 2) {
    const k = clamp(state.view.k * factor, 1, 40);
    if (k <= 1.001) return view(1, 0, 0);
    const unit = (Math.min(map.width, map.height) / 2) * 0.95;
    const [dx, dy] = [(px - map.width / 2) / unit, (map.height / 2 - py) / unit];
    view(k, state.view.x + dx / state.view.k - dx / k, state.view.y + dy / state.view.k - dy / k);
  }

  // --- legend
  function paintLegend() {
    legend.classList.toggle("lsc-bar", Boolean(palette.bar));
    repeats.hidden = true;
    if (palette.bar) {
      const scaleOf = palette.diverging ? theme.diverging : theme.points;
      const strip = h("span", { class: "lsc-strip" });
      strip.style.background = `linear-gradient(90deg, ${Array.from({ length: 12 }, (_, i) => css(scaleOf(i / 11))).join(", ")})`;
      const [low, high] = palette.diverging ? [-palette.high, palette.high] : [0, palette.high];
      const title = palette.diverging ? "representer value" : "1 − cosine to the baseline";
      const asks = palette.diverging && palette.open < 0 ? "Open a sentence to colour the training sentences that speak for and against it." : palette.pending ? "Waiting for the notebook…" : palette.why;
      if (asks) legend.replaceChildren(words("span", "lsc-dim", asks));
      else legend.replaceChildren(h("span", {}, title), h("span", { class: "lsc-num" }, number(low)), strip, h("span", { class: "lsc-num" }, number(high)), words("span", "lsc-dim", palette.diverging ? `orange: against, blue: for${palette.model ? ` · ${palette.model}` : ""}` : ""));
      return;
    }
    const sums = new Map();
    for (let i = 0; i < n; i++) {
      const code = palette.codes(maps[0], 0)[i];
      sums.set(code, (sums.get(code) ?? 0) + 1);
    }
    const { colours, shapes } = palette.tables[0];
    const item = (code, name) => {
      const sign = s("svg", { class: "lsc-glyph", width: 12, height: 12, viewBox: "-6 -6 12 12", "aria-hidden": "true" }, s("path", { d: SHAPES[shapes[code]](4), fill: css(colours.subarray(3 * code, 3 * code + 3)) }));
      const button = h("button", { class: "lsc-item", type: "button", "aria-pressed": String(!state.hidden.has(code)), title: `${name}: hide or show` }, sign, words("span", "lsc-name", name), state.colour === "prediction" ? null : h("span", { class: "lsc-dim lsc-num" }, count(sums.get(code) ?? 0)));
      button.addEventListener("click", () => {
        state.hidden.has(code) ? state.hidden.delete(code) : state.hidden.add(code);
        button.setAttribute("aria-pressed", String(!state.hidden.has(code)));
        all.hidden = !state.hidden.size;
        redraw();
      });
      return button;
    };
    const all = h("button", { class: "lsc-all", type: "button", hidden: !state.hidden.size, onclick: () => {
      state.hidden.clear();
      paintLegend();
      redraw();
      legend.querySelector("button")?.focus();
    } }, "Show all");
    legend.replaceChildren(...palette.naming.map((name, code) => item(code, name)), ...(sums.has(palette.none) ? [item(palette.none, palette.noneName)] : []), all);
    repeats.hidden = palette.naming.length <= CATEGORIES;
  }

  const reselect = () => {
    selected.fill(0);
    for (const i of state.selected) selected[i] = 1;
    redraw();
  };

  choose();
  build();
  reselect();
  view(1, 0, 0);
  aim();
  askUmap();
  recolour();
  return {
    el,
    update(what, detail) {
      if (what === "layer") {
        aim();
        askUmap();
        if (state.colour === "drift" || state.colour === "representer") palette = paletteOf();
      } else if (what === "models") {
        choose();
        build();
        aim();
        askUmap();
        recolour();
      } else if (what === "kind") {
        kind.select.value = state.kind;
        aim();
        askUmap();
      } else if (what === "colour") {
        colour.select.value = state.colour;
        recolour();
      } else if (what === "selected") reselect();
      else if (what === "open") {
        if (state.colour === "representer") recolour();
        else clock.ask();
      } else if (what === "hover") clock.ask();
      else if (what === "answer") {
        if (detail === "map") aim();
        else if (detail === "drift" && state.colour === "drift") recolour();
        else if (detail === "sentence" && state.colour === "representer") recolour();
      } else if (what === "progress") {
        for (const map of maps) describe(map, ctx.layerOf(map.m), answer({ ask: "map", model: map.m, kind: "pca" }, false), state.kind === "umap" ? answer({ ask: "map", model: map.m, kind: "umap", layer: ctx.layerOf(map.m) }, false) : null);
      } else if (what === "theme") recolour();
      else if (what === "size") size();
    },
  };
}

/** A fixed random order of the rows, so that no category always covers another. */
function shuffled(n) {
  const order = new Uint32Array(n).map((_, i) => i);
  let seed = 1;
  for (let i = n - 1; i > 0; i--) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((seed / 4294967296) * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/** Pieces of a line with a middle dot between them. */
function joined(pieces) {
  const kept = pieces.filter(Boolean);
  return kept.flatMap((piece, i) => (i ? [" · ", piece] : [piece]));
}

// ---------------------------------------------------------------------------------------------- sentences

function sentencesPart(ctx) {
  const { about, texts, n, names, state, row, change, set, answer, part, note, glyph, endings } = ctx;
  const clearing = h("button", { class: "lsc-clear", type: "button", hidden: true, onclick: () => change("selected", new Int32Array(0)) }, "Clear selection");
  const sum = h("span", { class: "lsc-count" });
  const el = part("sentences", "Sentences", sum, clearing);
  if (about.missing?.sentences || !texts) return ctx.absent(el, about.missing?.sentences ?? "There are no texts to show.");
  const scroller = h("div", { class: "lsc-scroll" });
  const list = h("ul", { class: "lsc-list" });
  const after = h("div", {});
  scroller.append(list, after);
  el.append(h("div", { class: "lsc-scrollbox" }, scroller));
  const unfolded = new Set([others()[0] ?? 0]);
  function others() {
    return names.map((_, i) => i).filter((i) => i !== about.baseline);
  }

  const ask = debounced(() => {
    if (state.open >= 0) answer({ ask: "sentence", row: state.open, layer: state.layer });
  }, WAIT_MS);
  endings.push(() => ask.cancel());

  const browse = !(ctx.root && model_has_maps());
  function model_has_maps() {
    return !about.missing?.maps;
  }
  function rowsNow() {
    if (state.selected.length) return [...state.selected.subarray(0, LISTED)];
    if (state.open >= 0) return [state.open];
    if (state.lastHover >= 0) return [state.lastHover];
    return browse ? Array.from({ length: Math.min(n, LISTED) }, (_, i) => i) : [];
  }
  let drawnRows = "";
  function draw() {
    const rows = rowsNow();
    const total = state.selected.length || rows.length;
    sum.textContent = state.selected.length ? `${count(total)} selected` : rows.length === 1 && state.open < 0 ? "last pointed at" : "";
    clearing.hidden = !state.selected.length;
    after.replaceChildren();
    if (!rows.length) after.append(h("p", { class: "lsc-hint" }, "Point at a map to read a sentence. Click one to keep it, or draw around several; with Shift they are added. Escape or a double click clears."));
    if (state.selected.length > LISTED) after.append(h("p", { class: "lsc-more" }, `and ${count(state.selected.length - LISTED)} more`));
    if (browse && !state.selected.length && n > LISTED) after.append(h("p", { class: "lsc-more" }, `and ${count(n - LISTED)} more`));
    const key = rows.join();
    if (key !== drawnRows) {
      drawnRows = key;
      list.replaceChildren(...rows.map(item));
      if (state.selected.length) scroller.scrollTop = 0;
    }
    for (const one of list.children) mark(one);
  }
  function item(i) {
    const head = h("button", { class: "lsc-sentence", type: "button", "aria-expanded": "false", "data-row": i }, words("span", "lsc-text", ctx.textOf(i)), h("span", { class: "lsc-meta" }, ...joined([words("span", "lsc-id", texts.id[i]), words("span", "lsc-lang", row.language(i)), row.label(i) ? words("span", "lsc-label", row.label(i)) : null])), predictions(i));
    head.addEventListener("click", () => open(state.open === i ? -1 : i));
    head.addEventListener("pointerenter", () => set("hover", i));
    head.addEventListener("pointerleave", () => set("hover", -1));
    return h("li", { "data-row": i }, head);
  }
  function predictions(i) {
    if (!about.classes.length) return "";
    const given = names.map((_, m) => row.predicted(m, i));
    const some = given.filter(Boolean);
    if (!some.length) return "";
    const label = row.label(i);
    const base = about.baseline >= 0 ? given[about.baseline] : "";
    const wrong = (text) => label && text !== label;
    const box = h("span", { class: "lsc-predictions" });
    if (names.length > 1 && some.length === names.length && new Set(some).size === 1) {
      box.append(h("span", { class: "lsc-dim" }, "all models predict "), words("span", wrong(some[0]) ? "lsc-wrong" : "", some[0]));
      return box;
    }
    given.forEach((text, m) => {
      if (!text) return;
      const differs = m !== about.baseline && base && text !== base;
      const one = h("span", { class: `lsc-prediction${differs ? " lsc-differs" : ""}`, title: `${names[m]}: ${text}${wrong(text) ? ", differs from the label" : ""}${differs ? ", differs from the baseline" : ""}` }, glyph(m), words("span", wrong(text) ? "lsc-wrong" : "", text));
      if (differs) one.append(h("span", { class: "lsc-flag", "aria-label": "differs from the baseline" }, "≠"));
      box.append(one);
    });
    return box;
  }
  function open(i) {
    state.open = i;
    ask();
    ctx.notify("open");
  }
  function mark(one) {
    const i = Number(one.dataset.row);
    const isOpen = i === state.open;
    one.firstChild.setAttribute("aria-expanded", String(isOpen));
    one.classList.toggle("lsc-open", isOpen);
    if (!isOpen) one.querySelector(".lsc-detail")?.remove();
    else if (!one.querySelector(".lsc-detail")) one.append(h("div", { class: "lsc-detail" }));
    if (isOpen) detail(one.querySelector(".lsc-detail"), i);
  }
  let shownAnswer = null;
  function detail(box, i) {
    const ask = { ask: "sentence", row: i, layer: state.layer };
    const got = answer(ask, false);
    if (got && box.childElementCount && shownAnswer === got && !box.classList.contains("lsc-stale")) return;
    if (!got && box.childElementCount) {
      box.classList.add("lsc-stale"); // the former layer's, until the new answer is here
      return;
    }
    shownAnswer = got ?? null;
    const keepFocus = document.activeElement?.closest?.("summary")?.dataset.model;
    box.classList.remove("lsc-stale");
    box.replaceChildren(translations(i), neighbours(got), representers(got));
    if (keepFocus !== undefined) box.querySelector(`summary[data-model="${keepFocus}"]`)?.focus();
  }
  const link = (i, extra, ...before) => {
    const button = h("button", { class: `lsc-link ${extra}`, type: "button", "data-row": i }, ...before, words("span", "lsc-lang", row.language(i)), words("span", "lsc-text", ctx.textOf(i)));
    button.addEventListener("pointerenter", () => set("hover", i));
    button.addEventListener("pointerleave", () => set("hover", -1));
    button.addEventListener("focus", () => set("hover", i));
    button.addEventListener("blur", () => set("hover", -1));
    button.addEventListener("click", () => {
      if (!state.selected.includes(i)) {
        change("selected", Int32Array.of(i));
        el.querySelector(".lsc-sentence")?.focus();
      } else open(i);
    });
    return h("li", {}, button);
  };
  const block = (title, ...content) => h("div", { class: "lsc-block" }, h("h4", {}, title), ...content);
  function translations(i) {
    if (about.missing?.translations) return block("Translations", note(about.missing.translations));
    const rows = (ctx.sameId.get(texts.id[i]) ?? []).filter((other) => other !== i);
    if (!rows.length) return block("Translations", h("p", { class: "lsc-dim" }, "None among the sentences shown."));
    const shown = rows.slice(0, 60);
    return block("Translations", h("ul", { class: "lsc-rows" }, ...shown.map((other) => link(other, ""))), rows.length > 60 ? h("p", { class: "lsc-dim" }, `and ${count(rows.length - 60)} more`) : null);
  }
  function neighbours(got) {
    const title = `Nearest sentences, layer ${state.layer}`;
    if (!got) return block(title, ctx.waits());
    if (got.why && !got.neighbours) return block(title, note(got.why));
    const box = block(title);
    for (const one of got.neighbours ?? []) {
      const m = one.model;
      const kept = one.found.filter((other) => other.state === "kept").length;
      const gained = one.found.filter((other) => other.state === "gained").length;
      const isBase = m === about.baseline || about.baseline < 0;
      const summary = h("summary", { "data-model": m }, glyph(m), words("span", "lsc-name", names[m]), h("span", { class: "lsc-dim" }, isBase ? plural(one.found.length, "sentence") : `${kept} kept, ${gained} gained, ${one.lost.length} lost`));
      const fold = h("details", { class: "lsc-neighbours", "data-model": m }, summary);
      fold.open = unfolded.has(m);
      fold.addEventListener("toggle", () => (fold.open ? unfolded.add(m) : unfolded.delete(m)));
      const sign = (mark, name) => h("span", { class: `lsc-sign lsc-${name || "same"}`, role: "img", "aria-label": name || "neighbour", title: name }, mark);
      fold.append(
        h("ul", { class: "lsc-rows" },
          ...one.found.map((other) => link(other.row, "", sign({ kept: "=", gained: "+" }[other.state] ?? "·", other.state), ...(Number.isFinite(other.cosine) ? [h("span", { class: "lsc-num lsc-dim", title: "cosine" }, other.cosine.toFixed(2))] : []))),
          ...(one.lost ?? []).map((other) => link(other, "lsc-gone", sign("−", "lost"))),
        ),
      );
      box.append(fold);
    }
    if (about.models.some((one) => one.layers - 1 < state.layer)) box.append(h("p", { class: "lsc-dim" }, "A model with fewer layers answers with its last."));
    return box;
  }
  function representers(got) {
    if (about.missing?.representers) return block("Representers", note(about.missing.representers));
    if (!got || (got.why && !got.neighbours)) return "";
    if (!got.representers) return got.why ? block("Representers", note(got.why)) : "";
    const { model, target, excitatory, inhibitory } = got.representers;
    const side = (name, listed, title) =>
      h("div", { class: `lsc-side lsc-${name}` }, h("h5", {}, title), listed.length ? h("ul", { class: "lsc-rows" }, ...listed.map((one) => {
        const inner = [h("span", { class: "lsc-num" }, number(one.value)), words("span", "lsc-lang", one.language ?? ""), words("span", "lsc-text", one.text || "(empty text)"), words("span", "lsc-dim lsc-of", one.label ?? "")];
        if (!(one.row >= 0)) return h("li", {}, h("div", { class: "lsc-link" }, ...inner));
        const entry = link(one.row, "");
        entry.firstChild.replaceChildren(...inner);
        return entry;
      })) : h("p", { class: "lsc-dim" }, "none"));
    return block("Representers", h("p", { class: "lsc-dim" }, "training sentences behind ", words("span", "", model), "’s prediction ", words("b", "", target)), side("for", excitatory, "for"), side("against", inhibitory, "against"));
  }

  draw();
  if (state.selected.length === 1) state.open = state.selected[0];
  draw();
  ask();
  return {
    el,
    update(what, kind) {
      if (what === "selected" || what === "open") {
        draw();
        ask();
      } else if (what === "hover") {
        if (!state.selected.length && state.open < 0 && state.hover >= 0 && !el.contains(document.activeElement) && !el.matches(":hover")) draw();
      } else if (what === "layer" || what === "models") {
        if (state.open >= 0) {
          draw();
          ask();
        }
      } else if (what === "answer" && kind === "sentence") draw();
    },
  };
}

// ---------------------------------------------------------------------------------------------- heat maps

/** A matrix drawn on a canvas: hover and arrow keys read its cells, click and Enter pick one. */
function heat(ctx, { label, read, picked }) {
  const { theme } = ctx;
  const canvas = h("canvas", { class: "lsc-heat", tabindex: 0, role: "img" });
  const strip = h("div", { class: "lsc-scale", "aria-hidden": "true" });
  const title = words("p", "lsc-heat-title", "");
  const host = h("div", { class: "lsc-heatbox" }, title, canvas, strip);
  let given = null;
  let shape = null;
  let cursor = null;

  function draw() {
    if (!given) return;
    const width = host.clientWidth;
    if (!width) return;
    const { values, rows, columns, low, high, diverging, frame, rowTitle, columnTitle } = given;
    const ratio = window.devicePixelRatio || 1;
    const pen = canvas.getContext("2d");
    const family = theme.font;
    pen.font = `11px ${family}`;
    const cut = (text) => (text.length > 10 ? `${text.slice(0, 9)}…` : text);
    const left = Math.ceil(Math.max(...rows.map((name) => pen.measureText(cut(name)).width), 8)) + 8;
    const cell = clamp((width - left - 2) / columns.length, 2, 54);
    const longest = Math.max(...columns.map((name) => pen.measureText(cut(name)).width));
    const numeric = columns.every((name) => /^\d+$/.test(name));
    const upright = longest > cell - 3 && !numeric;
    const [top, bottom] = [18, (upright ? longest + 8 : 18) + 16];
    const height = top + cell * rows.length + bottom;
    canvas.style.width = `${left + cell * columns.length + 2}px`;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round((left + cell * columns.length + 2) * ratio);
    canvas.height = Math.round(height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const scaleOf = diverging ? theme.diverging : theme.sequential;
    const digits = high - low < 0.05 ? 3 : 2;
    const small = `${cell >= 30 ? 11 : 9.5}px ${family}`;
    pen.font = small;
    const texts = rows.length <= 12 && columns.length <= 12 ? Array.from(values, (v) => short(v, digits)) : [];
    const printed = texts.length > 0 && Math.max(...texts.map((text) => pen.measureText(text).width)) <= cell - 2;
    const gap = cell > 8 ? 1 : 0;
    for (let r = 0; r < rows.length; r++)
      for (let c = 0; c < columns.length; c++) {
        const v = values[r * columns.length + c];
        const [x, y] = [left + c * cell, top + r * cell];
        if (!Number.isFinite(v)) {
          pen.fillStyle = css(theme.map);
          pen.fillRect(x, y, cell - gap, cell - gap);
          continue;
        }
        const colour = scaleOf(high > low ? (v - low) / (high - low) : 0.5);
        pen.fillStyle = css(colour);
        pen.fillRect(x, y, cell - gap, cell - gap);
        if (printed) {
          pen.fillStyle = luminance(colour) > 0.19 ? "#111" : "#fff";
          pen.font = small;
          pen.textAlign = "center";
          pen.textBaseline = "middle";
          pen.fillText(texts[r * columns.length + c], x + (cell - gap) / 2, y + cell / 2 + 0.5);
        }
      }
    pen.font = `11px ${family}`;
    pen.fillStyle = css(theme.soft);
    const everyRow = Math.max(1, Math.ceil(12 / cell));
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    rows.forEach((name, r) => r % everyRow === 0 && pen.fillText(cut(name), left - 6, top + (r + 0.5) * cell));
    const everyColumn = Math.max(1, Math.ceil((upright ? 12 : longest + 4) / cell));
    columns.forEach((name, c) => {
      if (c % everyColumn) return;
      const x = left + (c + 0.5) * cell - gap / 2;
      const y = top + rows.length * cell + 5;
      pen.textBaseline = upright ? "middle" : "top";
      if (upright) {
        pen.save();
        pen.translate(x, y);
        pen.rotate(-Math.PI / 2);
        pen.textAlign = "right";
        pen.fillText(cut(name), 0, 0);
        pen.restore();
      } else {
        pen.textAlign = "center";
        pen.fillText(cut(name), x, y);
      }
    });
    pen.textBaseline = "alphabetic";
    pen.textAlign = "left";
    pen.fillText(fit(pen, `↓ ${rowTitle}`, cell * columns.length), left, 11);
    pen.textAlign = "right";
    pen.fillText(fit(pen, `${columnTitle} →`, left + cell * columns.length), left + cell * columns.length, height - 3);
    if (frame) outline(pen, left + frame[1] * cell, top + frame[0] * cell, cell - gap, css(theme.ink));
    if (cursor) outline(pen, left + cursor[1] * cell, top + cursor[0] * cell, cell - gap, css(theme.accent));
    shape = { left, top, cell };
    const steps = Array.from({ length: 12 }, (_, i) => css(scaleOf(i / 11))).join(", ");
    const ribbon = h("span", { class: "lsc-strip" });
    ribbon.style.background = `linear-gradient(90deg, ${steps})`;
    strip.replaceChildren(h("span", { class: "lsc-num" }, number(low)), ribbon, h("span", { class: "lsc-num" }, number(high)));
    const sum = [...values].filter(Number.isFinite);
    canvas.setAttribute("aria-label", `${label}: ${rowTitle} by ${columnTitle}, ${sum.length ? `mean ${number(sum.reduce((a, b) => a + b, 0) / sum.length)}, from ${number(sum.reduce((a, b) => Math.min(a, b)))} to ${number(sum.reduce((a, b) => Math.max(a, b)))}` : "no values"}. Arrow keys read the cells.`);
  }
  function outline(pen, x, y, side, colour) {
    pen.lineWidth = 4;
    pen.strokeStyle = css(theme.map);
    pen.strokeRect(x, y, side, side);
    pen.lineWidth = 2;
    pen.strokeStyle = colour;
    pen.strokeRect(x, y, side, side);
  }
  const cellAt = (event) => {
    if (!shape || !given) return null;
    const box = canvas.getBoundingClientRect();
    const c = Math.floor((event.clientX - box.left - shape.left) / shape.cell);
    const r = Math.floor((event.clientY - box.top - shape.top) / shape.cell);
    return r >= 0 && c >= 0 && r < given.rows.length && c < given.columns.length ? [r, c] : null;
  };
  const valueAt = ([r, c]) => given.values[r * given.columns.length + c];
  canvas.addEventListener("pointermove", (event) => {
    const at = cellAt(event);
    canvas.style.cursor = at && picked ? "pointer" : "default";
    if (at) ctx.showTip(event.clientX, event.clientY, words("span", "", read(given, ...at, valueAt(at))));
    else ctx.hideTip();
  });
  canvas.addEventListener("pointerleave", () => ctx.hideTip());
  canvas.addEventListener("click", (event) => {
    const at = cellAt(event);
    if (at) picked?.(given, ...at);
  });
  canvas.addEventListener("keydown", (event) => {
    if (!given) return;
    const way = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (way) {
      const from = cursor ?? given.frame ?? [0, 0];
      cursor = [clamp(from[0] + way[0], 0, given.rows.length - 1), clamp(from[1] + way[1], 0, given.columns.length - 1)];
      draw();
      ctx.say(read(given, ...cursor, valueAt(cursor)));
    } else if ((event.key === "Enter" || event.key === " ") && picked) picked(given, ...(cursor ?? given.frame ?? [0, 0]));
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("blur", () => {
    cursor = null;
    draw();
  });
  return {
    el: host,
    draw,
    set(next) {
      given = next;
      title.replaceChildren(...next.title);
      draw();
    },
  };
}

/** A value for a cell of a heat map: ".83", "−.12", "1.0". */
function short(v, digits) {
  if (!Number.isFinite(v)) return "";
  const text = Math.abs(v) < 9.95 ? v.toFixed(digits) : v.toFixed(0);
  if (Number(text) === 0) return "0";
  return (Math.abs(Number(text)) < 1 ? text.replace("0.", ".") : Math.abs(v) < 9.95 ? v.toFixed(1) : text).replace("-", "−");
}

function fit(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  let cut = text;
  while (cut.length > 4 && pen.measureText(`${cut}…`).width > width) cut = cut.slice(0, -1);
  return `${cut}…`;
}

function range(...lists) {
  let [low, high] = [Infinity, -Infinity];
  for (const list of lists) for (const v of list) if (Number.isFinite(v)) [low, high] = [Math.min(low, v), Math.max(high, v)];
  return low <= high ? [low, high] : [0, 1];
}

function alignmentPart(ctx) {
  const { about, names, state, change, answer, part, picker, note, glyph } = ctx;
  const model = picker("Model", "lsc-focus", names.map((name) => ({ value: name, text: name })), state.focus, (value) => change("focus", value));
  const el = part("alignment", "Alignment of languages", model.field);
  if (about.missing?.alignment) {
    model.field.remove();
    return ctx.absent(el, about.missing.alignment);
  }
  const measured = words("p", "lsc-dim lsc-measured", "");
  const body = h("div", { class: "lsc-heats" });
  const message = h("div", { hidden: true });
  el.append(measured, body, message);
  const read = (given, r, c, v) => `${given.rows[r]} ↔ ${given.columns[c]}: ${r === c && !Number.isFinite(v) ? "the same language" : number(v)}`;
  const maps = ["one", "base", "gap"].map((name) => {
    const map = heat(ctx, { label: { one: "alignment of the chosen model", base: "alignment of the baseline", gap: "difference to the baseline" }[name], read });
    map.el.classList.add(`lsc-heat-${name}`);
    return map;
  });
  body.append(...maps.map((map) => map.el));

  const asks = () => {
    const i = names.indexOf(state.focus);
    return [i, about.baseline >= 0 && about.baseline !== i ? about.baseline : -1];
  };
  let drawn = false;
  const askOf = (m) => ({ ask: "alignment", model: m, layer: ctx.layerOf(m) });
  const ask = debounced(() => {
    for (const m of asks()) if (m >= 0) answer(askOf(m));
    draw();
  }, WAIT_MS);
  ctx.endings.push(() => ask.cancel());
  function draw() {
    const [i, b] = asks();
    const one = answer(askOf(i), false);
    const base = b >= 0 ? answer(askOf(b), false) : null;
    const why = one?.why;
    const ready = one?.data && (b < 0 || base);
    drawn ||= Boolean(ready);
    body.hidden = Boolean(why) || !drawn;
    message.hidden = !body.hidden;
    if (body.hidden) message.replaceChildren(why ? note(why) : ctx.waits());
    body.classList.toggle("lsc-stale", !ready);
    if (!ready) return;
    measured.textContent = one.title ?? "";
    const [low, high] = range(one.data, base?.data ?? []);
    const named = (m) => {
      const name = words("span", "lsc-name", names[m]);
      name.title = ctx.fullName(m);
      return name;
    };
    const titles = (m) => [glyph(m), named(m), h("span", { class: "lsc-dim" }, `layer ${ctx.layerOf(m)}`)];
    const common = { rowTitle: "language", columnTitle: "other language", low, high };
    maps[0].set({ ...common, title: titles(i), values: one.data, rows: one.languages, columns: one.languages });
    const pair = Boolean(base?.data);
    maps[1].el.hidden = maps[2].el.hidden = !pair;
    if (!pair) return;
    maps[1].set({ ...common, title: titles(b), values: base.data, rows: base.languages, columns: base.languages });
    const equal = base.languages.join("\n") === one.languages.join("\n");
    maps[2].el.hidden = !equal;
    if (!equal) return;
    const gap = one.data.map((v, k) => v - base.data[k]);
    const most = Math.max(...range(gap).map(Math.abs)) || 1;
    maps[2].set({ ...common, low: -most, high: most, diverging: true, title: [h("span", { class: "lsc-name" }, "difference"), h("span", { class: "lsc-dim" }, "model − baseline")], values: gap, rows: one.languages, columns: one.languages });
  }
  ask();
  return {
    el,
    update(what, kind) {
      if (what === "layer" || what === "focus") {
        model.select.value = state.focus;
        ask();
      } else if (what === "answer" && kind === "alignment") draw();
      else if (what === "theme" || what === "size") for (const map of maps) map.draw();
    },
  };
}

function similarityPart(ctx) {
  const { about, names, state, change, answer, part, picker, note } = ctx;
  const options = names.map((name) => ({ value: name, text: name }));
  const one = picker("Rows", "lsc-one", options, state.compared[0], (value) => change("compared", [value, state.compared[1]]));
  const other = picker("Columns", "lsc-other", options, state.compared[1], (value) => change("compared", [state.compared[0], value]));
  const measure = picker("Measure", "lsc-measure", about.measures.map((name) => ({ value: name, text: name })), state.measure, (value) => change("measure", value));
  const el = part("similarity", "Similarity of layers");
  if (about.missing?.similarity) return ctx.absent(el, about.missing.similarity);
  const message = h("div", { hidden: true });
  const read = (given, r, c, v) => `${given.first} layer ${r}, ${given.second} layer ${c}: ${number(v)}`;
  const map = heat(ctx, { label: "similarity of layers", read, picked: (_, r) => change("layer", r) });
  el.append(h("div", { class: "lsc-tools" }, measure.field, one.field, other.field), map.el, message);
  let drawn = false;
  const current = () => ({ ask: "similarity", one: names.indexOf(state.compared[0]), other: names.indexOf(state.compared[1]), measure: state.measure });
  function draw(send) {
    const ask = current();
    const got = answer(ask, send);
    drawn ||= Boolean(got?.data);
    map.el.hidden = Boolean(got?.why) || !drawn;
    message.hidden = !map.el.hidden;
    if (map.el.hidden) message.replaceChildren(got?.why ? note(got.why) : ctx.waits());
    map.el.classList.toggle("lsc-stale", !got);
    if (!got?.data) return;
    const numbers = (m) => Array.from({ length: about.models[m].layers }, (_, i) => String(i));
    const [low, high] = range(got.data);
    const text = got.title ? [words("span", "lsc-dim", got.title)] : [];
    map.set({ title: text, values: got.data, rows: numbers(ask.one), columns: numbers(ask.other), first: state.compared[0], second: state.compared[1], rowTitle: state.compared[0], columnTitle: state.compared[1], low, high, frame: [ctx.layerOf(ask.one), ctx.layerOf(ask.other)] });
  }
  draw(true);
  const later = debounced(() => draw(false), 60);
  ctx.endings.push(() => later.cancel());
  return {
    el,
    update(what, kind) {
      if (what === "layer") later();
      else if (what === "compared" || what === "measure") {
        [one.select.value, other.select.value] = state.compared;
        measure.select.value = state.measure;
        draw(true);
      } else if (what === "answer" && kind === "similarity") draw(false);
      else if (what === "theme" || what === "size") map.draw();
    },
  };
}

const REGIONS = { controls, curves: curvesPart, maps: mapsPart, sentences: sentencesPart, alignment: alignmentPart, similarity: similarityPart };

export default { render };
