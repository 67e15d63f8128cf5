// What all pieces share: constants, and helpers that know nothing of an explorer.
// The explorer is plain canvas and SVG, no library, no network. Whatever comes from data reaches the page as text only.

const SVG = "http://www.w3.org/2000/svg";
const WAIT_MS = 120; // pause before the notebook is asked again while the slider moves
const CATEGORIES = 10; // colours before the shape changes
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
    const above = `M${-a} ${-a + b}L${-a + b} ${-a}L0 ${-b}L${a - b} ${-a}L${a} ${-a + b}L${b} 0`;
    return `${above}L${a} ${a - b}L${a - b} ${a}L0 ${b}L${-a + b} ${a}L${-a} ${a - b}L${-b} 0Z`;
  },
];

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const count = (x) => x.toLocaleString("en");
const plural = (x, one, many) => `${count(x)} ${x === 1 ? one : (many ?? `${one}s`)}`;
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
  for (const [name, value] of Object.entries(attributes))
    if (value !== null && value !== undefined) node.setAttribute(name, value);
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
/** A p, and no smaller one than the draws allow: [that one, how it is told]. */
const probability = (p, least) => (least && p <= least[0] * 1.001 ? least[1] : `= ${p.toFixed(3)}`);

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
  const [buffer, start, length] = ArrayBuffer.isView(source)
    ? [source.buffer, source.byteOffset, source.byteLength]
    : [source, 0, source.byteLength];
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

/** A colour by lightness, chroma and hue of OKLab (Ottosson 2020) as [red, green, blue], cut to what screens show. */
function oklch(lightness, chroma, hue) {
  const [a, b] = [chroma * Math.cos(hue), chroma * Math.sin(hue)];
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  const gamma = (v) => (v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055);
  return linear.map((v) => Math.round(255 * gamma(clamp(v, 0, 1))));
}

const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
const luminance = (colour) => {
  const [r, g, b] = colour.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};

/** A strip of the colours of a scale from 0 to 1. */
function ribbon(colourOf) {
  const strip = h("span", { class: "lsc-strip" });
  const steps = Array.from({ length: 12 }, (_, i) => css(colourOf(i / 11)));
  strip.style.background = `linear-gradient(90deg, ${steps.join(", ")})`;
  return strip;
}

/** Pieces of a line with a middle dot between them. */
function joined(pieces) {
  const kept = pieces.filter(Boolean);
  return kept.flatMap((piece, i) => (i ? [" · ", piece] : [piece]));
}
