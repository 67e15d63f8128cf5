// The curves.

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
