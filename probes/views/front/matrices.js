// The heat maps: alignment and similarity.

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
