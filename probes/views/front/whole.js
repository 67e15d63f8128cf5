// The whole: it names all regions, and comes last.

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

const REGIONS = { controls, curves: curvesPart, maps: mapsPart, sentences: sentencesPart, alignment: alignmentPart, similarity: similarityPart };
