// The maps.

function mapsPart(ctx) {
  const { about, texts, n, codes, names, state, theme, row, change, set, answer, part, picker, note, glyph, clock, endings } = ctx;
  const colourOptions = ["label", "language", "prediction", "drift", "representer"].map((value) => ({ value, text: COLOUR_NAMES[value], disabled: !about.colours.includes(value) }));
  const colour = picker("Colour", "lsc-colour", colourOptions, state.colour, (value) => change("colour", value));
  const kind = picker("Projection", "lsc-kind", ["pca", "umap"].map((value) => ({ value, text: value.toUpperCase(), disabled: !about.kinds.includes(value) })), state.kind, (value) => change("kind", value));
  const zooms = h(
    "div",
    { class: "lsc-zoom", role: "group", "aria-label": "zoom of all maps" },
    h("button", { class: "lsc-zoom-in", type: "button", "aria-label": "Zoom in", title: "Zoom in", onclick: () => zoom(1.5) }, "+"),
    h("button", { class: "lsc-zoom-out", type: "button", "aria-label": "Zoom out", title: "Zoom out", onclick: () => zoom(1 / 1.5) }, "−"),
  );
  const reset = h("button", { class: "lsc-reset", type: "button", title: "Show everything again", onclick: () => view(1, 0, 0) }, "Reset view");
  zooms.append(reset);
  const el = part("maps", "Maps", colour.field, kind.field, zooms);
  if (about.missing?.maps) {
    for (const tool of [colour.field, kind.field, zooms]) tool.remove();
    return ctx.absent(el, about.missing.maps);
  }
  const choices = h("div", { class: "lsc-choices" });
  const chooser = h("div", { class: "lsc-chooser", role: "group", "aria-label": "models shown as maps" }, h("span", { class: "lsc-dim" }, "Models shown"), choices);
  const grid = h("div", { class: "lsc-mapgrid" });
  const legend = h("div", { class: "lsc-legend lsc-categories", role: "group", "aria-label": "categories" });
  const repeats = h("p", { class: "lsc-dim lsc-repeats", hidden: true }, `Colours repeat after ${CATEGORIES}, each time with another shape.`);
  const foot = h("div", { class: "lsc-foot" }, repeats);
  if (names.length > 1) el.append(chooser);
  el.append(grid, legend, foot);
  const absent = ["label", "predictions", "drift", "representers", "umap"].filter((name) => about.missing?.[name]);
  if (absent.length) foot.append(h("details", { class: "lsc-why" }, h("summary", {}, "What is not available, and why"), h("ul", {}, ...absent.map((name) => h("li", {}, h("b", {}, `${name}: `), words("span", "", about.missing[name]))))));

  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const order = shuffled(n);
  const selected = new Uint8Array(n);
  let maps = [];
  let start = -1; // time the present movement began, or -1
  let dirty = true;
  let stamps = { key: "" };
  let palette = null;
  let lasso = null;
  let held = null; // the answer whose representers colour the maps

  // --- which maps there are
  function choose() {
    const focused = [...choices.querySelectorAll("input")].indexOf(document.activeElement);
    choices.replaceChildren(
      ...names.map((name, m) => {
        const box = h("input", { type: "checkbox", class: "lsc-show-model", "aria-label": `show ${name}` });
        box.checked = state.models.includes(name);
        box.disabled = (!box.checked && state.models.length >= 4) || (box.checked && state.models.length === 1);
        box.addEventListener("change", () => change("models", names.filter((other) => (other === name ? box.checked : state.models.includes(other)))));
        return h("label", { class: "lsc-check", title: box.disabled && !box.checked ? "At most four maps at a time" : ctx.fullName(m) }, box, glyph(m), words("span", "lsc-name", name));
      }),
    );
    choices.querySelectorAll("input")[focused]?.focus();
  }
  function build() {
    const before = new Map(maps.map((map) => [map.m, map]));
    for (const map of maps) map.observer.unobserve(map.stage);
    maps = state.models.map((name) => {
      const m = names.indexOf(name);
      return before.get(m) ?? makeMap(m);
    });
    grid.replaceChildren(...maps.map((map) => map.el));
    grid.dataset.count = maps.length;
    for (const map of maps) map.observer.observe(map.stage);
    size();
  }
  const observer = new ResizeObserver(() => size());
  endings.push(() => observer.disconnect());
  function makeMap(m) {
    const canvas = h("canvas", { class: "lsc-points", "aria-hidden": "true" });
    const over = h("canvas", { class: "lsc-over", tabindex: 0, role: "application", "aria-label": `map of ${names[m]}: ${plural(n, "sentence")}. Arrow keys go from point to point, Enter selects, Escape clears, plus and minus zoom.` });
    const stage = h("div", { class: "lsc-stage" }, canvas, over);
    const caption = words("span", "lsc-caption", "");
    const bar = h("progress", { class: "lsc-progress", hidden: true, "aria-label": "UMAP progress" });
    const wait = h("div", { class: "lsc-wait", hidden: true });
    stage.append(wait);
    const figure = h("figure", { class: "lsc-map", "data-model": names[m] }, h("figcaption", {}, h("div", { class: "lsc-map-title", title: ctx.fullName(m) }, glyph(m), words("span", "lsc-name", names[m]), words("span", "lsc-map-note lsc-dim", about.models[m].note ?? "")), h("div", { class: "lsc-map-sub" }, caption, bar)), stage);
    const map = { m, el: figure, stage, canvas, over, caption, bar, wait, observer, pen: canvas.getContext("2d", { alpha: false }), ring: over.getContext("2d"), from: new Float32Array(2 * n), now: new Float32Array(2 * n), to: new Float32Array(2 * n), has: false, source: null, image: null, width: 0, height: 0, scale: 1 };
    listen(map);
    return map;
  }
  function size() {
    const ratio = window.devicePixelRatio || 1;
    for (const map of maps) {
      const [width, height] = [map.stage.clientWidth, map.stage.clientHeight];
      if (!width || !height) continue;
      const [w, hgt] = [Math.round(width * ratio), Math.round(height * ratio)];
      if (map.canvas.width !== w || map.canvas.height !== hgt || !map.image) {
        for (const canvas of [map.canvas, map.over]) [canvas.width, canvas.height] = [w, hgt];
        map.image = map.pen.createImageData(w, hgt);
      }
      Object.assign(map, { width, height, ratio });
    }
    redraw();
  }
  const resized = () => size();
  window.addEventListener("resize", resized);
  endings.push(() => window.removeEventListener("resize", resized));
  const redraw = () => {
    dirty = true;
    clock.ask();
  };

  // --- where points go
  function aim() {
    let moved = false;
    for (const map of maps) {
      const layer = ctx.layerOf(map.m);
      const pca = answer({ ask: "map", model: map.m, kind: "pca" });
      const umap = state.kind === "umap" ? answer({ ask: "map", model: map.m, kind: "umap", layer }, false) : null;
      const [source, offset] = umap?.data ? [umap.data, 0] : pca?.data ? [pca.data, 2 * n * layer] : [null, 0];
      describe(map, layer, pca, umap);
      if (!source || source.length < offset + 2 * n) continue;
      if (map.source === source && map.offset === offset) continue;
      Object.assign(map, { source, offset });
      map.from.set(map.now);
      const { to } = map;
      for (let i = 0; i < 2 * n; i++) to[i] = source[offset + i] / 32767.5 - 1;
      if (!map.has || calm.matches) map.now.set(to);
      if (map.has && !calm.matches) moved = map.moving = true;
      map.has = true;
    }
    if (moved) start = -2; // begins with the next frame
    redraw();
  }
  const askUmap = debounced(() => {
    if (state.kind === "umap") for (const map of maps) answer({ ask: "map", model: map.m, kind: "umap", layer: ctx.layerOf(map.m) });
  }, WAIT_MS);
  const again = setInterval(askUmap, 10000); // asks that the notebook dropped or lost; what is there is not asked for
  endings.push(() => askUmap.cancel(), () => clearInterval(again));
  function describe(map, layer, pca, umap) {
    const last = about.models[map.m].layers - 1;
    const parts = [];
    if (state.layer > last) parts.push(`its last layer, ${last}`);
    map.el.classList.toggle("lsc-ended", state.layer > last);
    const going = ctx.progress.get(`${map.m}/${layer}`);
    let done = null;
    if (state.kind === "umap" && umap?.data) parts.push("UMAP");
    else {
      const share = pca?.explained?.[layer];
      const text = Number.isFinite(share) ? `PCA, ${percent(share)} of the variance` : "PCA";
      if (state.kind !== "umap") parts.push(text);
      else if (umap?.why) parts.push(`${text}. ${umap.why}`);
      else {
        parts.push("PCA until UMAP is ready");
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

  // --- colours: one table of colours a map, a code a point
  function paletteOf() {
    const kindOf = state.colour;
    if (kindOf === "drift") {
      const found = maps.map((map) => answer({ ask: "drift", model: map.m }));
      const high = Math.max(...found.map((one) => one?.high ?? 0)) || 1;
      const tables = found.map((one) => table(256, (code) => (code === 255 ? theme.none : theme.points(((code / 254) * (one?.high ?? 0)) / high))));
      return { bar: true, high, why: found.find((one) => one?.why)?.why, pending: found.some((one) => !one), tables, none: 255, most: (map, place, i) => palette.codes(map, place)?.[i] === 254, read: (map, place, i) => { const code = palette.codes(map, place)?.[i] ?? 255; return code === 255 ? NaN : (code / 254) * found[place].high; }, codes: (map, i) => (found[i]?.data ? found[i].data.subarray(n * ctx.layerOf(map.m), n * (ctx.layerOf(map.m) + 1)) : null) };
    }
    if (kindOf === "representer") {
      const fresh = state.open >= 0 ? answer({ ask: "sentence", row: state.open, layer: state.layer }, false) : null;
      if (fresh || held?.row !== state.open) held = fresh; // the former layer's values stay until the new ones are here
      const open = held;
      const values = open?.data;
      let high = 0;
      const each = new Uint8Array(n).fill(255);
      if (values) {
        for (let i = 0; i < n; i++) if (Number.isFinite(values[i])) high = Math.max(high, Math.abs(values[i]));
        for (let i = 0; i < n; i++) if (Number.isFinite(values[i])) each[i] = Math.round(127 + (127 * values[i]) / (high || 1));
      }
      const colours = table(256, (code) => (code === 255 ? theme.none : theme.diverging(code / 254)));
      return { bar: true, diverging: true, values, high, model: open?.representers?.model, open: state.open, why: open && !values ? (open.why ?? "There are no representers for this sentence.") : null, tables: maps.map(() => colours), none: 255, codes: () => each };
    }
    const naming = { label: about.labels, language: about.languages, prediction: about.classes }[kindOf] ?? [];
    const place = (i) => {
      const found = kindOf === "prediction" ? about.labels.indexOf(naming[i]) : i;
      return found >= 0 ? found : about.labels.length + i;
    };
    const colours = table(naming.length + 1, (code) => (code === naming.length ? theme.none : theme.categories[place(code) % CATEGORIES]), (code) => (code === naming.length ? 0 : Math.floor(place(code) / CATEGORIES) % SHAPES.length));
    const read = (from) => {
      const each = new Uint16Array(n);
      for (let i = 0; i < n; i++) each[i] = codes[from + i] >= 0 ? codes[from + i] : naming.length;
      return each;
    };
    const shared = { label: () => read(n), language: () => read(0) }[kindOf]?.() ?? null;
    const each = maps.map((map) => shared ?? (kindOf === "prediction" ? read((2 + map.m) * n) : new Uint16Array(n)));
    return { naming, tables: maps.map(() => colours), none: naming.length, codes: (_, i) => each[i], noneName: { label: "no label", language: "no language", prediction: "no prediction" }[kindOf] ?? "sentences" };
  }
  function table(length, colourOf, shapeOf = () => 0) {
    const colours = new Uint8Array(3 * length);
    const shapes = new Uint8Array(length);
    for (let code = 0; code < length; code++) {
      colours.set(colourOf(code), 3 * code);
      shapes[code] = shapeOf(code);
    }
    return { colours, shapes };
  }
  function recolour() {
    palette = paletteOf();
    paintLegend();
    redraw();
  }
  const hiddenCode = (code) => !palette.bar && state.hidden.has(code);
  const visible = (i, place) => palette.bar || !state.hidden.size || !state.hidden.has(palette.codes(maps[place], place)?.[i]);

  // --- drawing: points are stamped into an image, thousands a millisecond, the same in every browser
  function stampOf(shape, large, ratio) {
    const radius = (clamp(4.6 - 0.55 * Math.log(Math.max(n, 100) / 100), 1.5, 4.6) + (large ? 0.9 : 0)) * ratio;
    const key = `${radius}`;
    stamps[key] ??= [];
    return (stamps[key][shape] ??= stamp(shape, radius));
  }
  function drawPoints(map, place) {
    const { image, now, width, height, ratio } = map;
    if (!image) return;
    const { data } = image;
    const [W, H] = [image.width, image.height];
    new Uint32Array(data.buffer).fill((255 << 24) | (theme.map[2] << 16) | (theme.map[1] << 8) | theme.map[0]);
    if (map.has && palette) {
      const each = palette.codes(map, place);
      const { colours, shapes } = palette.tables[place];
      const chosen = state.selected.length > 0 && state.colour !== "representer"; // there the values say what stands out
      const scale = (Math.min(width, height) / 2) * 0.95 * state.view.k * ratio;
      const [ox, oy] = [W / 2 - state.view.x * scale, H / 2 + state.view.y * scale];
      const strong = n > 8000 ? 170 : n > 800 ? 205 : 230;
      const passes = chosen || palette.bar ? [0, 1] : [1];
      for (const pass of passes) {
        for (let o = 0; o < n; o++) {
          const i = order[o];
          const code = each ? each[i] : palette.none;
          const isNone = code === palette.none;
          // first what stays behind: without a value, or not selected
          const front = chosen ? selected[i] === 1 : !(palette.bar && isNone);
          if (passes.length === 2 && front !== (pass === 1)) continue;
          if (hiddenCode(code)) continue;
          const px = Math.floor((ox + now[2 * i] * scale) * 4);
          const py = Math.floor((oy - now[2 * i + 1] * scale) * 4);
          const { half, side, masks } = stampOf(shapes[code] ?? 0, chosen && pass === 1, ratio);
          const x0 = (px >> 2) - half;
          const y0 = (py >> 2) - half;
          if (x0 >= W || y0 >= H || x0 + side <= 0 || y0 + side <= 0) continue;
          const mask = masks[((py & 3) << 2) | (px & 3)];
          const alpha = pass === 0 ? (chosen ? 34 : 110) : chosen ? 245 : isNone ? 140 : strong;
          const [r, g, b] = [colours[3 * code], colours[3 * code + 1], colours[3 * code + 2]];
          const [xa, xb] = [Math.max(0, -x0), Math.min(side, W - x0)];
          const [ya, yb] = [Math.max(0, -y0), Math.min(side, H - y0)];
          for (let yy = ya; yy < yb; yy++) {
            let at = ((y0 + yy) * W + x0 + xa) * 4;
            for (let k = yy * side + xa; k < yy * side + xb; k++, at += 4) {
              const cover = mask[k];
              if (!cover) continue;
              const a = cover * alpha;
              data[at] += ((r - data[at]) * a) / 65025;
              data[at + 1] += ((g - data[at + 1]) * a) / 65025;
              data[at + 2] += ((b - data[at + 2]) * a) / 65025;
            }
          }
        }
      }
    }
    map.pen.putImageData(image, 0, 0);
  }
  function screen(map, i) {
    const scale = (Math.min(map.width, map.height) / 2) * 0.95 * state.view.k;
    return [map.width / 2 + (map.now[2 * i] - state.view.x) * scale, map.height / 2 - (map.now[2 * i + 1] - state.view.y) * scale];
  }
  function drawOver(map) {
    const pen = map.ring;
    if (!map.width) return;
    pen.setTransform(map.ratio, 0, 0, map.ratio, 0, 0);
    pen.clearRect(0, 0, map.width, map.height);
    if (!map.has) return;
    const ring = (i, radius, width) => {
      const [x, y] = screen(map, i);
      for (const [colourOf, extra] of [[theme.map, 2.5], [theme.ink, 0]]) {
        pen.beginPath();
        pen.arc(x, y, radius, 0, 2 * Math.PI);
        pen.strokeStyle = css(colourOf);
        pen.lineWidth = width + extra;
        pen.stroke();
      }
    };
    if (state.open >= 0) ring(state.open, 8, 2);
    if (state.hover >= 0 && state.hover !== state.open) ring(state.hover, 7, 1.5);
    if (lasso?.map === map && lasso.moved) {
      pen.beginPath();
      lasso.path.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.closePath();
      pen.fillStyle = `rgb(${theme.accent.join(" ")} / 0.12)`;
      pen.fill();
      pen.strokeStyle = css(theme.accent);
      pen.lineWidth = 1.5;
      pen.setLineDash([5, 3]);
      pen.stroke();
      pen.setLineDash([]);
    }
  }
  clock.drawers.push((time) => {
    if (start === -2) start = time - 12; // the first frame already moves
    const share = start >= 0 ? clamp((time - start) / MOVE_MS, 0, 1) : 1;
    if (start >= 0) {
      const eased = 1 - (1 - share) ** 3;
      for (const map of maps) {
        if (!map.moving) continue;
        const { from, to, now } = map;
        if (share >= 1) {
          now.set(to);
          map.moving = false;
        } else for (let i = 0; i < 2 * n; i++) now[i] = from[i] + (to[i] - from[i]) * eased;
      }
    }
    if (dirty || start >= 0) maps.forEach((map, place) => drawPoints(map, place));
    maps.forEach(drawOver);
    dirty = false;
    if (share >= 1) start = -1;
    return start >= 0;
  });

  // --- pointer and keyboard
  function nearest(map, x, y, reach) {
    const place = maps.indexOf(map);
    const scale = (Math.min(map.width, map.height) / 2) * 0.95 * state.view.k;
    const [ox, oy] = [map.width / 2 - state.view.x * scale, map.height / 2 + state.view.y * scale];
    let [best, found] = [reach * reach, -1];
    const chosen = state.selected.length > 0;
    for (let i = 0; i < n; i++) {
      const dx = ox + map.now[2 * i] * scale - x;
      const dy = oy - map.now[2 * i + 1] * scale - y;
      // where points overlap, a selected one is drawn on top and is meant first
      const distance = (dx * dx + dy * dy) * (chosen && !selected[i] ? 1.5 : 1);
      if (distance < best && visible(i, place)) [best, found] = [distance, i];
    }
    return found;
  }
  function describeRow(i) {
    const lines = [words("p", "lsc-tip-text", ctx.textOf(i))];
    lines.push(h("p", { class: "lsc-dim" }, ...joined([words("span", "", texts?.id[i] ?? ""), words("span", "", row.language(i)), row.label(i) ? words("span", "", row.label(i)) : null])));
    if (palette.values && Number.isFinite(palette.values[i])) lines.push(h("p", {}, `representer value ${number(palette.values[i])}`));
    const list = h("table", {});
    maps.forEach((map, place) => {
      const predicted = row.predicted(map.m, i);
      const drift = state.colour === "drift" ? palette.read(map, place, i) : NaN;
      if (!predicted && !Number.isFinite(drift)) return;
      const line = h("tr", {}, h("td", {}, glyph(map.m)), words("th", "", names[map.m]));
      if (predicted) line.append(words("td", row.label(i) && predicted !== row.label(i) ? "lsc-wrong" : "", predicted));
      if (Number.isFinite(drift)) line.append(h("td", { class: "lsc-num" }, `drift ${palette.most(map, place, i) ? "≥ " : ""}${number(drift)}`));
      list.append(line);
    });
    if (list.children.length) lines.push(list);
    return lines;
  }
  function hover(map, i, event) {
    if (i >= 0) state.lastHover = i;
    set("hover", i);
    if (i < 0) return ctx.hideTip();
    const box = map.stage.getBoundingClientRect();
    const [x, y] = screen(map, i);
    ctx.showTip(event?.clientX ?? box.left + x, event?.clientY ?? box.top + y, ...describeRow(i));
  }
  function pick(rows, add) {
    change("selected", add ? Int32Array.from(new Set([...state.selected, ...rows])).sort() : Int32Array.from(rows));
  }
  const clear = () => {
    lasso = null;
    change("selected", new Int32Array(0));
    redraw();
  };
  function listen(map) {
    const { over } = map;
    const where = (event) => {
      const box = over.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    over.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      over.setPointerCapture(event.pointerId);
      lasso = { map, path: [where(event)], moved: false, add: event.shiftKey };
    });
    over.addEventListener("pointermove", (event) => {
      const [x, y] = where(event);
      if (!lasso) return hover(map, map.has ? nearest(map, x, y, NEAR) : -1, event);
      const [lx, ly] = lasso.path.at(-1);
      if (Math.hypot(x - lx, y - ly) < (lasso.moved ? 2 : 4)) return;
      lasso.moved = true;
      lasso.path.push([x, y]);
      hover(map, -1);
      clock.ask();
    });
    over.addEventListener("pointerup", (event) => {
      if (lasso?.map !== map) return;
      const { path, moved, add } = lasso;
      lasso = null;
      if (moved) pick(inside(map, path), add);
      else {
        const i = nearest(map, ...where(event), NEAR);
        if (i >= 0) pick([i], add);
      }
      clock.ask();
    });
    over.addEventListener("pointercancel", () => {
      lasso = null;
      clock.ask();
    });
    over.addEventListener("pointerleave", () => !lasso && hover(map, -1));
    over.addEventListener("dblclick", clear);
    over.addEventListener("blur", () => hover(map, -1));
    over.addEventListener(
      "wheel",
      (event) => {
        // a page that is being scrolled goes on scrolling when a map comes under the pointer
        if (event.timeStamp - elsewhere < 300 || (event.deltaY > 0 && state.view.k <= 1)) {
          elsewhere = event.timeStamp;
          return;
        }
        event.preventDefault();
        const [x, y] = where(event);
        zoom(Math.exp(-clamp(event.deltaY, -120, 120) / 300), map, x, y);
      },
      { passive: false },
    );
    over.addEventListener("keydown", (event) => {
      const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (way) stepTo(map, way);
      else if (event.key === "Enter" || event.key === " ") {
        if (state.hover >= 0) pick([state.hover], event.shiftKey);
      } else if (event.key === "Escape") clear();
      else if (event.key === "+" || event.key === "=") zoom(1.5);
      else if (event.key === "-") zoom(1 / 1.5);
      else if (event.key === "0") view(1, 0, 0);
      else return;
      event.preventDefault();
    });
  }
  let elsewhere = -1000; // time of the last wheel event outside the maps
  const wheeled = (event) => {
    if (!event.target.classList?.contains("lsc-over")) elsewhere = event.timeStamp;
  };
  document.addEventListener("wheel", wheeled, { passive: true, capture: true });
  endings.push(() => document.removeEventListener("wheel", wheeled, { capture: true }));

  function stepTo(map, [dx, dy]) {
    if (!map.has) return;
    const place = maps.indexOf(map);
    let next = state.hover;
    if (next < 0) next = nearest(map, map.width / 2, map.height / 2, Infinity);
    else {
      const [x, y] = screen(map, next);
      let best = Infinity;
      for (let i = 0; i < n; i++) {
        if (i === state.hover || !visible(i, place)) continue;
        const [px, py] = screen(map, i);
        const along = (px - x) * dx + (py - y) * dy;
        const across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
        if (along <= 0.5 || across > 2 * along) continue;
        if (along + 2 * across < best) [best, next] = [along + 2 * across, i];
      }
    }
    hover(map, next);
    ctx.say(`${ctx.textOf(next)} ${row.language(next)} ${row.label(next)}`);
  }
  function inside(map, path) {
    const place = maps.indexOf(map);
    const found = [];
    const xs = path.map((at) => at[0]);
    const ys = path.map((at) => at[1]);
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    if (!map.has) return found;
    for (let i = 0; i < n; i++) {
      const [x, y] = screen(map, i);
      if (x < x0 || x > x1 || y < y0 || y > y1 || !visible(i, place)) continue;
      let within = false;
      for (let a = 0, b = path.length - 1; a < path.length; b = a++) if (ys[a] > y !== ys[b] > y && x < ((xs[b] - xs[a]) * (y - ys[a])) / (ys[b] - ys[a]) + xs[a]) within = !within;
      if (within) found.push(i);
    }
    return found;
  }
  function view(k, x, y) {
    state.view = { k, x: clamp(x, -1, 1), y: clamp(y, -1, 1) };
    reset.disabled = k === 1 && x === 0 && y === 0;
    redraw();
  }
  function zoom(factor, map = maps[0], px = map.width / 2, py = map.height / 2) {
    const k = clamp(state.view.k * factor, 1, 40);
    if (k <= 1.001) return view(1, 0, 0);
    const unit = (Math.min(map.width, map.height) / 2) * 0.95;
    const [dx, dy] = [(px - map.width / 2) / unit, (map.height / 2 - py) / unit];
    view(k, state.view.x + dx / state.view.k - dx / k, state.view.y + dy / state.view.k - dy / k);
  }

  // --- legend
  function paintLegend() {
    legend.classList.toggle("lsc-bar", Boolean(palette.bar));
    repeats.hidden = true;
    if (palette.bar) {
      const scaleOf = palette.diverging ? theme.diverging : theme.points;
      const strip = h("span", { class: "lsc-strip" });
      strip.style.background = `linear-gradient(90deg, ${Array.from({ length: 12 }, (_, i) => css(scaleOf(i / 11))).join(", ")})`;
      const [low, high] = palette.diverging ? [-palette.high, palette.high] : [0, palette.high];
      const title = palette.diverging ? "representer value" : "1 − cosine to the baseline";
      const asks = palette.diverging && palette.open < 0 ? "Open a sentence to colour the training sentences that speak for and against it." : palette.pending ? "Waiting for the notebook…" : palette.why;
      if (asks) legend.replaceChildren(words("span", "lsc-dim", asks));
      else legend.replaceChildren(h("span", {}, title), h("span", { class: "lsc-num" }, number(low)), strip, h("span", { class: "lsc-num" }, number(high)), words("span", "lsc-dim", palette.diverging ? `orange: against, blue: for${palette.model ? ` · ${palette.model}` : ""}` : ""));
      return;
    }
    const sums = new Map();
    for (let i = 0; i < n; i++) {
      const code = palette.codes(maps[0], 0)[i];
      sums.set(code, (sums.get(code) ?? 0) + 1);
    }
    const { colours, shapes } = palette.tables[0];
    const item = (code, name) => {
      const sign = s("svg", { class: "lsc-glyph", width: 12, height: 12, viewBox: "-6 -6 12 12", "aria-hidden": "true" }, s("path", { d: SHAPES[shapes[code]](4), fill: css(colours.subarray(3 * code, 3 * code + 3)) }));
      const button = h("button", { class: "lsc-item", type: "button", "aria-pressed": String(!state.hidden.has(code)), title: `${name}: hide or show` }, sign, words("span", "lsc-name", name), state.colour === "prediction" ? null : h("span", { class: "lsc-dim lsc-num" }, count(sums.get(code) ?? 0)));
      button.addEventListener("click", () => {
        state.hidden.has(code) ? state.hidden.delete(code) : state.hidden.add(code);
        button.setAttribute("aria-pressed", String(!state.hidden.has(code)));
        all.hidden = !state.hidden.size;
        redraw();
      });
      return button;
    };
    const all = h("button", { class: "lsc-all", type: "button", hidden: !state.hidden.size, onclick: () => {
      state.hidden.clear();
      paintLegend();
      redraw();
      legend.querySelector("button")?.focus();
    } }, "Show all");
    legend.replaceChildren(...palette.naming.map((name, code) => item(code, name)), ...(sums.has(palette.none) ? [item(palette.none, palette.noneName)] : []), all);
    repeats.hidden = palette.naming.length <= CATEGORIES;
  }

  const reselect = () => {
    selected.fill(0);
    for (const i of state.selected) selected[i] = 1;
    redraw();
  };

  choose();
  build();
  reselect();
  view(1, 0, 0);
  aim();
  askUmap();
  recolour();
  return {
    el,
    update(what, detail) {
      if (what === "layer") {
        aim();
        askUmap();
        if (state.colour === "drift" || state.colour === "representer") palette = paletteOf();
      } else if (what === "models") {
        choose();
        build();
        aim();
        askUmap();
        recolour();
      } else if (what === "kind") {
        kind.select.value = state.kind;
        aim();
        askUmap();
      } else if (what === "colour") {
        colour.select.value = state.colour;
        recolour();
      } else if (what === "selected") reselect();
      else if (what === "open") {
        if (state.colour === "representer") recolour();
        else clock.ask();
      } else if (what === "hover") clock.ask();
      else if (what === "answer") {
        if (detail === "map") aim();
        else if (detail === "drift" && state.colour === "drift") recolour();
        else if (detail === "sentence" && state.colour === "representer") recolour();
      } else if (what === "progress") {
        for (const map of maps) describe(map, ctx.layerOf(map.m), answer({ ask: "map", model: map.m, kind: "pca" }, false), state.kind === "umap" ? answer({ ask: "map", model: map.m, kind: "umap", layer: ctx.layerOf(map.m) }, false) : null);
      } else if (what === "theme") recolour();
      else if (what === "size") size();
    },
  };
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

/** Pieces of a line with a middle dot between them. */
function joined(pieces) {
  const kept = pieces.filter(Boolean);
  return kept.flatMap((piece, i) => (i ? [" · ", piece] : [piece]));
}
