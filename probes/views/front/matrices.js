// The matrices: alignment of languages and similarity of layers, as heat maps.

const SIMILARITY_WAIT_MS = 60; // the frame of the layer follows the slider

const ORDERS = { corpus: "as in the corpus", script: "by script", loss: "most lost first" };

// ---------------------------------------------------------------------------------------------- alignment

function alignmentPart(view) {
  const { about, names, state, endings } = view;
  const options = names.map((name) => ({ value: name, text: name }));
  const model = picker("Model", "lsc-focus", options, state.focus, (value) => change(view, "focus", value));
  const orders = about.orders.map((value) => ({ value, text: ORDERS[value] }));
  const order = picker("Order", "lsc-order", orders, state.order, (value) => change(view, "order", value));
  const el = part("alignment", "Alignment of languages", model.field, ...(orders.length > 1 ? [order.field] : []));
  if (about.missing?.alignment) {
    model.field.remove();
    order.field.remove();
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
    base: heatOf("base", "alignment of the baseline"), // the original first, as everywhere
    one: heatOf("one", "alignment of the chosen model"),
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
      } else if (what === "order") {
        order.select.value = state.order;
        drawAlignment(panel);
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
  const gap = base?.data ? one.data.map((v, k) => v - base.data[k]) : null;
  const n = one.languages.length;
  const lost = Array.from({ length: n }, (_, r) => meanOf((gap ?? one.data).subarray(n * r, n * (r + 1))));
  const order = languageOrder(view, view.about.names, view.about.scripts, lost);
  const from = (k) => n * order[Math.floor(k / n)] + order[k % n];
  const ordered = (data) => Float32Array.from(data, (_, k) => data[from(k)]);
  const names = order.map((i) => view.about.names[i]);
  const common = { rowTitle: "language", columnTitle: "other language" };
  const square = () => ({ ...common, rows: names, columns: names, low, high });
  body.style.setProperty("--lsc-least", `${Math.max(230, leastWidth(view, square()))}px`);
  setHeat(heats.one, { ...square(), title: alignmentTitle(view, i), values: ordered(one.data) });
  heats.base.el.hidden = heats.gap.el.hidden = !gap;
  if (!gap) return;
  setHeat(heats.base, { ...square(), title: alignmentTitle(view, b), values: ordered(base.data) });
  const most = Math.max(...range(gap).map(Math.abs)) || 1;
  const title = [h("span", { class: "lsc-name" }, "difference"), h("span", { class: "lsc-dim" }, "model − baseline")];
  setHeat(heats.gap, { ...square(), low: -most, high: most, diverging: true, title, values: ordered(gap) });
}

/** The mean of what there is a number of. */
function meanOf(values) {
  const there = [...values].filter(Number.isFinite);
  return there.length ? there.reduce((a, b) => a + b, 0) / there.length : NaN;
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
