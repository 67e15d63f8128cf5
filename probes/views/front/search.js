// Search and filters over the sentences: what is found is selected, and so is shown in every map and in the notebook.

const MOST_MOVED = 50; // sentences that moved most
const NOTHING = { text: "", language: "", label: "", only: "" };

/** The search box and the filters above the list of sentences. */
function searchBar(view) {
  const { about } = view;
  const text = h("input", {
    class: "lsc-search",
    type: "search",
    "aria-label": "search the sentences",
    placeholder: "Search text or id",
    autocomplete: "off",
    spellcheck: "false",
  });
  const search = { view, text, fields: {}, wanted: { ...NOTHING }, found: null, failed: false };
  const later = debounced(() => find(search), WAIT_MS);
  view.endings.push(() => later.cancel());
  text.addEventListener("input", () => {
    search.wanted.text = text.value;
    later();
  });
  const chooser = (name, label, options) => {
    if (options.length < 2) return null;
    const one = picker(label, `lsc-find-${name}`, options, "", (value) => {
      search.wanted[name] = value;
      find(search);
    });
    search.fields[name] = one.select;
    return one.field;
  };
  const of = (names) => [{ value: "", text: "all" }, ...names.map((name, i) => ({ value: String(i), text: name }))];
  search.el = h(
    "div",
    { class: "lsc-tools lsc-searching", role: "search" },
    text,
    chooser("language", "Language", about.names.length > 1 ? of(about.names) : []),
    chooser("label", "Label", about.labels.length > 1 ? of(about.labels) : []),
    chooser("only", "Only", onlyChoices(view)),
  );
  return search;
}

/** What sentences can be picked out by: where models disagree with the baseline, and what moved most in one. */
function onlyChoices({ about, names, others, codes, n }) {
  const predicts = (m) => codes.subarray((2 + m) * n, (3 + m) * n).some((code) => code >= 0);
  const base = about.baseline;
  const judged = base >= 0 && predicts(base) ? others.filter(predicts) : [];
  const one = (kind, m, text) => ({ value: `${kind}/${m}`, text });
  const disagree = judged.map((m) => one("disagrees", m, `${names[m]} disagrees with ${names[base]}`));
  if (judged.length > 1) disagree.unshift(one("disagrees", "any", "any model disagrees"));
  const moved = about.colours.includes("drift") ? others.map((m) => one("moved", m, `moved most in ${names[m]}`)) : [];
  return [{ value: "", text: "all" }, ...disagree, ...moved];
}

/** Select what is found; nothing where nothing is looked for. */
function find(search) {
  const { view, wanted } = search;
  const [kind, which] = wanted.only.split("/");
  Object.assign(search, { failed: false, waits: null, why: null });
  if (Object.values(wanted).every((value) => !value)) {
    search.found = null;
    return change(view, "selected", new Int32Array(0));
  }
  let rows = matching(search, kind, which);
  if (kind === "moved") {
    const ask = { ask: "drift", model: Number(which) };
    const drift = answer(view, ask);
    if (!drift) {
      search.waits = "drift"; // found once it is here
      return;
    }
    rows = drift.data ? mostMoved(view, drift, rows, Number(which)) : [];
    search.why = drift.why;
  }
  search.failed = !rows.length;
  search.found = Int32Array.from(rows);
  const before = view.state.selected;
  change(view, "selected", search.found);
  if (same(before, search.found)) notify(view, "selected"); // nothing before, nothing now: say so
  say(view, `${plural(rows.length, "sentence")} found`);
}

function matching({ view, wanted }, kind, which) {
  const { about, n, codes, texts, others } = view;
  const plain = (text) => text.normalize("NFKC").toLowerCase();
  view.plain ??= Array.from({ length: n }, (_, i) =>
    plain([texts.id[i], texts.text[i], texts.pair?.[i]].filter(Boolean).join("\n")),
  );
  const text = plain(wanted.text.trim());
  const predicted = (m, i) => codes[(2 + m) * n + i];
  const differs = (m, i) => {
    const [own, base] = [predicted(m, i), predicted(about.baseline, i)];
    return own >= 0 && base >= 0 && own !== base;
  };
  const models = kind === "disagrees" ? (which === "any" ? others : [Number(which)]) : null;
  const rows = [];
  for (let i = 0; i < n; i++) {
    if (wanted.language && codes[i] !== Number(wanted.language)) continue;
    if (wanted.label && codes[n + i] !== Number(wanted.label)) continue;
    if (models && !models.some((m) => differs(m, i))) continue;
    if (text && !view.plain[i].includes(text)) continue;
    rows.push(i);
  }
  return rows;
}

/** The rows that lie farthest from the baseline's states at the layer of the slider, farthest first. */
function mostMoved(view, drift, rows, m) {
  const value = (i) => driftAt(drift, view.n * layerOf(view, m) + i);
  const there = rows.filter((i) => value(i) > 0);
  return there.sort((a, b) => value(b) - value(a) || a - b).slice(0, MOST_MOVED);
}

function updateSearch(search, what, kind) {
  const { view, wanted, found } = search;
  if (what === "answer" && kind === search.waits) find(search);
  else if (what === "layer" && wanted.only.startsWith("moved")) find(search);
  else if (what === "selected" && found && !same(found, view.state.selected)) {
    clearSearch(search); // something else was selected: the filters are no longer what is shown
  }
}

function clearSearch(search) {
  Object.assign(search, { wanted: { ...NOTHING }, found: null, failed: false, waits: null, why: null });
  search.text.value = "";
  for (const select of Object.values(search.fields)) select.value = "";
  if (!search.view.state.selected.length) notify(search.view, "selected");
}
