// The curves of one probe: a line a model over the layers, or a point a model and language where a probe has no layers.

const SIGNIFICANT = 0.05; // adjusted p below which a point has a ring
const MOST_MARKED = 40; // layers; more of them have no room for a sign each

function curvesPart(view) {
  const { about, state } = view;
  const probes = about.probes.map((one) => ({ value: one.name, text: one.title || one.name }));
  const languages = languageChoices(view);
  const probe = picker("Probe", "lsc-probe", probes, state.probe, (value) => change(view, "probe", value));
  const language = picker("Language", "lsc-language", languages, state.language, (value) =>
    change(view, "language", value),
  );
  const el = part("curves", "Curves", probe.field, ...(about.curve_languages.length > 1 ? [language.field] : []));
  const missing = about.missing?.curves ?? (about.probes.length ? null : "This comparison has no probe to draw.");
  if (missing) {
    probe.field.remove();
    language.field.remove();
    return absent(el, missing);
  }
  const label = h("p", { class: "lsc-ylabel" });
  const host = h("div", { class: "lsc-plot" });
  const legend = h("div", {
    class: "lsc-legend lsc-models-legend",
    role: "group",
    "aria-label": "models in the curves",
  });
  const ringKey = s(
    "svg",
    { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true" },
    s("circle", { r: 5, class: "lsc-ring-key" }),
    s("circle", { r: 2, class: "lsc-ring-dot" }),
  );
  const ringNote = h("p", { class: "lsc-key" }, ringKey, h("span", {}, ""));
  el.append(label, host, legend, ringNote);
  // drawn: scales and elements of the last drawing; pointed: the layer or language that is read, or -1
  const panel = { view, probe, language, label, host, legend, ringNote, drawn: null, pointed: -1 };
  nameModels(panel);
  return { el, update: (what) => updateCurves(panel, what) };
}

function updateCurves(panel, what) {
  const { view, probe, language, host, drawn } = panel;
  if (what === "layer") markLayer(panel);
  else if (what === "step") {
    nameModels(panel);
    drawCurves(panel);
  }
  else if (what === "probe" || what === "language") {
    probe.select.value = view.state.probe;
    language.select.value = view.state.language;
    drawCurves(panel);
  } else if ((what === "order" || what === "focus") && drawn?.output) drawCurves(panel);
  else if (what === "size" && host.clientWidth) {
    if (!drawn || panel.wide !== host.clientWidth) drawCurves(panel);
  }
}

/** The languages of curves, under their scripts where they have several. */
function languageChoices({ about }) {
  const item = (i) => ({ value: about.curve_languages[i], text: about.curve_names[i] });
  const groups = byScript(about.curve_scripts);
  if (groups.filter(([script]) => script).length < 2) return about.curve_languages.map((_, i) => item(i));
  const named = groups.filter(([script]) => script);
  const plain = groups.filter(([script]) => !script).flatMap(([, places]) => places.map(item)); // all together too
  return [...plain, ...named.map(([text, places]) => ({ text, items: places.map(item) }))];
}

/** The legend: a button a model, which switches it off and on. */
function nameModels(panel) {
  const { view, legend } = panel;
  const { names, state } = view;
  legend.replaceChildren(
    ...names.flatMap((name, m) => {
      if (!isAtStep(view, m)) return [];
      const pressed = () => String(!state.muted.has(m));
      const item = h(
        "button",
        { class: "lsc-item", type: "button", "aria-pressed": pressed(), title: fullName(view, m) },
        glyph(view, m, true),
        words("span", "lsc-name", name),
      );
      item.addEventListener("click", () => {
        state.muted.has(m) ? state.muted.delete(m) : state.muted.add(m);
        item.setAttribute("aria-pressed", pressed());
        drawCurves(panel);
      });
      return item;
    }),
  );
}

// ---------------------------------------------------------------------------------------------- what is drawn

/** The chosen probe: value(model, slot, 0 to 3) is value, low, high and p; a slot is a layer or a language. */
function chosenCurves(view) {
  const { about, curves, layers, names, state } = view;
  const p = about.probes.findIndex((one) => one.name === state.probe);
  const probe = about.probes[p];
  const output = probe.by === "output";
  const [M, C] = [names.length, about.curve_languages.length];
  const c = Math.max(0, about.curve_languages.indexOf(state.language));
  const at = (m, language, layer, k) => curves[(((p * M + m) * C + language) * layers + layer) * 4 + k];
  const ofOutput = (m, i, k) => at(m, order[i], 0, k);
  const value = output ? ofOutput : (m, i, k) => (i < about.models[m].layers ? at(m, c, i, k) : NaN);
  const slots = output ? C : layers;
  const order = output ? outputOrder({ about, state, names }, (m, i) => at(m, i, 0, 0)) : null;
  const scaled = names.map((_, m) => m).filter((m) => !state.muted.has(m)); // all steps of a training, on one scale
  const shown = scaled.filter((m) => isAtStep(view, m));
  const better = { higher: "higher is better", lower: "lower is better" }[probe.better];
  return { probe, title: probe.title || probe.name, better, output, order, slots, shown, scaled, value };
}

/** Languages in the chosen order, all together first. */
function outputOrder(view, value) {
  const { about, state, names } = view;
  const [m, base] = [names.indexOf(state.focus), Math.max(0, about.baseline)];
  const sign = about.probes.find((one) => one.name === state.probe).better === "lower" ? -1 : 1;
  const all = about.curve_languages.map((_, i) => i);
  const alone = all.filter((i) => about.curve_languages[i] !== "pooled");
  const lost = alone.map((i) => sign * (value(m, i) - (m === base ? 0 : value(base, i))));
  const of = (list) => alone.map((i) => list[i]);
  const order = languageOrder(view, of(about.curve_names), of(about.curve_scripts), lost);
  return [...all.filter((i) => !alone.includes(i)), ...order.map((place) => alone[place])];
}

/** The lowest and highest of values and intervals, with some room, and whether any value has a ring. */
function extent({ shown, scaled, slots, value }) {
  let [low, high] = [Infinity, -Infinity];
  let rings = false;
  for (const m of scaled) {
    for (let i = 0; i < slots; i++) {
      for (let k = 0; k < 3; k++) {
        const v = value(m, i, k);
        if (Number.isFinite(v)) [low, high] = [Math.min(low, v), Math.max(high, v)];
      }
      rings ||= shown.includes(m) && value(m, i, 3) < SIGNIFICANT;
    }
  }
  const empty = !(low <= high);
  if (empty) [low, high] = [0, 1];
  if (high - low < 1e-9) {
    [low, high] = [low - Math.max(0.05, Math.abs(low) * 0.05), high + Math.max(0.05, Math.abs(high) * 0.05)];
  }
  const room = (high - low) * 0.06;
  return { low: low - room, high: high + room, empty, rings };
}

/** Where everything lies in an image so wide. */
function curveScales({ output, slots }, { low, high }, width, below) {
  const named = output ? below : 0; // room for names that stand on their heads
  const height = clamp(Math.round(width * 0.56), 220, 330) + named;
  const grid = ticks(low, high, 5);
  const marks = grid.values.map((v) => v.toFixed(grid.digits).replace("-", "−"));
  const left = Math.max(30, 10 + 6.8 * Math.max(...marks.map((text) => text.length)));
  const [right, top, base] = [width - 14, 10, height - 40 - named];
  const inner = width - left - 14;
  const middle = (left + right) / 2;
  const gap = output ? inner / slots : (inner - 16) / Math.max(1, slots - 1);
  const x = output ? (i) => left + gap * (i + 0.5) : (i) => (slots === 1 ? middle : left + 8 + gap * i);
  const slot = output ? (px) => (px - left) / gap - 0.5 : (px) => (slots === 1 ? 0 : (px - left - 8) / gap);
  const y = (v) => top + ((high - v) / (high - low)) * (base - top);
  return { width, height, values: grid.values, marks, left, right, inner, middle, top, base, gap, x, y, slot };
}

// ---------------------------------------------------------------------------------------------- drawing

function drawCurves(panel) {
  const { view, host } = panel;
  const { about, names } = view;
  if (!host.clientWidth) return;
  const data = chosenCurves(view);
  const width = Math.max(host.clientWidth, data.output ? 60 + data.slots * Math.max(15, 5 * data.shown.length) : 0);
  labelCurves(panel, data);
  const found = extent(data);
  const scales = curveScales(data, found, width, roomBelow(view, width / data.slots));
  const { height, middle, top, base } = scales;
  const { output, shown } = data;

  const box = { width, height, viewBox: `0 0 ${width} ${height}` };
  const svg = s("svg", { class: "lsc-curve", ...box, tabindex: 0, role: "group" });
  const by = output ? "by language" : `by layer, ${nameOfCurve(view, view.state.language)}`;
  const better = data.better ? `, ${data.better}` : "";
  const keys = `Arrow keys read the values${output ? "" : ", Enter sets the layer"}.`;
  svg.setAttribute("aria-label", `${data.title}, ${by}${better}. ${keys}`);
  drawAxes(svg, view, data, scales);
  const now = s(
    "g",
    { class: "lsc-now" },
    s("line", { y1: top - 4, y2: base }),
    s("path", { d: `M-5 ${base + 1}h10l-5 -6z` }),
  );
  const guide = s("line", { class: "lsc-guide", y1: top, y2: base, visibility: "hidden" });
  svg.append(guide);
  if (!output) svg.append(now);
  const layers = { bands: s("g", {}), lines: s("g", {}), points: s("g", {}) };
  shown.forEach((m, place) => drawCurve(layers, look(view, m), m, place, data, scales));
  svg.append(layers.bands, layers.lines, layers.points);
  if (found.empty) {
    const why = shown.length ? "No values for this choice." : "All models are switched off.";
    svg.append(textAt(middle, height / 2 - 10, why, "middle", "lsc-axis"));
  }
  host.replaceChildren(svg);
  host.classList.toggle("lsc-scrolls", width > host.clientWidth);
  host.style.height = `${height + (width > host.clientWidth ? 14 : 0)}px`; // a bar to scroll by
  panel.wide = host.clientWidth;
  panel.ringNote.style.visibility = found.rings ? "visible" : "hidden";
  panel.ringNote.lastChild.textContent =
    about.baseline >= 0
      ? `differs from ${names[about.baseline]}, p < 0.05 adjusted over ${about.marked}; bands: 95 % intervals`
      : `p < 0.05 adjusted over ${about.marked}; bands: 95 % intervals`;
  panel.drawn = { ...data, ...scales, svg, now, guide };
  markLayer(panel);
  readCurves(panel, panel.drawn);
}

/** The title of the probe, which direction is better, and whether there is a language to choose. */
function labelCurves({ language, label }, { probe, title, better, output }) {
  language.select.disabled = output;
  language.field.title = output ? "This probe has no layers: all languages are drawn." : "";
  const arrow = probe.better === "higher" ? "↑" : "↓";
  const direction = better ? [h("span", { class: "lsc-better" }, `${arrow} ${better}`)] : [];
  label.replaceChildren(words("b", "", title), ...direction);
}

function drawAxes(svg, { about }, { output, order, slots }, scales) {
  const firstText = firstLayer({ about }).trim().replace("(", "(0: ");
  const { height, values, marks, left, right, inner, middle, base, gap, x, y } = scales;
  values.forEach((v, i) => {
    const level = Math.round(y(v)) + 0.5;
    svg.append(
      s("line", { class: "lsc-gridline", x1: left, x2: right, y1: level, y2: level }),
      textAt(left - 8, y(v) + 4, marks[i], "end"),
    );
  });
  if (output) {
    const tight = widestName(about) > gap - 4;
    order.forEach((language, i) => {
      const [across, down] = tight ? [x(i) + 4, base + 10] : [x(i), base + 17];
      const text = textAt(across, down, cutName(about.curve_names[language]), tight ? "end" : "middle");
      if (tight) text.setAttribute("transform", `rotate(-90 ${across} ${down})`);
      svg.append(text);
    });
    if (!tight) svg.append(textAt(middle, height - 5, "language", "middle", "lsc-axis"));
  } else {
    for (const i of layerTicks(slots, Math.max(2, inner / 26))) {
      svg.append(textAt(x(i), base + 17, String(i), "middle"));
    }
    svg.append(textAt(middle, height - 5, `layer ${firstText}`.trim(), "middle", "lsc-axis"));
  }
  svg.append(s("line", { class: "lsc-baseline", x1: left, x2: right, y1: base + 0.5, y2: base + 0.5 }));
}

const widestName = (about) => Math.max(...about.curve_names.map((name) => cutName(name).length)) * 6.2;
/** How much room names of languages need under an axis, with so much for each to lie in. */
const roomBelow = ({ about }, gap) => (widestName(about) > gap - 6 ? Math.round(widestName(about)) - 20 : 0);

const textAt = (x, y, text, anchor, name = "lsc-tick") => s("text", { class: name, x, y, "text-anchor": anchor }, text);

/** One model: line, signs, rings, and its intervals: bands where layers follow each other, bars elsewhere. */
function drawCurve({ bands, lines, points }, { colour, dash, shape }, m, place, data, { gap, x, y }) {
  const { output, slots, shown, value } = data;
  const dodge = output ? Math.min(12, (gap * 0.72) / Math.max(1, shown.length)) : 0;
  const shift = output ? (place - (shown.length - 1) / 2) * dodge : 0;
  const stroke = `stroke:${colour}`;
  const [low, high] = [1, 2].map((k) => (i) => y(value(m, i, k)));
  const bar = (i) => {
    const ends = { x1: x(i) + shift, x2: x(i) + shift, y1: low(i), y2: high(i) };
    lines.append(s("line", { style: stroke, "stroke-width": 1.5, ...ends }));
  };
  let run = []; // layers with an interval, one after the other
  const closeBand = () => {
    if (run.length > 1) {
      const [over, under] = [run.map((i) => `${x(i)} ${high(i)}`), run.reverse().map((i) => `${x(i)} ${low(i)}`)];
      const d = `M${[...over, ...under].join("L")}Z`;
      bands.append(s("path", { class: "lsc-band", style: `fill:${colour}`, d }));
    } else if (run.length === 1) bar(run[0]);
    run = [];
  };
  let path = "";
  let open = false;
  for (let i = 0; i < slots; i++) {
    const v = value(m, i, 0);
    const interval = [0, 1, 2].every((k) => Number.isFinite(value(m, i, k)));
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
    if (output || slots <= MOST_MARKED) {
      const transform = `translate(${x(i) + shift} ${y(v)})`;
      points.append(s("path", { class: "lsc-mark", d: SHAPES[shape](3), transform, style: `fill:${colour}` }));
    }
    if (value(m, i, 3) < SIGNIFICANT) {
      points.append(s("circle", { class: "lsc-ring", cx: x(i) + shift, cy: y(v), r: 6, style: stroke }));
    }
  }
  closeBand();
  if (!output && path) lines.append(s("path", { class: "lsc-line", d: path, style: stroke, "stroke-dasharray": dash }));
}

function markLayer({ view, drawn }) {
  if (drawn && !drawn.output) drawn.now.setAttribute("transform", `translate(${drawn.x(view.state.layer)} 0)`);
}

// ---------------------------------------------------------------------------------------------- reading

/** Mouse and keys read the values of a slot, and set the layer. */
function readCurves(panel, { svg, output, slots, slot }) {
  const { view } = panel;
  const at = (event) => clamp(Math.round(slot(event.clientX - svg.getBoundingClientRect().left)), 0, slots - 1);
  svg.addEventListener("pointermove", (event) => pointAt(panel, at(event), event));
  svg.addEventListener("pointerleave", () => pointAt(panel, -1));
  svg.addEventListener("blur", () => pointAt(panel, -1));
  svg.addEventListener("click", (event) => !output && change(view, "layer", at(event)));
  svg.addEventListener("keydown", (event) => {
    const { pointed } = panel;
    const { layer } = view.state;
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) {
      const from = pointed >= 0 ? pointed : output ? (step > 0 ? -1 : slots) : layer;
      pointAt(panel, clamp(from + step, 0, slots - 1));
      say(view, slotReading(panel));
    } else if ((event.key === "Enter" || event.key === " ") && !output) {
      change(view, "layer", pointed >= 0 ? pointed : layer);
    } else if (event.key === "Escape") pointAt(panel, -1);
    else return;
    event.preventDefault();
  });
}

function slotName({ about }, { output, order }, i) {
  if (output) return about.curve_names[order[i]];
  return i === 0 ? `layer 0${firstLayer({ about })}` : `layer ${i}`;
}

const nameOfCurve = ({ about }, code) => about.curve_names[about.curve_languages.indexOf(code)] ?? code;

function slotReading({ view, drawn, pointed }) {
  const values = drawn.shown.map((m) => `${view.names[m]} ${number(drawn.value(m, pointed, 0))}`);
  return `${slotName(view, drawn, pointed)}: ${values.join(", ")}`;
}

/** Show a slot's values, or none. */
function pointAt(panel, i, event) {
  const { view, drawn } = panel;
  if (!drawn) return;
  panel.pointed = i;
  if (i < 0) {
    drawn.guide.setAttribute("visibility", "hidden");
    hideTip(view);
    return;
  }
  drawn.guide.setAttribute("visibility", "visible");
  for (const end of ["x1", "x2"]) drawn.guide.setAttribute(end, drawn.x(i));
  const table = h("table", {});
  for (const m of drawn.shown) {
    const [v, low, high, p] = [0, 1, 2, 3].map((k) => drawn.value(m, i, k));
    table.append(
      h(
        "tr",
        {},
        h("td", {}, glyph(view, m)),
        words("th", "", view.names[m]),
        h("td", { class: "lsc-num" }, number(v)),
        h("td", { class: "lsc-num lsc-dim" }, Number.isFinite(low) ? `[${number(low)}, ${number(high)}]` : ""),
        h("td", { class: "lsc-dim" }, Number.isFinite(p) ? `p ${probability(p, view.about.least_p)}` : ""),
      ),
    );
  }
  const box = drawn.svg.getBoundingClientRect();
  const x = event?.clientX ?? box.left + drawn.x(i);
  showTip(view, x, box.bottom - 28, h("b", {}, slotName(view, drawn, i)), table); // under the axis: covers no line
}
