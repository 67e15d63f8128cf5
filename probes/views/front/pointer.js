// Mouse and keys on the maps: what is pointed at, what is selected, and the zoom that all maps share.

const NEAR = 12; // how far, in px, the pointer may be from a point
const MOST_ZOOM = 40;
const SCROLLING_MS = 300; // a wheel that turned elsewhere so shortly before goes on scrolling the page

function listenToMap(panel, map) {
  listenToPointer(panel, map);
  const { view } = panel;
  const { over } = map;
  over.addEventListener("dblclick", () => clearSelection(panel));
  over.addEventListener("blur", () => hoverPoint(panel, map, -1));
  over.addEventListener("wheel", (event) => turnWheel(panel, map, event), { passive: false });
  over.addEventListener("keydown", (event) => {
    const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const { hover } = view.state;
    if (way) stepTo(panel, map, way);
    else if (event.key === "Enter" || event.key === " ") {
      if (hover >= 0) pick(view, [hover], event.shiftKey);
    } else if (event.key === "Escape") clearSelection(panel);
    else if (event.key === "+" || event.key === "=") zoomBy(panel, 1.5);
    else if (event.key === "-") zoomBy(panel, 1 / 1.5);
    else if (event.key === "0") zoomTo(panel, 1, 0, 0);
    else return;
    event.preventDefault();
  });
}

/** Hovering, clicks and the lasso. */
function listenToPointer(panel, map) {
  const { view } = panel;
  const { over } = map;
  over.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    over.setPointerCapture(event.pointerId);
    panel.lasso = { map, path: [placeIn(over, event)], moved: false, add: event.shiftKey };
  });
  over.addEventListener("pointermove", (event) => {
    const { lasso } = panel;
    const [x, y] = placeIn(over, event);
    if (!lasso) return hoverPoint(panel, map, map.has ? nearest(panel, map, x, y, NEAR) : -1, event);
    const [lx, ly] = lasso.path.at(-1);
    if (Math.hypot(x - lx, y - ly) < (lasso.moved ? 2 : 4)) return;
    lasso.moved = true;
    lasso.path.push([x, y]);
    hoverPoint(panel, map, -1);
    askFrame(view);
  });
  over.addEventListener("pointerup", (event) => {
    const { lasso } = panel;
    if (lasso?.map !== map) return;
    panel.lasso = null;
    if (lasso.moved) pick(view, pointsWithin(panel, map, lasso.path), lasso.add);
    else {
      const i = nearest(panel, map, ...placeIn(over, event), NEAR);
      if (i >= 0) pick(view, [i], lasso.add);
    }
    askFrame(view);
  });
  over.addEventListener("pointercancel", () => {
    panel.lasso = null;
    askFrame(view);
  });
  over.addEventListener("pointerleave", () => !panel.lasso && hoverPoint(panel, map, -1));
}

/** Where an event happened, from the corner of an element. */
function placeIn(element, event) {
  const box = element.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

// ---------------------------------------------------------------------------------------------- pointing

function hoverPoint(panel, map, i, event) {
  const { view } = panel;
  if (i >= 0) view.state.lastHover = i;
  set(view, "hover", i);
  if (i < 0) return hideTip(view);
  const box = map.stage.getBoundingClientRect();
  const [x, y] = placeOf(view, map, i);
  showTip(view, event?.clientX ?? box.left + x, event?.clientY ?? box.top + y, ...describeRow(panel, i));
}

/** What the tooltip says of a sentence: text, id, language, label, and what the shown models make of it. */
function describeRow({ view, palette, maps }, i) {
  const { texts, state, names } = view;
  const label = labelOf(view, i);
  const about = [texts?.id[i] ?? "", languageOf(view, i), ...(label ? [label] : [])];
  const line = joined(about.map((text) => words("span", "", text)));
  const lines = [words("p", "lsc-tip-text", textOf(view, i)), h("p", { class: "lsc-dim" }, ...line)];
  const value = palette.values?.[i];
  if (Number.isFinite(value)) lines.push(h("p", {}, `representer value ${number(value)}`));
  const list = h("table", {});
  maps.forEach((map, place) => {
    const predicted = predictedBy(view, map.m, i);
    const drift = state.colour === "drift" ? palette.read(map, place, i) : NaN;
    if (!predicted && !Number.isFinite(drift)) return;
    const row = h("tr", {}, h("td", {}, glyph(view, map.m)), words("th", "", names[map.m]));
    if (predicted) row.append(words("td", label && predicted !== label ? "lsc-wrong" : "", predicted));
    if (Number.isFinite(drift)) {
      row.append(h("td", { class: "lsc-num" }, `drift ${number(drift)}`));
    }
    list.append(row);
  });
  if (list.children.length) lines.push(list);
  return lines;
}

function stepTo(panel, map, way) {
  const { view } = panel;
  if (!map.has) return;
  const next = nextPoint(panel, map, way);
  hoverPoint(panel, map, next);
  say(view, `${textOf(view, next)} ${languageOf(view, next)} ${labelOf(view, next)}`);
}

// ---------------------------------------------------------------------------------------------- selecting

function pick(view, rows, add) {
  const { selected } = view.state;
  const all = add ? Int32Array.from(new Set([...selected, ...rows])).sort() : Int32Array.from(rows);
  change(view, "selected", all);
}

function clearSelection(panel) {
  panel.lasso = null;
  change(panel.view, "selected", new Int32Array(0));
  redraw(panel);
}

// ---------------------------------------------------------------------------------------------- zoom

function zoomTo(panel, k, x, y) {
  panel.view.state.zoom = { k, x: clamp(x, -1, 1), y: clamp(y, -1, 1) };
  panel.reset.disabled = k === 1 && x === 0 && y === 0;
  redraw(panel);
}

/** Zoom by a factor around a place of a map, its middle if none is given. */
function zoomBy(panel, factor, map = panel.maps[0], px = map.width / 2, py = map.height / 2) {
  const { zoom } = panel.view.state;
  const k = clamp(zoom.k * factor, 1, MOST_ZOOM);
  if (k <= 1.001) return zoomTo(panel, 1, 0, 0);
  const unit = (Math.min(map.width, map.height) / 2) * 0.95;
  const [dx, dy] = [(px - map.width / 2) / unit, (map.height / 2 - py) / unit];
  zoomTo(panel, k, zoom.x + dx / zoom.k - dx / k, zoom.y + dy / zoom.k - dy / k);
}

/** The wheel zooms, but a page that is being scrolled goes on scrolling when a map comes under the pointer. */
function turnWheel(panel, map, event) {
  const whole = panel.view.state.zoom.k <= 1;
  if (event.timeStamp - panel.wheeled < SCROLLING_MS || (event.deltaY > 0 && whole)) {
    panel.wheeled = event.timeStamp;
    return;
  }
  event.preventDefault();
  const [x, y] = placeIn(map.over, event);
  zoomBy(panel, Math.exp(-clamp(event.deltaY, -120, 120) / 300), map, x, y);
}

/** Note when the wheel turns outside the maps. */
function hearWheel(panel) {
  const wheeled = (event) => {
    if (!event.target.classList?.contains("lsc-over")) panel.wheeled = event.timeStamp;
  };
  document.addEventListener("wheel", wheeled, { passive: true, capture: true });
  panel.view.endings.push(() => document.removeEventListener("wheel", wheeled, { capture: true }));
}
