// The colours of the maps: a palette is one table of colours and shapes a map and one code a point; and their legend.

const NO_VALUE = 255; // the code of a point without a value, where colours are a scale

/** The palette of the chosen colour. codes(map, place): the code of each row, null where they are not here yet. */
function paletteOf(panel) {
  const { colour } = panel.view.state;
  if (colour === "drift") return driftPalette(panel);
  if (colour === "representer") return representerPalette(panel);
  return categoryPalette(panel, colour);
}

function driftPalette({ view, maps }) {
  const { n, theme } = view;
  const found = maps.map((map) => answer(view, { ask: "drift", model: map.m }));
  const common = Math.max(...found.map((one) => one?.high ?? 0)) || 1;
  const ends = found.map((one) => (view.state.ownScale ? one?.high || 1 : common));
  const held = []; // codes of a map at a layer
  const codes = (map, place) => {
    const layer = layerOf(view, map.m);
    const one = found[place];
    if (!one?.data) return null;
    if (held[place]?.layer !== layer) held[place] = { layer, codes: driftCodes(one, n * layer, n, ends[place]) };
    return held[place].codes;
  };
  return {
    bar: true,
    drift: true,
    ends,
    end: view.state.ownScale ? null : common,
    none: NO_VALUE,
    why: found.find((one) => one?.why)?.why,
    pending: found.some((one) => !one),
    tables: found.map(() => scaleTable(theme, theme.points)),
    codes,
    read: (map, place, i) => (found[place]?.data ? driftAt(found[place], n * layerOf(view, map.m) + i) : NaN),
  };
}

const NO_DRIFT = 65535; // the code of a sentence without a drift; the most has the one before
const driftAt = ({ data, most }, at) => (data[at] === NO_DRIFT ? NaN : (data[at] / (NO_DRIFT - 1)) * most);

/** The codes of colours, which end at a value. */
function driftCodes(one, from, n, end) {
  return Uint8Array.from({ length: n }, (_, i) => {
    const value = driftAt(one, from + i);
    return Number.isFinite(value) ? Math.round(clamp(value / end, 0, 1) * (NO_VALUE - 1)) : NO_VALUE;
  });
}

function representerPalette(panel) {
  const { view, maps } = panel;
  const { n, state, theme } = view;
  const ask = { ask: "sentence", row: state.open, layer: state.layer };
  const fresh = state.open >= 0 ? answer(view, ask, false) : null;
  // the former layer's values stay until the new ones are here
  if (fresh || panel.held?.row !== state.open) panel.held = fresh;
  const open = panel.held;
  const values = open?.data;
  let high = 0;
  const each = new Uint8Array(n).fill(NO_VALUE);
  if (values) {
    for (let i = 0; i < n; i++) if (Number.isFinite(values[i])) high = Math.max(high, Math.abs(values[i]));
    for (let i = 0; i < n; i++) {
      if (Number.isFinite(values[i])) each[i] = Math.round(127 + (127 * values[i]) / (high || 1));
    }
  }
  const table = scaleTable(theme, theme.diverging);
  return {
    bar: true,
    diverging: true,
    none: NO_VALUE,
    high,
    values,
    model: open?.representers?.model,
    open: state.open,
    why: open && !values ? (open.why ?? "There are no representers for this sentence.") : null,
    tables: maps.map(() => table),
    codes: () => each,
  };
}

function categoryPalette({ view, maps }, colour) {
  const { about, n, codes, theme } = view;
  const latent = about.latent.names.indexOf(colour);
  const named = { label: about.labels, language: about.languages, prediction: about.classes };
  const naming = latent >= 0 ? [`without ${colour}`, `with ${colour}`] : (named[colour] ?? []);
  const none = naming.length;
  // what is predicted has the colour of the label of that name
  const place = (code) => {
    const found = colour === "prediction" ? about.labels.indexOf(naming[code]) : code;
    return found >= 0 ? found : about.labels.length + code;
  };
  const groups = colour === "language" ? byScript(about.scripts) : [];
  const families = colour === "language" && none > CATEGORIES ? familyColours(groups, theme) : null;
  const table = makeTable(
    none + 1,
    (code) => (code === none ? theme.none : (families?.colours[code] ?? theme.categories[place(code) % CATEGORIES])),
    (code) => (code === none ? 0 : (families?.shapes[code] ?? Math.floor(place(code) / CATEGORIES) % SHAPES.length)),
  );
  const read = (from) => {
    const each = new Uint16Array(n);
    for (let i = 0; i < n; i++) each[i] = codes[from + i] >= 0 ? codes[from + i] : none;
    return each;
  };
  const ofLatent = () => read((2 + about.models.length + latent) * n);
  const shared = latent >= 0 ? ofLatent() : ({ label: () => read(n), language: () => read(0) }[colour]?.() ?? null);
  const each = maps.map((map) => shared ?? (colour === "prediction" ? read((2 + map.m) * n) : new Uint16Array(n)));
  const noneNames = { label: "no label", language: "no language", prediction: "no prediction" };
  return {
    naming: colour === "language" ? about.names : naming,
    groups: none > CATEGORIES && groups.length > 1 ? titled(groups) : null,
    repeats: families ? none > DISTINCT : none > CATEGORIES,
    near: Boolean(families),
    none,
    noneName: latent >= 0 ? "no codes known" : (noneNames[colour] ?? "sentences"),
    said: about.latent.said[latent],
    tables: maps.map(() => table),
    codes: (_, i) => each[i],
  };
}

/** Scripts of one language each stand together: their names would be as many as the languages. */
function titled(groups) {
  const several = groups.filter(([script, places]) => script && places.length > 1);
  const others = groups.filter((one) => !several.includes(one)).flatMap(([, places]) => places);
  return others.length ? [...several, ["other scripts", others]] : several;
}

const DISTINCT = 30; // languages, of which each has a colour that can be told from those beside it
const GAP = 0.03; // of the circle of hues, between two scripts

/** Colours of many languages: each script has a part of the circle of hues, as large as it has languages. */
function familyColours(groups, theme) {
  const [colours, shapes] = [[], []];
  const n = groups.reduce((sum, [, places]) => sum + places.length, 0);
  const gap = Math.min(GAP, 0.5 / groups.length);
  const step = (1 - gap * groups.length) / n;
  const lightness = theme.dark ? [0.66, 0.8, 0.9] : [0.44, 0.58, 0.7];
  let at = 0.06;
  let count = 0;
  for (const [, places] of groups) {
    places.forEach((code, i) => {
      colours[code] = oklch(lightness[count++ % 3], 0.14, 2 * Math.PI * at);
      shapes[code] = i % SHAPES.length;
      at += step;
    });
    at += gap;
  }
  return { colours, shapes };
}

function makeTable(length, colourOf, shapeOf = () => 0) {
  const colours = new Uint8Array(3 * length);
  const shapes = new Uint8Array(length);
  for (let code = 0; code < length; code++) {
    colours.set(colourOf(code), 3 * code);
    shapes[code] = shapeOf(code);
  }
  return { colours, shapes };
}

/** A table of the colours of a scale from 0 to 1. */
const scaleTable = (theme, colourOf) =>
  makeTable(NO_VALUE + 1, (code) => (code === NO_VALUE ? theme.none : colourOf(code / (NO_VALUE - 1))));

function recolour(panel) {
  panel.palette = paletteOf(panel);
  showLegend(panel);
  redraw(panel);
}

// ---------------------------------------------------------------------------------------------- the legend

function showLegend(panel) {
  const { legend, repeats, palette } = panel;
  legend.classList.toggle("lsc-bar", Boolean(palette.bar));
  repeats.hidden = true;
  if (palette.bar) showScale(panel);
  else showCategories(panel);
}

function showScale(panel) {
  const { view, legend, palette } = panel;
  const { theme } = view;
  const { diverging, high, model } = palette;
  const asks =
    diverging && palette.open < 0
      ? "Open a sentence to colour the training sentences that speak for and against it."
      : palette.pending
        ? "Waiting for the notebook…"
        : palette.why;
  if (asks) {
    legend.replaceChildren(words("span", "lsc-dim", asks));
    return;
  }
  legend.replaceChildren(
    h("span", {}, diverging ? "representer value" : "1 − cosine to the baseline"),
    ...(palette.drift ? driftScale(panel) : [h("span", { class: "lsc-num" }, number(-high))]),
    ...(palette.drift ? [] : [ribbon(theme.diverging), h("span", { class: "lsc-num" }, number(high))]),
    words("span", "lsc-dim", diverging ? `orange: against, blue: for${model ? ` · ${model}` : ""}` : ""),
  );
}

/** The scale of drift: one for all models, or each with its own end. */
function driftScale(panel) {
  const { view, palette, maps } = panel;
  const own = h("input", { type: "checkbox", class: "lsc-own" });
  own.checked = view.state.ownScale;
  own.addEventListener("change", () => {
    view.state.ownScale = own.checked;
    recolour(panel);
    panel.legend.querySelector(".lsc-own")?.focus();
  });
  const ends = palette.end === null
    ? maps.flatMap((map, place) => [
        h("span", { class: "lsc-end lsc-num" }, glyph(view, map.m), number(palette.ends[place])),
      ])
    : [h("span", { class: "lsc-num" }, number(palette.end))];
  const choice = maps.length > 1 ? [h("label", { class: "lsc-check" }, own, "each model its own scale")] : [];
  return [h("span", { class: "lsc-num" }, "0"), ribbon(view.theme.points), ...ends, ...choice];
}

/** A button a category, which hides and shows its points. */
function showCategories(panel) {
  const { view, legend, repeats, palette, maps } = panel;
  const { hidden } = view.state;
  const sums = new Map();
  for (const code of palette.codes(maps[0], 0)) sums.set(code, (sums.get(code) ?? 0) + 1);
  const shownAgain = () => {
    hidden.clear();
    showLegend(panel);
    redraw(panel);
    legend.querySelector("button")?.focus();
  };
  const whole = { class: "lsc-all", type: "button", hidden: !hidden.size, onclick: shownAgain };
  const all = h("button", whole, "Show all");
  const item = (code, name) => categoryItem(panel, code, name, sums.get(code) ?? 0, all);
  const groups = palette.groups ?? [["", palette.naming.map((_, code) => code)]];
  const items = groups.flatMap(([script, codes]) => [
    ...(palette.groups ? [h("span", { class: "lsc-dim lsc-script" }, script)] : []),
    ...codes.map((code) => item(code, palette.naming[code])),
  ]);
  if (sums.has(palette.none)) items.push(item(palette.none, palette.noneName));
  legend.replaceChildren(...items, ...(palette.said ? [words("span", "lsc-dim", palette.said)] : []), all);
  repeats.hidden = !palette.repeats;
  repeats.textContent = palette.near
    ? `Colours of more than ${DISTINCT} languages lie close together; those of one script differ in shape too.`
    : `Colours repeat after ${CATEGORIES}, each time with another shape.`;
}

function categoryItem(panel, code, name, sum, all) {
  const { view, palette } = panel;
  const { colour, hidden } = view.state;
  const { colours, shapes } = palette.tables[0];
  const fill = css(colours.subarray(3 * code, 3 * code + 3));
  const sign = s(
    "svg",
    { class: "lsc-glyph", width: 12, height: 12, viewBox: "-6 -6 12 12", "aria-hidden": "true" },
    s("path", { d: SHAPES[shapes[code]](4), fill }),
  );
  const pressed = () => String(!hidden.has(code));
  const button = h(
    "button",
    { class: "lsc-item", type: "button", "aria-pressed": pressed(), title: `${name}: hide or show` },
    sign,
    words("span", "lsc-name", name),
    colour === "prediction" ? null : h("span", { class: "lsc-dim lsc-num" }, count(sum)), // each map has its own
  );
  button.addEventListener("click", () => {
    hidden.has(code) ? hidden.delete(code) : hidden.add(code);
    button.setAttribute("aria-pressed", pressed());
    all.hidden = !hidden.size;
    redraw(panel);
  });
  return button;
}
