// The maps: one a model, all with the same colours, zoom and selection. Which there are, how large, and where their
// points go; palette.js colours them, points.js draws them, pointer.js listens to mouse and keys.

const MOVE_MS = 160; // how long points travel after a step of the slider
const TRAIN_MS = 600; // and from one step of a training to another
const AGAIN_EVERY_MS = 10000; // how often maps are asked for again that the notebook dropped or lost
const FEW = 0.15; // share of the variance below which a map shows little
const COLOUR_NAMES = {
  label: "label",
  language: "language",
  prediction: "prediction",
  drift: "drift from the baseline",
  representer: "representers",
};

function mapsPart(view) {
  const { about, n, clock } = view;
  const panel = {
    view,
    maps: [], // those that are shown
    selected: new Uint8Array(n), // 1 for a selected row
    order: shuffled(n), // in which points are drawn
    calm: matchMedia("(prefers-reduced-motion: reduce)"),
    movement: null, // {begun} while points travel; begun is null until the first frame
    dirty: true, // points have to be drawn again
    stamps: new Map(), // radius -> masks of the shapes
    palette: null,
    held: null, // the answer whose representers colour the maps
    lasso: null, // {map, path, moved, add} while one is drawn
    wheeled: -1000, // time of the last wheel event outside the maps
    ...mapTools(
      view,
      (factor) => zoomBy(panel, factor),
      () => zoomTo(panel, 1, 0, 0),
    ),
    choices: h("div", { class: "lsc-choices" }),
    grid: h("div", { class: "lsc-mapgrid" }),
    legend: h("div", { class: "lsc-legend lsc-categories", role: "group", "aria-label": "categories" }),
    repeats: h("p", { class: "lsc-dim lsc-repeats", hidden: true }),
  };
  const tools = [panel.colour.field, panel.kind.field, panel.zooms];
  const el = part("maps", "Maps", ...tools);
  if (about.missing?.maps) {
    for (const tool of tools) tool.remove();
    return absent(el, about.missing.maps);
  }
  fillMaps(panel, el);
  watchSizes(panel);
  askAgain(panel);
  hearWheel(panel);
  clock.drawers.push((time) => drawMaps(panel, time));

  chooseModels(panel);
  showMaps(panel);
  markSelected(panel);
  zoomTo(panel, 1, 0, 0);
  aim(panel);
  panel.askUmaps();
  recolour(panel);
  return { el, update: (what, detail) => updateMaps(panel, what, detail) };
}

function updateMaps(panel, what, detail) {
  const { view, maps } = panel;
  const { state } = view;
  if (what === "layer") {
    aim(panel);
    panel.askUmaps();
    if (state.colour === "drift" || state.colour === "representer") panel.palette = paletteOf(panel);
  } else if (what === "models") {
    chooseModels(panel);
    showMaps(panel);
    aim(panel);
    panel.askUmaps();
    recolour(panel);
  } else if (what === "kind") {
    panel.kind.select.value = state.kind;
    aim(panel);
    panel.askUmaps();
  } else if (what === "colour") {
    panel.colour.select.value = state.colour;
    recolour(panel);
  } else if (what === "selected") markSelected(panel);
  else if (what === "open" && state.colour === "representer") recolour(panel);
  else if (what === "open" || what === "hover") askFrame(view);
  else if (what === "answer") {
    if (detail === "map") aim(panel);
    else if (detail === "drift" && state.colour === "drift") recolour(panel);
    else if (detail === "sentence" && state.colour === "representer") recolour(panel);
  } else if (what === "progress") {
    for (const map of maps) describeMap(panel, map, ...pointsOf(panel, map, false));
  } else if (what === "theme") recolour(panel);
  else if (what === "size") sizeMaps(panel);
}

// ---------------------------------------------------------------------------------------------- what is around them

/** The choices above the maps, and the buttons that zoom. */
function mapTools(view, zoomed, shownWhole) {
  const { about, state } = view;
  const colours = Object.entries(COLOUR_NAMES).map(([value, text]) => {
    return { value, text, disabled: !about.colours.includes(value) };
  });
  const { names, model } = about.latent;
  const items = names.map((value) => ({ value, text: value }));
  if (items.length) colours.push({ text: `latent features of ${model}`, items });
  const kinds = ["pca", "umap"].map((value) => {
    return { value, text: value.toUpperCase(), disabled: !about.kinds.includes(value) };
  });
  const button = (name, title, sign, clicked) => {
    const said = { "aria-label": title, title };
    return h("button", { class: name, type: "button", ...said, onclick: clicked }, sign);
  };
  const whole = { class: "lsc-reset", type: "button", title: "Show everything again" };
  const reset = h("button", { ...whole, onclick: shownWhole }, "Reset view");
  return {
    colour: picker("Colour", "lsc-colour", colours, state.colour, (value) => change(view, "colour", value)),
    kind: picker("Projection", "lsc-kind", kinds, state.kind, (value) => change(view, "kind", value)),
    zooms: h(
      "div",
      { class: "lsc-zoom", role: "group", "aria-label": "zoom of all maps" },
      button("lsc-zoom-in", "Zoom in", "+", () => zoomed(1.5)),
      button("lsc-zoom-out", "Zoom out", "−", () => zoomed(1 / 1.5)),
      reset,
    ),
    reset,
  };
}

function fillMaps({ view, choices, grid, legend, repeats }, el) {
  const { about, names } = view;
  const chooser = { class: "lsc-chooser", role: "group", "aria-label": "models shown as maps" };
  if (names.length > 1) el.append(h("div", chooser, h("span", { class: "lsc-dim" }, "Models shown"), choices));
  const foot = h("div", { class: "lsc-foot" }, repeats);
  el.append(grid, legend, foot);
  const lacking = ["label", "predictions", "drift", "representers", "umap"].filter((name) => about.missing?.[name]);
  if (!lacking.length) return;
  const reasons = lacking.map((name) => h("li", {}, h("b", {}, `${name}: `), words("span", "", about.missing[name])));
  const title = h("summary", {}, "What is not available, and why");
  foot.append(h("details", { class: "lsc-why" }, title, h("ul", {}, ...reasons)));
}

/** The boxes that say which models are shown. */
function chooseModels({ view, choices }) {
  const { names, state } = view;
  const focused = [...choices.querySelectorAll("input")].indexOf(document.activeElement);
  choices.replaceChildren(
    ...names.flatMap((name, m) => {
      if (atStep(view, m) !== m) return []; // a training is there once
      const box = h("input", { type: "checkbox", class: "lsc-show-model", "aria-label": `show ${name}` });
      box.checked = state.models.includes(name);
      box.disabled = box.checked && state.models.length === 1;
      box.addEventListener("change", () => {
        const wanted = (other) => (other === name ? box.checked : state.models.includes(other));
        change(view, "models", names.filter(wanted));
      });
      const look = { class: "lsc-check", title: fullName(view, m) };
      return h("label", look, box, glyph(view, m), words("span", "lsc-name", name));
    }),
  );
  choices.querySelectorAll("input")[focused]?.focus();
}

// ---------------------------------------------------------------------------------------------- which maps there are

/** Show the maps of the chosen models; those that were there before stay. */
function showMaps(panel) {
  const { view, grid, observer } = panel;
  const before = new Map(panel.maps.map((map) => [map.slot, map]));
  for (const map of panel.maps) observer.unobserve(map.stage);
  const slots = new Set();
  panel.maps = view.state.models.map((name) => {
    const m = view.names.indexOf(name);
    const of = seriesOf(view, m)?.name ?? m;
    const slot = slots.has(of) ? m : of; // one map a training, whose points travel
    slots.add(slot);
    const map = before.get(slot) ?? makeMap(panel, m);
    if (map.m !== m) turnMap(panel, map, m);
    return Object.assign(map, { slot });
  });
  grid.replaceChildren(...panel.maps.map((map) => map.el));
  grid.dataset.count = panel.maps.length;
  grid.classList.toggle("lsc-many", panel.maps.length > 4);
  for (const map of panel.maps) observer.observe(map.stage);
  sizeMaps(panel);
}

function makeMap(panel, m) {
  const { view } = panel;
  const { n } = view;
  const canvas = h("canvas", { class: "lsc-points", "aria-hidden": "true" });
  const over = h("canvas", { class: "lsc-over", tabindex: 0, role: "application" });
  const wait = h("div", { class: "lsc-wait", hidden: true });
  const stage = h("div", { class: "lsc-stage" }, canvas, over, wait);
  const caption = words("span", "lsc-caption", "");
  const bar = h("progress", { class: "lsc-progress", hidden: true, "aria-label": "UMAP progress" });
  const title = h("div", { class: "lsc-map-title" });
  const above = h("figcaption", {}, title, h("div", { class: "lsc-map-sub" }, caption, bar));
  const map = {
    m,
    slot: m, // what it is the map of: a model, or a training by name
    at: m, // the model whose points it has or moves to
    through: [], // where points pass on their way, of the steps of a training between
    el: h("figure", { class: "lsc-map" }, above, stage),
    title,
    stage,
    canvas, // the points
    over, // rings and the lasso
    caption,
    bar,
    wait,
    pen: canvas.getContext("2d", { alpha: false }),
    ring: over.getContext("2d"),
    from: new Float32Array(2 * n), // x and y of each point, from -1 to 1, y up
    now: new Float32Array(2 * n),
    to: new Float32Array(2 * n),
    has: false, // points
    moving: false,
    source: null, // the answer that the points come from, and where in it they begin
    offset: 0,
    image: null,
    width: 0,
    height: 0,
    ratio: 1,
  };
  turnMap(panel, map, m);
  listenToMap(panel, map);
  return map;
}

/** Make a map that of a model; its points stay until they are told where to go. */
function turnMap({ view }, map, m) {
  const { n, names, about } = view;
  map.m = m;
  map.el.dataset.model = names[m];
  const keys = "Arrow keys go from point to point, Enter selects, Escape clears, plus and minus zoom.";
  map.over.setAttribute("aria-label", `map of ${names[m]}: ${plural(n, "sentence")}. ${keys}`);
  map.title.title = fullName(view, m);
  const note = words("span", "lsc-map-note lsc-dim", about.models[m].note ?? "");
  map.title.replaceChildren(glyph(view, m), words("span", "lsc-name", names[m]), note);
}

function watchSizes(panel) {
  const { endings } = panel.view;
  const sized = () => sizeMaps(panel);
  panel.observer = new ResizeObserver(sized);
  endings.push(() => panel.observer.disconnect());
  window.addEventListener("resize", sized); // and where the ratio of pixels changes
  endings.push(() => window.removeEventListener("resize", sized));
}

function sizeMaps(panel) {
  const ratio = window.devicePixelRatio || 1;
  for (const map of panel.maps) {
    const [width, height] = [map.stage.clientWidth, map.stage.clientHeight];
    if (!width || !height) continue;
    const [w, hgt] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (map.canvas.width !== w || map.canvas.height !== hgt || !map.image) {
      for (const canvas of [map.canvas, map.over]) [canvas.width, canvas.height] = [w, hgt];
      map.image = map.pen.createImageData(w, hgt);
    }
    Object.assign(map, { width, height, ratio });
  }
  redraw(panel);
}

function redraw(panel) {
  panel.dirty = true;
  askFrame(panel.view);
}

function markSelected(panel) {
  panel.selected.fill(0);
  for (const i of panel.view.state.selected) panel.selected[i] = 1;
  redraw(panel);
}

// ---------------------------------------------------------------------------------------------- where points go

/** The answers that say where a map's points lie: PCA's, asked for where wanted, and UMAP's if that is chosen. */
function pointsOf({ view }, { m }, send) {
  const one = view.about.one_by_one;
  // Of very many sentences the map of the layer that is shown does not wait for those of the others.
  const pca = answer(view, everyLayer(m), send && !one) ?? (one ? answer(view, thisLayer(view, m), send) : undefined);
  const umap = view.state.kind === "umap" ? answer(view, umapOf(view, m), false) : null;
  return [pca, umap];
}

const everyLayer = (m) => ({ ask: "map", model: m, kind: "pca" });
const thisLayer = (view, m) => ({ ...everyLayer(m), layer: layerOf(view, m) });
const umapOf = (view, m) => ({ ask: "map", model: m, kind: "umap", layer: layerOf(view, m) });

/** Let all points set out for where they lie at the present layer. */
function aim(panel) {
  const { view, maps, calm } = panel;
  const { n } = view;
  let moved = false;
  let trained = false;
  const found = maps.map((map) => pointsOf(panel, map, true));
  if (found.every(([pca]) => pca)) for (const { m } of maps) answer(view, everyLayer(m)); // where only one was there
  for (const [place, map] of maps.entries()) {
    const [pca, umap] = found[place];
    describeMap(panel, map, pca, umap);
    const alone = umap?.data || pca?.layer !== undefined; // one layer, not all of a model
    const [source, offset] = [umap?.data ?? pca?.data, alone ? 0 : 2 * n * layerOf(view, map.m)];
    if (!source || source.length < offset + 2 * n) continue;
    if (map.source === source && map.offset === offset) continue;
    Object.assign(map, { source, offset });
    map.from.set(map.now);
    placesIn(source, offset, map.to);
    map.through = umap?.data ? [] : passedPlaces(view, map);
    trained ||= map.at !== map.m;
    map.at = map.m;
    const { to } = map;
    if (!map.has || calm.matches) map.now.set(to);
    else moved = map.moving = true;
    map.has = true;
  }
  if (moved) panel.movement = { begun: null, lasts: trained ? TRAIN_MS : MOVE_MS };
  redraw(panel);
}

function placesIn(source, offset, out) {
  for (let i = 0; i < out.length; i++) out[i] = source[offset + i] / 32767.5 - 1;
  return out;
}

/** Where the points of a map lie at the steps of a training that are passed, as far as that is known. */
function passedPlaces(view, map) {
  const { n } = view;
  return stepsBetween(view, map.at, map.m).flatMap((m) => {
    const data = answer(view, everyLayer(m), false)?.data;
    const offset = 2 * n * layerOf(view, m);
    return data && data.length >= offset + 2 * n ? [placesIn(data, offset, new Float32Array(2 * n))] : [];
  });
}

/** Ask for UMAP maps once the slider rests, and again from time to time: what is there is not asked for. */
function askAgain(panel) {
  const { view } = panel;
  panel.askUmaps = debounced(() => {
    if (view.state.kind === "umap") for (const { m } of panel.maps) answer(view, umapOf(view, m));
  }, WAIT_MS);
  const again = setInterval(panel.askUmaps, AGAIN_EVERY_MS);
  view.endings.push(
    () => panel.askUmaps.cancel(),
    () => clearInterval(again),
  );
}

/** The line above a map: its projection, and what is not there yet. */
function describeMap({ view }, map, pca, umap) {
  const { about, state, progress } = view;
  const last = about.models[map.m].layers - 1;
  const layer = layerOf(view, map.m);
  const parts = [];
  if (state.layer > last) parts.push(`its last layer, ${last}`);
  map.el.classList.toggle("lsc-ended", state.layer > last);
  let done = null;
  if (state.kind === "umap" && umap?.data) parts.push("UMAP");
  else {
    const share = pca?.explained?.[layer];
    const little = share < FEW ? "the map shows little: " : "";
    const text = Number.isFinite(share) ? `PCA, ${little}${percent(share)} of the variance` : "PCA";
    if (state.kind !== "umap") parts.push(text);
    else if (umap?.why) parts.push(`${text}. ${umap.why}`);
    else {
      parts.push("PCA until UMAP is ready");
      const going = progress.get(`${map.m}/${layer}`);
      done = going?.of ? going.done / going.of : 0;
    }
  }
  map.caption.textContent = parts.join(" · ");
  map.caption.title = map.caption.textContent;
  map.bar.hidden = done === null;
  if (done !== null) map.bar.value = done;
  const why = pca?.why;
  map.wait.hidden = Boolean(pca?.data) || (map.has && !why);
  map.wait.textContent = why ?? "Waiting for the notebook…";
  map.wait.classList.toggle("lsc-late", !why);
}

// ---------------------------------------------------------------------------------------------- frames

/** Draw a frame; return whether there is more to come. */
function drawMaps(panel, time) {
  const { maps, movement } = panel;
  if (movement && movement.begun === null) movement.begun = time - 12; // the first frame already moves
  const share = movement ? clamp((time - movement.begun) / movement.lasts, 0, 1) : 1;
  if (movement) for (const map of maps) if (map.moving) moveMap(map, share);
  if (panel.dirty || movement) maps.forEach((map, place) => drawPoints(panel, map, place));
  for (const map of maps) drawOver(panel, map);
  panel.dirty = false;
  if (share >= 1) panel.movement = null;
  return panel.movement !== null;
}

function moveMap(map, share) {
  const { to, now } = map;
  if (share >= 1) {
    now.set(to);
    map.moving = false;
    return;
  }
  const stops = [map.from, ...map.through, to];
  const way = (1 - (1 - share) ** 3) * (stops.length - 1);
  const leg = Math.min(Math.floor(way), stops.length - 2);
  const [a, b, done] = [stops[leg], stops[leg + 1], way - leg];
  for (let i = 0; i < now.length; i++) now[i] = a[i] + (b[i] - a[i]) * done;
}
