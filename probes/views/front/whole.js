// The whole: curves by layer, maps of all shown models, sentences, alignment and similarity, put together from one
// widget model; the theme of the page, its size and its keys. The last piece: it names the regions of all others.

const REGIONS = {
  controls: controlsPart,
  curves: curvesPart,
  maps: mapsPart,
  sentences: sentencesPart,
  alignment: alignmentPart,
  similarity: similarityPart,
};
const DIVERGING = ["#9c4a05", "#d9822b", "#f2b873", "middle", "#94bfe0", "#3f86bf", "#0b4f8a"]; // a loss is orange
// there the ends are the bright ones
const DIVERGING_DARK = ["#ffd39a", "#e0892b", "#8f561d", "middle", "#32699b", "#62aeea", "#b5daf8"];
// ever darker: safe for the colour blind, and in grey
const SEQUENTIAL = ["#fbf7e3", "#dcebcb", "#a5d4c3", "#5fb2c5", "#3886b6", "#285b9c", "#1b2f6e"];

function render({ model, el }) {
  const view = makeView(model, el);
  const { root, grid, endings } = view;
  hearTraits(view);
  hearAnswers(view);
  endings.push(
    () => cancelAnimationFrame(view.clock.id),
    () => clearTimeout(view.said),
  );

  const saved = model.get("parts");
  const wanted = (Array.isArray(saved) && saved.length ? saved : Object.keys(REGIONS)).filter(
    (name) => name in REGIONS,
  );
  root.append(header(view), watchSilence(view));
  el.replaceChildren(root);
  readTheme(view);
  addRegions(view, wanted);

  const arrange = () => {
    const width = root.clientWidth;
    if (width) arrangeGrid(grid, wanted, width);
  };
  const themed = themeChanges(view);
  arrange();
  const sizes = new ResizeObserver(() => {
    themed(); // the element may have been drawn before it was in the page
    arrange();
    notify(view, "size");
  });
  sizes.observe(root);
  endings.push(() => sizes.disconnect());
  keepKeys(view);
  watchTheme(view, themed);
  hidePictures(view);

  askFrame(view);
  return () => {
    for (const end of endings) end();
    el.replaceChildren();
  };
}

/** Title, what is shown, and what is to be noted. */
function header(view) {
  const { model, about, n, names, endings } = view;
  const head = h("header", { class: "lsc-top" });
  if (about.title) head.append(words("h2", "lsc-title", about.title));
  const shown = [
    about.total > n ? `${count(n)} of ${plural(about.total, "sentence")}` : plural(n, "sentence"),
    plural(about.languages.length, "language"),
    about.labels.length ? plural(about.labels.length, "label") : null,
    plural(names.length, "model"),
  ];
  head.append(h("p", { class: "lsc-sub" }, shown.filter(Boolean).join(" · ")));
  if (about.verdict?.length) head.append(verdictOf(about.verdict));
  if (about.causes?.length) head.append(causesOf(about.causes));
  const notes = h("ul", { class: "lsc-notes" });
  const noted = () => {
    const list = model.get("about").notes ?? [];
    notes.replaceChildren(...list.map((text) => words("li", "lsc-note", text)));
    notes.hidden = !list.length;
  };
  head.append(notes);
  noted();
  model.on("change:about", noted);
  endings.push(() => model.off("change:about", noted));
  return head;
}

/** A line or more a model: what it costs, lost, kept or cannot tell, and why. */
function verdictOf(readings) {
  const list = h("div", { class: "lsc-verdict" });
  for (const { model, size, state, sentences } of readings) {
    const said = h("ul", {});
    const costs = h("span", { class: "lsc-size" });
    costs.append(...size.map((text) => words("span", "", text)));
    said.append(...sentences.map((sentence) => words("li", "", sentence)));
    list.append(words("b", "", model), costs, words("span", `lsc-state lsc-${state.replace(" ", "-")}`, state), said);
  }
  return list;
}

/** Folded: what each layer gives back by its original weights, a bar a layer with its interval; those of modules on
 * demand. */
function causesOf(causes) {
  const all = h("details", { class: "lsc-causes" });
  all.append(words("summary", "", "What caused it: what each layer gives back by its original weights"));
  if (causes.some(({ rows }) => rows.some((row) => row.module))) {
    const box = h("input", { type: "checkbox" });
    box.addEventListener("change", () => all.classList.toggle("lsc-by-module", box.checked));
    const label = h("label", {});
    label.append(box, " attention and feed-forward");
    all.append(label);
  }
  for (const { model, measure, rows } of causes) {
    const list = h("div", { class: "lsc-bars" });
    list.append(words("b", "", `${model}: ${measure}`));
    for (const row of rows) {
      const [kind, name] = row.module ? ["lsc-module", row.module] : ["", `layer ${row.layer}`];
      const label = row.module ? `layer ${row.layer}, ${name}: ${row.told}` : `${name}: ${row.told}`;
      const bar = h("span", { class: `lsc-cause ${kind}`, role: "img", "aria-label": label });
      const [body, ends] = [h("i", { class: row.named ? "lsc-named" : "" }), h("s", {})];
      Object.assign(body.style, { left: `${row.from}%`, width: `${row.width}%` });
      Object.assign(ends.style, { left: `${row.low}%`, width: `${row.spread}%` });
      bar.append(body, ends);
      list.append(words("span", kind, name), bar, words("span", kind, row.told));
    }
    all.append(list);
  }
  return all;
}

function addRegions(view, wanted) {
  const { root, grid, status, tip, regions } = view;
  for (const name of wanted) {
    const region = REGIONS[name](view);
    regions.push(region);
    if (name === "controls") root.append(region.el);
    else grid.append(region.el);
  }
  root.append(grid, status, tip);
  const bar = root.querySelector(".lsc-controls");
  if (bar) bar.append(status);
  if (wanted.includes("sentences")) status.classList.add("lsc-unseen"); // the list shows it
  root.addEventListener("keydown", (event) => {
    const escaped = event.key === "Escape" && !event.defaultPrevented && event.target.tagName !== "SELECT";
    if (escaped) change(view, "selected", new Int32Array(0));
  });
}

// ---------------------------------------------------------------------------------------------- the theme of the page

function isDark(saved) {
  const { body, documentElement: html } = document;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  if (document.querySelector(".vscode-dark, .vscode-high-contrast:not(.vscode-high-contrast-light)")) return true;
  const named = html.getAttribute("theme") ?? html.dataset.theme;
  if (named) return named.includes("dark");
  return Boolean(saved) && matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Colours follow the theme of the page. */
function readTheme({ root, theme, about }) {
  root.dataset.theme = isDark(about.static) ? "dark" : "light";
  const style = getComputedStyle(root);
  const colour = (name) => rgb(style.getPropertyValue(name).trim());
  theme.dark = root.dataset.theme === "dark";
  for (const name of ["map", "ink", "soft", "none", "accent"]) theme[name] = colour(`--lsc-${name}`);
  theme.categories = Array.from({ length: CATEGORIES }, (_, i) => colour(`--lsc-c${i}`));
  const sequential = theme.dark ? [...SEQUENTIAL].reverse() : SEQUENTIAL;
  theme.sequential = ramp(sequential.map(rgb)); // more is further from the page's colour
  theme.points = (share) => theme.sequential(0.22 + 0.78 * share); // the palest would not be seen as points
  const diverging = theme.dark ? DIVERGING_DARK : DIVERGING;
  theme.diverging = ramp(diverging.map((stop) => (stop === "middle" ? colour("--lsc-middle") : rgb(stop))));
  theme.font = style.fontFamily;
}

/** A function that reads the theme again, and has all drawn again where it changed. */
function themeChanges(view) {
  let frame = 0;
  view.endings.push(() => cancelAnimationFrame(frame));
  return () => {
    const before = JSON.stringify(view.theme);
    readTheme(view);
    if (JSON.stringify(view.theme) === before) return;
    cancelAnimationFrame(frame); // in the next frame: while JupyterLab changes its theme nothing has a size
    frame = requestAnimationFrame(() => notify(view, "theme"));
  };
}

function watchTheme({ endings }, themed) {
  const watcher = new MutationObserver(themed);
  const named = ["theme", "data-theme", "data-jp-theme-light", "data-jp-theme-name", "data-vscode-theme-kind"];
  for (const node of [document.documentElement, document.body]) {
    watcher.observe(node, { attributes: true, attributeFilter: ["class", "style", ...named] });
  }
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", themed);
  endings.push(
    () => watcher.disconnect(),
    () => scheme.removeEventListener("change", themed),
  );
}

// ---------------------------------------------------------------------------------------------- the page around it

/** Plain keys pressed in here are not commands of JupyterLab, which would take them first ("d", "d" deletes a cell). */
function keepKeys({ root, endings }) {
  const keyed = (event) => {
    const plain = !(event.ctrlKey || event.metaKey || event.altKey);
    if (root.contains(event.target)) event.target.toggleAttribute("data-lm-suppress-shortcuts", plain);
  };
  window.addEventListener("keydown", keyed, { capture: true });
  endings.push(() => window.removeEventListener("keydown", keyed, { capture: true }));
}

/** Hide the still picture that stands in for the explorer where no widgets run. */
function hidePictures({ about, endings }) {
  let looks = 0;
  const hide = () => {
    for (const picture of document.querySelectorAll(".lsc-picture")) {
      if (about.token && picture.dataset.of === about.token) picture.style.display = "none";
    }
    if (++looks >= 8) clearInterval(poll);
  };
  const poll = setInterval(hide, 250);
  hide();
  endings.push(() => clearInterval(poll));
}

/** Place the regions on twelve columns, for the room there is and the regions that are wanted. */
function arrangeGrid(grid, wanted, width) {
  const there = (name) => wanted.includes(name) && !grid.querySelector(`.lsc-${name}`).classList.contains("lsc-absent");
  const beside = there("maps") && there("sentences"); // then the list is as high as the maps
  const { mode, rows, heights } = gridRows(wanted, width, beside);
  grid.dataset.mode = mode;
  grid.classList.toggle("lsc-beside", mode !== "narrow" && beside);
  const areas = rows.join(" ");
  if (grid.dataset.areas === areas) return;
  grid.dataset.areas = areas;
  grid.style.gridTemplateAreas = areas;
  grid.style.gridTemplateRows = heights.join(" ");
  for (const child of grid.children) child.style.gridArea = child.dataset.part.replace("lsc-", "");
}

function gridRows(wanted, width, beside) {
  const has = (...list) => list.filter((name) => wanted.includes(name));
  const row = (...cells) => `"${cells.flatMap(([name, span]) => Array(span).fill(name)).join(" ")}"`;
  const share = (i, of) => Math.floor((12 * (i + 1)) / of) - Math.floor((12 * i) / of);
  const even = (list) => row(...list.map((name, i) => [name, share(i, list.length)]));
  const rows = [];
  const heights = [];
  const add = (line, height = "auto") => {
    rows.push(line);
    heights.push(height);
  };
  let mode = "wide";
  if (width < 900) {
    mode = "narrow";
    for (const name of has("curves", "maps", "sentences", "alignment", "similarity")) add(even([name]));
  } else if (width < 1560 || has("curves", "maps", "sentences").length < 3) {
    mode = "medium";
    const left = has("curves", "sentences");
    if (wanted.filter((name) => name !== "controls").join() === "curves,similarity") {
      add(row(["curves", 8], ["similarity", 4]));
    } else if (!has("maps").length) {
      if (left.length) add(even(left));
    } else if (!left.length) add(even(["maps"]));
    else if (left.length === 1) add(row([left[0], 5], ["maps", 7]));
    else {
      add(row(["curves", 5], ["maps", 7]));
      add(row(["sentences", 5], ["maps", 7]), beside ? "minmax(320px, 1fr)" : "1fr");
    }
    const below = has("alignment", "similarity").filter((name) => !rows.some((line) => line.includes(name)));
    if (below.length === 2) add(row(["alignment", 9], ["similarity", 3]));
    else if (below.length) add(even(below));
  } else {
    const under = has("similarity");
    add(row(["curves", 4], ["maps", 5], ["sentences", 3]));
    if (under.length) add(row(["similarity", 4], ["maps", 5], ["sentences", 3]), "minmax(0, 1fr)");
    if (has("alignment").length) add(even(["alignment"]));
  }
  return { mode, rows, heights };
}
