// Heat maps: a matrix on a canvas. Cells and names are never smaller than can be read and hit; what has no room scrolls
// under its names.

const LEAST_CELL = 10; // px, with the gap between two cells
const LEAST_NAMED = 13; // where each row and column has a name
const MOST_CELL = 54;
const MOST_HIGH = 640; // of a heat map; the rest scrolls
const BAR = 14; // px, of a bar to scroll by

/** A matrix drawn on a canvas: hover and arrow keys read its cells, click and Enter pick one. */
function makeHeat(view, { label, read, picked = null }) {
  const canvas = h("canvas", { class: "lsc-heat", tabindex: 0, role: "img" });
  const strip = h("div", { class: "lsc-scale", "aria-hidden": "true" });
  const title = words("p", "lsc-heat-title", "");
  const room = h("div", { class: "lsc-heatroom" }, canvas); // as large as the whole matrix
  const scroller = h("div", { class: "lsc-heatscroll" }, room);
  const heat = {
    view,
    label,
    read, // (given, row, column, value) -> what is said of a cell
    picked, // (given, row, column), where a cell can be picked
    canvas,
    strip,
    title,
    room,
    scroller,
    el: h("div", { class: "lsc-heatbox" }, title, scroller, strip),
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
  const { view, el, canvas, strip, given, cursor, scroller } = heat;
  if (!given) return;
  const width = el.clientWidth;
  if (!width) return;
  const { theme } = view;
  const { low, high, diverging, frame, rowTitle, columnTitle } = given;
  const pen = canvas.getContext("2d");
  pen.font = `11px ${theme.font}`;
  const shape = (heat.shape = sizeHeat(heat, heatShape(pen, given, width)));
  const { left, top, cell, right, bottom } = shape;
  const ratio = window.devicePixelRatio || 1;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, right + 2, bottom + shape.under);
  const colourOf = diverging ? theme.diverging : theme.sequential;
  const x = (c) => left + c * cell - scroller.scrollLeft;
  const y = (r) => top + r * cell - scroller.scrollTop;
  const place = { ...shape, x, y };
  clipped(pen, [left, top, right, bottom], () => {
    drawCells(pen, theme, colourOf, given, place);
    const outline = ([r, c], colour) => outlineCell(pen, theme, x(c), y(r), cell - shape.gap, colour);
    if (frame) outline(frame, css(theme.ink));
    if (cursor) outline(cursor, css(theme.accent));
  });
  pen.font = `11px ${theme.font}`;
  pen.fillStyle = css(theme.soft);
  nameCells(pen, given, place);
  pen.textBaseline = "alphabetic";
  pen.textAlign = "left";
  pen.fillText(fit(pen, `↓ ${rowTitle}`, right - left), left, 11);
  pen.textAlign = "right";
  pen.fillText(fit(pen, `${columnTitle} →`, right), right, bottom + shape.under - 3);
  const end = (value) => h("span", { class: "lsc-num" }, number(value));
  strip.replaceChildren(end(low), ribbon(colourOf), end(high));
  canvas.setAttribute("aria-label", describeHeat(heat));
}

/** Give what the canvas lies in the size of the whole matrix, and the canvas that of what is seen. */
function sizeHeat({ canvas, room, scroller }, shape) {
  const { whole, seen, under } = shape;
  const [across, down] = [whole[0] > seen[0], whole[1] > seen[1]];
  room.style.width = `${whole[0]}px`;
  room.style.height = `${whole[1]}px`;
  scroller.style.width = `${seen[0] + (down ? BAR : 0)}px`;
  scroller.style.height = `${seen[1] + (across ? BAR : 0)}px`;
  scroller.classList.toggle("lsc-scrolls", across || down);
  const ratio = window.devicePixelRatio || 1;
  const [w, hgt] = [Math.min(whole[0], scroller.clientWidth), Math.min(whole[1], scroller.clientHeight)]; // less bars
  canvas.style.width = `${w}px`;
  canvas.style.height = `${hgt}px`;
  canvas.width = Math.round(w * ratio);
  canvas.height = Math.round(hgt * ratio);
  return { ...shape, right: w - 2, bottom: hgt - under };
}

const MOST_LETTERS = 28; // of a name; longer ones are read by pointing at a cell
const cutName = (name) => (name.length > MOST_LETTERS ? `${name.slice(0, MOST_LETTERS - 1)}…` : name);
const numeric = (names) => names.every((name) => /^\d+$/.test(name));

/** The room beside the cells of a matrix for the names of its rows, and the longest name of its columns. */
function roomForNames(pen, { rows, columns }) {
  const longest = (names) => Math.max(8, ...names.map((name) => pen.measureText(cutName(name)).width));
  return { left: Math.ceil(longest(rows)) + 8, longest: longest(columns) };
}

/** How wide a matrix has to be so that its cells can be read. */
function leastWidth(view, given) {
  pixel.font = `11px ${view.theme.font}`;
  const cell = numeric(given.columns) ? LEAST_CELL : LEAST_NAMED;
  return roomForNames(pixel, given).left + cell * given.columns.length + 2;
}

/** Where the cells of a matrix lie that is so wide at most, how large all is, and how much of it is seen. */
function heatShape(pen, given, width) {
  const { rows, columns } = given;
  const { left, longest } = roomForNames(pen, given);
  const named = !numeric(columns);
  const room = width - left - 2;
  const least = named ? LEAST_NAMED : LEAST_CELL;
  const tall = least * rows.length > MOST_HIGH ? BAR : 0; // it will scroll
  const most = Math.max(least, Math.min(MOST_CELL, MOST_HIGH / rows.length)); // no larger than scrolls for it
  const cell = clamp((room - tall) / columns.length, least, most);
  const upright = named && longest > cell - 3;
  const [top, under] = [18, (upright ? longest + 8 : 18) + 16];
  const whole = [left + cell * columns.length + 2, top + cell * rows.length + under];
  const high = top + under + Math.min(cell * rows.length, MOST_HIGH);
  const down = whole[1] > high + 1;
  const seen = [Math.min(whole[0], width - (down ? BAR : 0)), down ? high : whole[1]];
  return { left, top, cell, under, whole, seen, longest, upright, gap: 1 };
}

/** Draw only within a box: left, top, right, bottom. */
function clipped(pen, [left, top, right, bottom], draw) {
  pen.save();
  pen.beginPath();
  pen.rect(left - 2, top - 2, right - left + 4, bottom - top + 4);
  pen.clip();
  draw();
  pen.restore();
}

/** The cells in their colours, with their values where there is room. */
function drawCells(pen, theme, colourOf, { values, rows, columns, low, high }, place) {
  const { left, top, right, bottom, cell, gap, x: across, y: down } = place;
  const digits = high - low < 0.05 ? 3 : 2;
  pen.font = `${cell >= 30 ? 11 : 9.5}px ${theme.font}`; // no smaller: the values are in the tooltip too
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  const texts = rows.length <= 12 && columns.length <= 12 ? Array.from(values, (v) => short(v, digits)) : [];
  const printed = texts.length > 0 && Math.max(...texts.map((text) => pen.measureText(text).width)) <= cell - 2;
  for (let r = 0; r < rows.length; r++) {
    for (let c = 0; c < columns.length; c++) {
      const v = values[r * columns.length + c];
      const [x, y] = [across(c), down(r)];
      if (x + cell < left || x > right || y + cell < top || y > bottom) continue;
      const colour = Number.isFinite(v) ? colourOf(high > low ? (v - low) / (high - low) : 0.5) : theme.map;
      pen.fillStyle = css(colour);
      pen.fillRect(x, y, cell - gap, cell - gap);
      if (!printed || !Number.isFinite(v)) continue;
      pen.fillStyle = luminance(colour) > 0.19 ? "#111" : "#fff";
      pen.fillText(texts[r * columns.length + c], x + (cell - gap) / 2, y + cell / 2 + 0.5);
    }
  }
}

/** The names of rows and columns; of layers, which are numbers, as many as there is room for. */
function nameCells(pen, { rows, columns }, { left, top, right, bottom, cell, gap, longest, upright, x, y }) {
  const everyRow = numeric(rows) ? Math.max(1, Math.ceil(12 / cell)) : 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  const half = cell / 2;
  clipped(pen, [0, top, left, bottom], () => {
    rows.forEach((name, r) => {
      if (r % everyRow === 0 && y(r) > top - half && y(r) < bottom) pen.fillText(cutName(name), left - 6, y(r) + half);
    });
  });
  const everyColumn = numeric(columns) ? Math.max(1, Math.ceil((longest + 4) / cell)) : 1;
  pen.textAlign = upright ? "right" : "center";
  pen.textBaseline = upright ? "middle" : "top";
  clipped(pen, [left, bottom, right, bottom + longest + 20], () => {
    columns.forEach((name, c) => {
      const [at, below] = [x(c) + half - gap / 2, bottom + 5];
      if (c % everyColumn || at < left || at > right) return;
      if (!upright) return pen.fillText(cutName(name), at, below);
      pen.save();
      pen.translate(at, below);
      pen.rotate(-Math.PI / 2);
      pen.fillText(cutName(name), 0, 0);
      pen.restore();
    });
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
  const { view, canvas, scroller, read, picked } = heat;
  const reading = (r, c) => read(heat.given, r, c, heat.given.values[r * heat.given.columns.length + c]);
  scroller.addEventListener("scroll", () => drawHeat(heat));
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
      reveal(heat, ...heat.cursor);
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

/** Scroll so far that a cell is seen. */
function reveal({ scroller, shape }, r, c) {
  const { left, top, right, bottom, cell } = shape;
  const into = (at, low, high) => clamp(at, low + cell - high, low);
  scroller.scrollLeft = into(scroller.scrollLeft, c * cell, right - left);
  scroller.scrollTop = into(scroller.scrollTop, r * cell, bottom - top);
}

/** The row and column of the cell that an event happened in, or null. */
function cellAt({ canvas, scroller, given, shape }, event) {
  if (!shape || !given) return null;
  const [x, y] = placeIn(canvas, event);
  const { left, top, right, bottom, cell } = shape;
  if (x < left || y < top || x >= right || y >= bottom) return null;
  const c = Math.floor((x - left + scroller.scrollLeft) / cell);
  const r = Math.floor((y - top + scroller.scrollTop) / cell);
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
