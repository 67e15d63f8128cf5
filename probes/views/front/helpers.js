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
