// The matrices: alignment of languages and similarity of layers, as heat maps.

const SIMILARITY_WAIT_MS = 60; // the frame of the layer follows the slider

// ---------------------------------------------------------------------------------------------- heat maps

/** A matrix drawn on a canvas: hover and arrow keys read its cells, click and Enter pick one. */
function makeHeat(view, { label, read, picked = null }) {
  const canvas = h("canvas", { class: "lsc-heat", tabindex: 0, role: "img" });
  const strip = h("div", { class: "lsc-scale", "aria-hidden": "true" });
  const title = words("p", "lsc-heat-title", "");
  const heat = {
    view,
    label,
    read, // (given, row, column, value) -> what is said of a cell
    picked, // (given, row, column), where a cell can be picked
    canvas,
    strip,
    title,
    el: h("div", { class: "lsc-heatbox" }, title, canvas, strip),
    given: null, // what is shown: values, names, range
    shape: null, // where its cells lie
    cursor: null, // the cell that the arrow keys are at
  };
  listenToHeat(heat);
  return heat;
}

function setHeat(heat, given) {
  heat.given = given;
  heat.title.replaceChildren(...given.title);
  drawHeat(heat);
}

function drawHeat(heat) {
  const { view, el, canvas, strip, given, cursor } = heat;
  if (!given) return;
  const width = el.clientWidth;
  if (!width) return;
  const { theme } = view;
  const { columns, low, high, diverging, frame, rowTitle, columnTitle } = given;
  const ratio = window.devicePixelRatio || 1;
  const pen = canvas.getContext("2d");
  pen.font = `11px ${theme.font}`;
  const shape = (heat.shape = heatShape(pen, given, width));
  const { left, top, cell, right, height } = shape;
  canvas.style.width = `${right + 2}px`;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round((right + 2) * ratio);
  canvas.height = Math.round(height * ratio);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const colourOf = diverging ? theme.diverging : theme.sequential;
  drawCells(pen, theme, colourOf, given, shape);
  pen.font = `11px ${theme.font}`;
  pen.fillStyle = css(theme.soft);
  nameCells(pen, given, shape);
  pen.textBaseline = "alphabetic";
  pen.textAlign = "left";
  pen.fillText(fit(pen, `↓ ${rowTitle}`, cell * columns.length), left, 11);
  pen.textAlign = "right";
  pen.fillText(fit(pen, `${columnTitle} →`, right), right, height - 3);
  const outline = ([r, c], colour) =>
    outlineCell(pen, theme, left + c * cell, top + r * cell, cell - shape.gap, colour);
  if (frame) outline(frame, css(theme.ink));
  if (cursor) outline(cursor, css(theme.accent));
  const end = (value) => h("span", { class: "lsc-num" }, number(value));
  strip.replaceChildren(end(low), ribbon(colourOf), end(high));
  canvas.setAttribute("aria-label", describeHeat(heat));
}

const cutName = (name) => (name.length > 10 ? `${name.slice(0, 9)}…` : name);

/** Where the cells of a matrix lie that is so wide at most, and how large all is. */
function heatShape(pen, { rows, columns }, width) {
  const widths = (names) => names.map((name) => pen.measureText(cutName(name)).width);
  const left = Math.ceil(Math.max(...widths(rows), 8)) + 8;
  const cell = clamp((width - left - 2) / columns.length, 2, 54);
  const longest = Math.max(...widths(columns));
  const numeric = columns.every((name) => /^\d+$/.test(name));
  const upright = longest > cell - 3 && !numeric;
  const [top, bottom] = [18, (upright ? longest + 8 : 18) + 16];
  const height = top + cell * rows.length + bottom;
  return { left, top, cell, right: left + cell * columns.length, height, longest, upright, gap: cell > 8 ? 1 : 0 };
}

/** The cells in their colours, with their values where there is room. */
function drawCells(pen, theme, colourOf, { values, rows, columns, low, high }, { left, top, cell, gap }) {
  const digits = high - low < 0.05 ? 3 : 2;
  pen.font = `${cell >= 30 ? 11 : 9.5}px ${theme.font}`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  const texts = rows.length <= 12 && columns.length <= 12 ? Array.from(values, (v) => short(v, digits)) : [];
  const printed = texts.length > 0 && Math.max(...texts.map((text) => pen.measureText(text).width)) <= cell - 2;
  for (let r = 0; r < rows.length; r++) {
    for (let c = 0; c < columns.length; c++) {
      const v = values[r * columns.length + c];
      const [x, y] = [left + c * cell, top + r * cell];
      const colour = Number.isFinite(v) ? colourOf(high > low ? (v - low) / (high - low) : 0.5) : theme.map;
      pen.fillStyle = css(colour);
      pen.fillRect(x, y, cell - gap, cell - gap);
      if (!printed || !Number.isFinite(v)) continue;
      pen.fillStyle = luminance(colour) > 0.19 ? "#111" : "#fff";
      pen.fillText(texts[r * columns.length + c], x + (cell - gap) / 2, y + cell / 2 + 0.5);
    }
  }
}

/** The names of rows and columns, as many as there is room for. */
function nameCells(pen, { rows, columns }, { left, top, cell, gap, longest, upright }) {
  const everyRow = Math.max(1, Math.ceil(12 / cell));
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  rows.forEach((name, r) => r % everyRow === 0 && pen.fillText(cutName(name), left - 6, top + (r + 0.5) * cell));
  const everyColumn = Math.max(1, Math.ceil((upright ? 12 : longest + 4) / cell));
  pen.textAlign = upright ? "right" : "center";
  pen.textBaseline = upright ? "middle" : "top";
  columns.forEach((name, c) => {
    if (c % everyColumn) return;
    const x = left + (c + 0.5) * cell - gap / 2;
    const y = top + rows.length * cell + 5;
    if (!upright) return pen.fillText(cutName(name), x, y);
    pen.save();
    pen.translate(x, y);
    pen.rotate(-Math.PI / 2);
    pen.fillText(cutName(name), 0, 0);
    pen.restore();
  });
}

function outlineCell(pen, theme, x, y, side, colour) {
  pen.lineWidth = 4;
  pen.strokeStyle = css(theme.map);
  pen.strokeRect(x, y, side, side);
  pen.lineWidth = 2;
  pen.strokeStyle = colour;
  pen.strokeRect(x, y, side, side);
}

function describeHeat({ label, given }) {
  const there = [...given.values].filter(Number.isFinite);
  const [low, high] = range(there);
  const mean = there.reduce((a, b) => a + b, 0) / there.length;
  const values = there.length ? `mean ${number(mean)}, from ${number(low)} to ${number(high)}` : "no values";
  return `${label}: ${given.rowTitle} by ${given.columnTitle}, ${values}. Arrow keys read the cells.`;
}

function listenToHeat(heat) {
  const { view, canvas, read, picked } = heat;
  const reading = (r, c) => read(heat.given, r, c, heat.given.values[r * heat.given.columns.length + c]);
  canvas.addEventListener("pointermove", (event) => {
    const at = cellAt(heat, event);
    canvas.style.cursor = at && picked ? "pointer" : "default";
    if (at) showTip(view, event.clientX, event.clientY, words("span", "", reading(...at)));
    else hideTip(view);
  });
  canvas.addEventListener("pointerleave", () => hideTip(view));
  canvas.addEventListener("click", (event) => {
    const at = cellAt(heat, event);
    if (at) picked?.(heat.given, ...at);
  });
  canvas.addEventListener("keydown", (event) => {
    const { given } = heat;
    if (!given) return;
    const way = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const [r, c] = heat.cursor ?? given.frame ?? [0, 0];
    if (way) {
      const ends = [given.rows.length - 1, given.columns.length - 1];
      heat.cursor = [clamp(r + way[0], 0, ends[0]), clamp(c + way[1], 0, ends[1])];
      drawHeat(heat);
      say(view, reading(...heat.cursor));
    } else if ((event.key === "Enter" || event.key === " ") && picked) picked(given, r, c);
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("blur", () => {
    heat.cursor = null;
    drawHeat(heat);
  });
}

/** The row and column of the cell that an event happened in, or null. */
function cellAt({ canvas, given, shape }, event) {
  if (!shape || !given) return null;
  const [x, y] = placeIn(canvas, event);
  const c = Math.floor((x - shape.left) / shape.cell);
  const r = Math.floor((y - shape.top) / shape.cell);
  return r >= 0 && c >= 0 && r < given.rows.length && c < given.columns.length ? [r, c] : null;
}

/** A value for a cell of a heat map: ".83", "−.12", "1.0". */
function short(v, digits) {
  if (!Number.isFinite(v)) return "";
  const text = Math.abs(v) < 9.95 ? v.toFixed(digits) : v.toFixed(0);
  if (Number(text) === 0) return "0";
  const cut = Math.abs(Number(text)) < 1 ? text.replace("0.", ".") : Math.abs(v) < 9.95 ? v.toFixed(1) : text;
  return cut.replace("-", "−");
}

function fit(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  let cut = text;
  while (cut.length > 4 && pen.measureText(`${cut}…`).width > width) cut = cut.slice(0, -1);
  return `${cut}…`;
}

function range(...lists) {
  let [low, high] = [Infinity, -Infinity];
  for (const list of lists) {
    for (const v of list) if (Number.isFinite(v)) [low, high] = [Math.min(low, v), Math.max(high, v)];
  }
  return low <= high ? [low, high] : [0, 1];
}

// ---------------------------------------------------------------------------------------------- alignment

function alignmentPart(view) {
  const { about, names, state, endings } = view;
  const options = names.map((name) => ({ value: name, text: name }));
  const model = picker("Model", "lsc-focus", options, state.focus, (value) => change(view, "focus", value));
  const el = part("alignment", "Alignment of languages", model.field);
  if (about.missing?.alignment) {
    model.field.remove();
    return absent(el, about.missing.alignment);
  }
  const measured = words("p", "lsc-dim lsc-measured", "");
  const body = h("div", { class: "lsc-heats" });
  const message = h("div", { hidden: true });
  el.append(measured, body, message);
  const read = (given, r, c, v) => {
    const value = r === c && !Number.isFinite(v) ? "the same language" : number(v);
    return `${given.rows[r]} ↔ ${given.columns[c]}: ${value}`;
  };
  const heatOf = (name, label) => {
    const heat = makeHeat(view, { label, read });
    heat.el.classList.add(`lsc-heat-${name}`);
    body.append(heat.el);
    return heat;
  };
  const heats = {
    one: heatOf("one", "alignment of the chosen model"),
    base: heatOf("base", "alignment of the baseline"),
    gap: heatOf("gap", "difference to the baseline"),
  };
  const panel = { view, measured, body, message, heats, drawn: false };
  const ask = debounced(() => {
    for (const m of alignedModels(view)) if (m >= 0) answer(view, alignmentAsk(view, m));
    drawAlignment(panel);
  }, WAIT_MS);
  endings.push(() => ask.cancel());
  ask();
  return {
    el,
    update(what, kind) {
      if (what === "layer" || what === "focus") {
        model.select.value = state.focus;
        ask();
      } else if (what === "answer" && kind === "alignment") drawAlignment(panel);
      else if (what === "theme" || what === "size") for (const heat of Object.values(heats)) drawHeat(heat);
    },
  };
}

/** The chosen model and the baseline, -1 where they are one or there is none. */
function alignedModels({ about, names, state }) {
  const i = names.indexOf(state.focus);
  return [i, about.baseline >= 0 && about.baseline !== i ? about.baseline : -1];
}

const alignmentAsk = (view, m) => ({ ask: "alignment", model: m, layer: layerOf(view, m) });

function drawAlignment(panel) {
  const { view, measured, body, message, heats } = panel;
  const [i, b] = alignedModels(view);
  const one = answer(view, alignmentAsk(view, i), false);
  const base = b >= 0 ? answer(view, alignmentAsk(view, b), false) : null;
  const why = one?.why;
  const ready = one?.data && (b < 0 || base);
  panel.drawn ||= Boolean(ready);
  body.hidden = Boolean(why) || !panel.drawn;
  message.hidden = !body.hidden;
  if (body.hidden) message.replaceChildren(why ? note(why) : waits());
  body.classList.toggle("lsc-stale", !ready);
  if (!ready) return;
  measured.textContent = one.title ?? "";
  const [low, high] = range(one.data, base?.data ?? []);
  const common = { rowTitle: "language", columnTitle: "other language" };
  const square = ({ languages }) => ({ ...common, rows: languages, columns: languages, low, high });
  setHeat(heats.one, { ...square(one), title: alignmentTitle(view, i), values: one.data });
  heats.base.el.hidden = heats.gap.el.hidden = !base?.data;
  if (!base?.data) return;
  setHeat(heats.base, { ...square(base), title: alignmentTitle(view, b), values: base.data });
  heats.gap.el.hidden = base.languages.join("\n") !== one.languages.join("\n");
  if (heats.gap.el.hidden) return;
  const values = one.data.map((v, k) => v - base.data[k]);
  const most = Math.max(...range(values).map(Math.abs)) || 1;
  const title = [h("span", { class: "lsc-name" }, "difference"), h("span", { class: "lsc-dim" }, "model − baseline")];
  setHeat(heats.gap, { ...square(one), low: -most, high: most, diverging: true, title, values });
}

function alignmentTitle(view, m) {
  const name = words("span", "lsc-name", view.names[m]);
  name.title = fullName(view, m);
  return [glyph(view, m), name, h("span", { class: "lsc-dim" }, `layer ${layerOf(view, m)}`)];
}

// ---------------------------------------------------------------------------------------------- similarity

function similarityPart(view) {
  const { about, names, state, endings } = view;
  const compared = (one, other) => change(view, "compared", [one, other]);
  const options = (list) => list.map((name) => ({ value: name, text: name }));
  const [first, second] = state.compared;
  const one = picker("Rows", "lsc-one", options(names), first, (value) => compared(value, state.compared[1]));
  const other = picker("Columns", "lsc-other", options(names), second, (value) => compared(state.compared[0], value));
  const measure = picker("Measure", "lsc-measure", options(about.measures), state.measure, (value) =>
    change(view, "measure", value),
  );
  const el = part("similarity", "Similarity of layers");
  if (about.missing?.similarity) return absent(el, about.missing.similarity);
  const message = h("div", { hidden: true });
  const read = (given, r, c, v) => `${given.rowTitle} layer ${r}, ${given.columnTitle} layer ${c}: ${number(v)}`;
  const picked = (_, r) => change(view, "layer", r);
  const heat = makeHeat(view, { label: "similarity of layers", read, picked });
  el.append(h("div", { class: "lsc-tools" }, measure.field, one.field, other.field), heat.el, message);
  const panel = { view, message, heat, drawn: false };
  drawSimilarity(panel, true);
  const later = debounced(() => drawSimilarity(panel, false), SIMILARITY_WAIT_MS);
  endings.push(() => later.cancel());
  return {
    el,
    update(what, kind) {
      if (what === "layer") later();
      else if (what === "compared" || what === "measure") {
        [one.select.value, other.select.value] = state.compared;
        measure.select.value = state.measure;
        drawSimilarity(panel, true);
      } else if (what === "answer" && kind === "similarity") drawSimilarity(panel, false);
      else if (what === "theme" || what === "size") drawHeat(heat);
    },
  };
}

function drawSimilarity(panel, send) {
  const { view, message, heat } = panel;
  const { about, names, state } = view;
  const [rowTitle, columnTitle] = state.compared;
  const [one, other] = [names.indexOf(rowTitle), names.indexOf(columnTitle)];
  const got = answer(view, { ask: "similarity", one, other, measure: state.measure }, send);
  panel.drawn ||= Boolean(got?.data);
  heat.el.hidden = Boolean(got?.why) || !panel.drawn;
  message.hidden = !heat.el.hidden;
  if (heat.el.hidden) message.replaceChildren(got?.why ? note(got.why) : waits());
  heat.el.classList.toggle("lsc-stale", !got);
  if (!got?.data) return;
  const numbers = (m) => Array.from({ length: about.models[m].layers }, (_, i) => String(i));
  const [low, high] = range(got.data);
  setHeat(heat, {
    title: got.title ? [words("span", "lsc-dim", got.title)] : [],
    values: got.data,
    rows: numbers(one),
    columns: numbers(other),
    rowTitle,
    columnTitle,
    low,
    high,
    frame: [layerOf(view, one), layerOf(view, other)],
  });
}
