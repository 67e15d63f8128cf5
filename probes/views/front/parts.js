// What all regions are made of: their frame, their choices, signs of the models, words about a sentence, the tooltip.

const MODEL_COLOURS = 6;
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 3", "1 2"];

// ---------------------------------------------------------------------------------------------- elements

function part(name, title, ...tools) {
  const head = h("div", { class: "lsc-head" }, h("h3", {}, title), ...tools);
  return h("section", { class: `lsc-part lsc-${name}`, "data-part": `lsc-${name}`, "aria-label": title }, head);
}

function picker(label, className, options, value, picked) {
  const select = h("select", { class: className, "aria-label": label, onchange: () => picked(select.value) });
  const item = (option) => h("option", { value: option.value, disabled: option.disabled }, option.text);
  for (const option of options) {
    select.append(option.items ? h("optgroup", { label: option.text }, ...option.items.map(item)) : item(option));
  }
  select.value = value;
  const field = h("label", { class: "lsc-field" }, h("span", {}, label), select);
  return { field, select };
}

const note = (text) => words("p", "lsc-missing", text);
const waits = () => h("p", { class: "lsc-dim lsc-late" }, "Waiting for the notebook…");

/** A region that only says why it is empty. */
function absent(section, why) {
  section.classList.add("lsc-absent");
  section.append(note(why));
  return { el: section, update() {} };
}

// ---------------------------------------------------------------------------------------------- models

/** The baseline is in ink, the others in colours, each with its own dash and marker. */
function look({ about, others }, i) {
  if (i === about.baseline) return { colour: "var(--lsc-base)", dash: "", shape: 0 };
  const place = others.indexOf(stays(about, i));
  // solid lines and circles are the baseline's where there is one
  const step = place + (about.baseline >= 0 ? 1 : 0);
  return {
    colour: `var(--lsc-m${place % MODEL_COLOURS})`,
    dash: DASHES[step % DASHES.length],
    shape: step % SHAPES.length,
  };
}

/** The model whose colour one has: of all steps of a training the last. */
const stays = (about, i) => seriesOf({ about }, i)?.models.filter((m) => m !== about.baseline).at(-1) ?? i;

function glyph(view, i, line = false) {
  const { colour, dash, shape } = look(view, i);
  const width = line ? 30 : 12;
  const stroke = { style: `stroke:${colour}`, "stroke-width": 2, "stroke-dasharray": dash };
  const fill = { transform: `translate(${width / 2} 6)`, style: `fill:${colour}` };
  return s(
    "svg",
    { class: "lsc-glyph", width, height: 12, viewBox: `0 0 ${width} 12`, "aria-hidden": "true" },
    ...(line ? [s("line", { x1: 1, x2: width - 1, y1: 6, y2: 6, ...stroke })] : []),
    s("path", { d: SHAPES[shape](3.6), ...fill }),
  );
}

// ---------------------------------------------------------------------------------------------- languages

/** Places of languages by script, that of most languages first: [script, places]. */
function byScript(scripts) {
  const found = new Map();
  scripts.forEach((script, i) => found.set(script, [...(found.get(script) ?? []), i]));
  return [...found].sort((a, b) => b[1].length - a[1].length);
}

/** Places of languages in the chosen order; the lowest number is that of the most lost. */
function languageOrder({ state }, names, scripts, lost) {
  const all = names.map((_, i) => i);
  if (state.order === "script") return byScript(scripts).flatMap(([, places]) => places);
  if (state.order !== "loss") return all;
  const worth = (i) => (Number.isFinite(lost[i]) ? lost[i] : Infinity);
  return all.sort((a, b) => (worth(a) < worth(b) ? -1 : worth(a) > worth(b) ? 1 : a - b));
}

/** What layer 0 is, in brackets, where that is known. */
const firstLayer = ({ about }) => (about.first ? ` (${about.first})` : "");

const fullName = ({ names, about }, m) => names[m] + (about.models[m].note ? `: ${about.models[m].note}` : "");

/** The layer that a model is shown at: its last where it ends before. */
const layerOf = ({ state, about }, m) => Math.min(state.layer, Math.max(1, about.models[m].layers) - 1);

// ---------------------------------------------------------------------------------------------- sentences

const languageOf = ({ about, codes }, i) => about.names[codes[i]] ?? "";
const labelOf = ({ about, codes, n }, i) => about.labels[codes[n + i]] ?? "";
const predictedBy = ({ about, codes, n }, m, i) => about.classes[codes[(2 + m) * n + i]] ?? "";
const textOf = ({ texts, named }, i) =>
  [texts?.text[i] || named?.[i] || "(empty text)", texts?.pair?.[i]].filter(Boolean).join(" | ");

// ---------------------------------------------------------------------------------------------- to the reader

/** Say something to those who hear the page. */
function say(view, text) {
  clearTimeout(view.said);
  view.said = setTimeout(() => (view.status.textContent = text), 80);
}

function showTip({ root, tip }, x, y, ...content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const box = root.getBoundingClientRect();
  const [width, height] = [tip.offsetWidth, tip.offsetHeight];
  const left = x - box.left + (x - box.left + width + 24 > box.width ? -width - 14 : 14);
  const below = y + 16 + height < Math.min(window.innerHeight, box.bottom) || y - box.top < height + 16;
  const across = Math.round(clamp(left, 2, Math.max(2, box.width - width - 2)));
  tip.style.transform = `translate(${across}px, ${Math.round(y - box.top + (below ? 14 : -height - 12))}px)`;
}

const hideTip = ({ tip }) => (tip.hidden = true);
