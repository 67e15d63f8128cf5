// Points of a map: drawn, ringed, found. They are stamped into an image, thousands a millisecond, the same in every
// browser.

/** Alpha masks of one shape at sixteen quarter-pixel offsets, so that points that are stamped move smoothly. */
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

/** The stamps of a size: a list by shape, filled as shapes are used. */
function stampsOf({ view, stamps }, large, ratio) {
  const size = clamp(4.6 - 0.55 * Math.log(Math.max(view.n, 100) / 100), 1.5, 4.6);
  const radius = (size + (large ? 0.9 : 0)) * ratio;
  if (!stamps.has(radius)) stamps.set(radius, []);
  return { radius, shapes: stamps.get(radius) };
}

/** A fixed random order of the rows, so that no category always covers another. */
function shuffled(n) {
  const order = new Uint32Array(n).map((_, i) => i);
  let seed = 1;
  for (let i = n - 1; i > 0; i--) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((seed / 4294967296) * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

// ---------------------------------------------------------------------------------------------- drawing

function drawPoints(panel, map, place) {
  const { view, palette } = panel;
  const { image, pen } = map;
  if (!image) return;
  const [r, g, b] = view.theme.map;
  new Uint32Array(image.data.buffer).fill((255 << 24) | (b << 16) | (g << 8) | r);
  if (map.has && palette) {
    // where colours are representers, the values say what stands out
    const chosen = view.state.selected.length > 0 && view.state.colour !== "representer";
    const passes = chosen || palette.bar ? [false, true] : [true]; // what stays behind first
    for (const front of passes) stampPoints(panel, map, place, { chosen, front, all: passes.length === 1 });
  }
  pen.putImageData(image, 0, 0);
}

/** Stamp all points, or those that stay behind (without a value, not selected), or those in front. */
function stampPoints(panel, map, place, { chosen, front, all }) {
  const { view, palette, order, selected } = panel;
  const { n, state } = view;
  const { now, ratio, image } = map;
  const { hidden } = state;
  const target = { data: image.data, width: image.width, height: image.height };
  const each = palette.codes(map, place);
  const { colours, shapes } = palette.tables[place];
  const stamps = stampsOf(panel, chosen && front, ratio);
  const scale = scaleOf(view, map) * ratio;
  const [ox, oy] = [target.width / 2 - state.zoom.x * scale, target.height / 2 + state.zoom.y * scale];
  const behind = chosen ? 34 : 110;
  const strong = chosen ? 245 : n > 8000 ? 170 : n > 800 ? 205 : 230;
  const weak = chosen ? 245 : 140; // of points without a value
  for (let o = 0; o < n; o++) {
    const i = order[o];
    const code = each ? each[i] : palette.none;
    const isNone = code === palette.none;
    if (!all && front !== (chosen ? selected[i] === 1 : !isNone)) continue;
    if (!palette.bar && hidden.has(code)) continue;
    const shape = shapes[code] ?? 0;
    const one = (stamps.shapes[shape] ??= stamp(shape, stamps.radius));
    // in quarters of a pixel
    const px = Math.floor((ox + now[2 * i] * scale) * 4);
    const py = Math.floor((oy - now[2 * i + 1] * scale) * 4);
    blend(target, one, px, py, colours, 3 * code, front ? (isNone ? weak : strong) : behind);
  }
}

/** Mix a colour into an image under a stamp, as far as it lies inside. */
function blend({ data, width, height }, { half, side, masks }, px, py, colours, at, alpha) {
  const x0 = (px >> 2) - half;
  const y0 = (py >> 2) - half;
  if (x0 >= width || y0 >= height || x0 + side <= 0 || y0 + side <= 0) return;
  const mask = masks[((py & 3) << 2) | (px & 3)];
  const r = colours[at];
  const g = colours[at + 1];
  const b = colours[at + 2];
  const xa = Math.max(0, -x0);
  const xb = Math.min(side, width - x0);
  const ya = Math.max(0, -y0);
  const yb = Math.min(side, height - y0);
  for (let y = ya; y < yb; y++) {
    let to = ((y0 + y) * width + x0 + xa) * 4;
    for (let k = y * side + xa; k < y * side + xb; k++, to += 4) {
      const cover = mask[k];
      if (!cover) continue;
      const a = cover * alpha;
      data[to] += ((r - data[to]) * a) / 65025;
      data[to + 1] += ((g - data[to + 1]) * a) / 65025;
      data[to + 2] += ((b - data[to + 2]) * a) / 65025;
    }
  }
}

/** Rings around what is pointed at and what is open, and the lasso. */
function drawOver({ view, lasso }, map) {
  const { state, theme } = view;
  const pen = map.ring;
  if (!map.width) return;
  pen.setTransform(map.ratio, 0, 0, map.ratio, 0, 0);
  pen.clearRect(0, 0, map.width, map.height);
  if (!map.has) return;
  if (state.open >= 0) drawRing(view, map, state.open, 8, 2);
  if (state.hover >= 0 && state.hover !== state.open) drawRing(view, map, state.hover, 7, 1.5);
  if (lasso?.map === map && lasso.moved) drawLasso(pen, theme, lasso.path);
}

function drawRing(view, map, i, radius, width) {
  const { map: ground, ink } = view.theme;
  const pen = map.ring;
  const [x, y] = placeOf(view, map, i);
  for (const [colour, extra] of [
    [ground, 2.5],
    [ink, 0],
  ]) {
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.strokeStyle = css(colour);
    pen.lineWidth = width + extra;
    pen.stroke();
  }
}

function drawLasso(pen, { accent }, path) {
  pen.beginPath();
  path.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.closePath();
  pen.fillStyle = `rgb(${accent.join(" ")} / 0.12)`;
  pen.fill();
  pen.strokeStyle = css(accent);
  pen.lineWidth = 1.5;
  pen.setLineDash([5, 3]);
  pen.stroke();
  pen.setLineDash([]);
}

// ---------------------------------------------------------------------------------------------- finding

/** Pixels of the page for one unit of a map. */
const scaleOf = ({ state }, { width, height }) => (Math.min(width, height) / 2) * 0.95 * state.zoom.k;

/** Where a point lies in its map, in pixels of the page. */
function placeOf(view, map, i) {
  const { zoom } = view.state;
  const scale = scaleOf(view, map);
  return [map.width / 2 + (map.now[2 * i] - zoom.x) * scale, map.height / 2 - (map.now[2 * i + 1] - zoom.y) * scale];
}

/** Whether a point is shown: its category may be switched off. */
function isShown({ view, palette, maps }, i, place) {
  const { hidden } = view.state;
  return palette.bar || !hidden.size || !hidden.has(palette.codes(maps[place], place)?.[i]);
}

/** The point next to a place, no further away than the reach; or -1. */
function nearest(panel, map, x, y, reach) {
  const { view, maps, selected } = panel;
  const { n, state } = view;
  const place = maps.indexOf(map);
  const scale = scaleOf(view, map);
  const [ox, oy] = [map.width / 2 - state.zoom.x * scale, map.height / 2 + state.zoom.y * scale];
  let [best, found] = [reach * reach, -1];
  const chosen = state.selected.length > 0;
  for (let i = 0; i < n; i++) {
    const dx = ox + map.now[2 * i] * scale - x;
    const dy = oy - map.now[2 * i + 1] * scale - y;
    // where points overlap, a selected one is drawn on top and is meant first
    const distance = (dx * dx + dy * dy) * (chosen && !selected[i] ? 1.5 : 1);
    if (distance < best && isShown(panel, i, place)) [best, found] = [distance, i];
  }
  return found;
}

/** The next point in a direction from the one that is pointed at, straight ahead rather than beside. */
function nextPoint(panel, map, [dx, dy]) {
  const { view, maps } = panel;
  const { n, state } = view;
  const place = maps.indexOf(map);
  if (state.hover < 0) return nearest(panel, map, map.width / 2, map.height / 2, Infinity);
  const [x, y] = placeOf(view, map, state.hover);
  let [best, next] = [Infinity, state.hover];
  for (let i = 0; i < n; i++) {
    if (i === state.hover || !isShown(panel, i, place)) continue;
    const [px, py] = placeOf(view, map, i);
    const along = (px - x) * dx + (py - y) * dy;
    const across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
    if (along <= 0.5 || across > 2 * along) continue;
    if (along + 2 * across < best) [best, next] = [along + 2 * across, i];
  }
  return next;
}

/** The points within a polygon. */
function pointsWithin(panel, map, path) {
  const { view, maps } = panel;
  const place = maps.indexOf(map);
  const found = [];
  if (!map.has) return found;
  const xs = path.map((at) => at[0]);
  const ys = path.map((at) => at[1]);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  for (let i = 0; i < view.n; i++) {
    const [x, y] = placeOf(view, map, i);
    if (x < x0 || x > x1 || y < y0 || y > y1 || !isShown(panel, i, place)) continue;
    let within = false;
    for (let a = 0, b = path.length - 1; a < path.length; b = a++) {
      const crosses = ys[a] > y !== ys[b] > y && x < ((xs[b] - xs[a]) * (y - ys[a])) / (ys[b] - ys[a]) + xs[a];
      if (crosses) within = !within;
    }
    if (within) found.push(i);
  }
  return found;
}
