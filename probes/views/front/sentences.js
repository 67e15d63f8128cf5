// The sentences that are selected, open or pointed at: text, label and predictions; of an open one its translations,
// its nearest sentences in each model, and the training sentences behind its prediction.

const LISTED = 50; // sentences at most
const TRANSLATIONS = 60;

function sentencesPart(view) {
  const { about, texts, others, state, endings } = view;
  const cleared = () => {
    clearSearch(panel.search);
    change(view, "selected", new Int32Array(0));
  };
  const clearing = h(
    "button",
    { class: "lsc-clear", type: "button", hidden: true, onclick: cleared },
    "Clear selection",
  );
  const sum = h("span", { class: "lsc-count" });
  const el = part("sentences", "Sentences", sum, clearing);
  if (about.missing?.sentences || !texts) return absent(el, about.missing?.sentences ?? "There are no texts to show.");
  const list = h("ul", { class: "lsc-list" });
  const after = h("div", {});
  const scroller = h("div", { class: "lsc-scroll" }, list, after);
  const search = searchBar(view);
  el.append(search.el, h("div", { class: "lsc-scrollbox" }, scroller));
  const panel = {
    view,
    el,
    clearing,
    sum,
    list,
    after,
    scroller,
    search,
    browse: Boolean(about.missing?.maps), // where there is no map to point at, all are listed
    unfolded: new Set([others[0] ?? 0]), // models whose neighbours are shown
    listed: "", // the rows in the list
    shown: null, // the answer that is shown
    coloured: "moved", // what tokens are coloured by
    ask: debounced(() => {
      if (state.open >= 0) answer(view, sentenceAsk(view, state.open));
    }, WAIT_MS),
  };
  endings.push(() => panel.ask.cancel());
  if (state.selected.length === 1) state.open = state.selected[0];
  listSentences(panel);
  panel.ask();
  return { el, update: (what, kind) => updateSentences(panel, what, kind) };
}

const sentenceAsk = ({ state }, row) => ({ ask: "sentence", row, layer: state.layer });

function updateSentences(panel, what, kind) {
  const { view, el } = panel;
  const { state } = view;
  updateSearch(panel.search, what, kind);
  if (what === "step") panel.listed = null; // what models predict is theirs at the step
  if (what === "step" || what === "selected" || what === "open" || ((what === "layer" || what === "models") && state.open >= 0)) {
    listSentences(panel);
    panel.ask();
  } else if (what === "hover") {
    const follows = !state.selected.length && state.open < 0 && state.hover >= 0;
    if (follows && !el.contains(document.activeElement) && !el.matches(":hover")) listSentences(panel);
  } else if (what === "answer" && kind === "sentence") listSentences(panel);
}

// ---------------------------------------------------------------------------------------------- the list

function rowsNow({ view, browse, search }) {
  const { n, state } = view;
  if (state.selected.length) return [...state.selected.subarray(0, LISTED)];
  if (search.failed) return [];
  if (state.open >= 0) return [state.open];
  if (state.lastHover >= 0) return [state.lastHover];
  return browse ? Array.from({ length: Math.min(n, LISTED) }, (_, i) => i) : [];
}

function listSentences(panel) {
  const { view, sum, clearing, after, list, scroller, browse, search } = panel;
  const { n, state } = view;
  const rows = rowsNow(panel);
  const selected = state.selected.length;
  const last = rows.length === 1 && state.open < 0 ? "last pointed at" : "";
  sum.textContent = selected ? `${count(selected)} selected` : last;
  clearing.hidden = !selected && !search.failed;
  const hint =
    "Point at a map to read a sentence. Click one to keep it, or draw around several; with Shift they are added. " +
    "Escape or a double click clears.";
  const more = (sentences) => h("p", { class: "lsc-more" }, `and ${count(sentences - LISTED)} more`);
  after.replaceChildren();
  if (search.failed) after.append(h("p", { class: "lsc-hint lsc-nothing" }, search.why ?? "No sentence is found so."));
  else if (!rows.length) after.append(h("p", { class: "lsc-hint" }, hint));
  if (selected > LISTED) after.append(more(selected));
  if (browse && !selected && n > LISTED) after.append(more(n));
  const key = rows.join();
  if (key !== panel.listed) {
    panel.listed = key;
    list.replaceChildren(...rows.map((i) => sentenceItem(panel, i)));
    if (selected) scroller.scrollTop = 0;
  }
  for (const item of list.children) foldSentence(panel, item);
}

function sentenceItem(panel, i) {
  const { view } = panel;
  const label = labelOf(view, i);
  const about = [
    words("span", "lsc-id", view.texts.id[i]),
    words("span", "lsc-lang", languageOf(view, i)),
    label ? words("span", "lsc-label", label) : null,
  ];
  const head = h(
    "button",
    { class: "lsc-sentence", type: "button", "aria-expanded": "false", "data-row": i },
    words("span", "lsc-text", textOf(view, i)),
    h("span", { class: "lsc-meta" }, ...joined(about)),
    predictionsOf(view, i),
  );
  head.addEventListener("click", () => openSentence(panel, view.state.open === i ? -1 : i));
  head.addEventListener("pointerenter", () => set(view, "hover", i));
  head.addEventListener("pointerleave", () => set(view, "hover", -1));
  return h("li", { "data-row": i }, head);
}

function predictionsOf(view, i) {
  const { about, names } = view;
  if (!about.classes.length) return "";
  const there = names.map((_, m) => m).filter((m) => isAtStep(view, m));
  const given = names.map((_, m) => (there.includes(m) ? predictedBy(view, m, i) : ""));
  const some = given.filter(Boolean);
  if (!some.length) return "";
  const label = labelOf(view, i);
  const base = about.baseline >= 0 ? given[about.baseline] : "";
  const isWrong = (text) => label && text !== label;
  const prediction = (text) => words("span", isWrong(text) ? "lsc-wrong" : "", text);
  const box = h("span", { class: "lsc-predictions" });
  if (there.length > 1 && some.length === there.length && new Set(some).size === 1) {
    box.append(h("span", { class: "lsc-dim" }, "all models predict "), prediction(some[0]));
    return box;
  }
  given.forEach((text, m) => {
    if (!text) return;
    const differs = m !== about.baseline && base && text !== base;
    const said = [
      `${names[m]}: ${text}`,
      isWrong(text) ? "differs from the label" : "",
      differs ? "differs from the baseline" : "",
    ];
    const one = { class: `lsc-prediction${differs ? " lsc-differs" : ""}`, title: said.filter(Boolean).join(", ") };
    const flag = () => h("span", { class: "lsc-flag", "aria-label": "differs from the baseline" }, "≠");
    box.append(h("span", one, glyph(view, m), prediction(text), differs ? flag() : null));
  });
  return box;
}

// ---------------------------------------------------------------------------------------------- an open sentence

function openSentence({ view, ask }, i) {
  view.state.open = i;
  ask();
  notify(view, "open");
}

/** Show the details of the sentence that is open, and of no other. */
function foldSentence(panel, item) {
  const i = Number(item.dataset.row);
  const isOpen = i === panel.view.state.open;
  item.firstChild.setAttribute("aria-expanded", String(isOpen));
  item.classList.toggle("lsc-open", isOpen);
  const box = item.querySelector(".lsc-detail");
  if (!isOpen) {
    box?.remove();
    return;
  }
  if (!box) item.append(h("div", { class: "lsc-detail" }));
  detailSentence(panel, item.lastChild, i);
}

function detailSentence(panel, box, i) {
  const { view } = panel;
  const got = answer(view, sentenceAsk(view, i), false);
  const there = box.childElementCount > 0;
  if (got && there && panel.shown === got && !box.classList.contains("lsc-stale")) return;
  if (!got && there) {
    box.classList.add("lsc-stale"); // the former layer's, until the new answer is here
    return;
  }
  panel.shown = got ?? null;
  const focused = document.activeElement?.closest?.("summary")?.dataset.model;
  box.classList.remove("lsc-stale");
  const about = [translationsOf(panel, i), neighboursOf(panel, got), representersOf(panel, got)];
  box.replaceChildren(tokensOf(panel, i), ...about);
  if (focused !== undefined) box.querySelector(`summary[data-model="${focused}"]`)?.focus();
}

const block = (title, ...content) => h("div", { class: "lsc-block" }, h("h4", {}, title), ...content);

/** Another sentence that can be pointed at and opened. */
function linkTo(panel, i, extra, ...before) {
  const { view, el } = panel;
  const button = h(
    "button",
    { class: `lsc-link ${extra}`, type: "button", "data-row": i },
    ...before,
    words("span", "lsc-lang", languageOf(view, i)),
    words("span", "lsc-text", textOf(view, i)),
  );
  button.addEventListener("pointerenter", () => set(view, "hover", i));
  button.addEventListener("pointerleave", () => set(view, "hover", -1));
  button.addEventListener("focus", () => set(view, "hover", i));
  button.addEventListener("blur", () => set(view, "hover", -1));
  button.addEventListener("click", () => {
    if (!view.state.selected.includes(i)) {
      change(view, "selected", Int32Array.of(i));
      el.querySelector(".lsc-sentence")?.focus();
    } else openSentence(panel, i);
  });
  return h("li", {}, button);
}

function translationsOf(panel, i) {
  const { about, texts, sameId } = panel.view;
  const title = "Translations";
  if (about.missing?.translations) return block(title, note(about.missing.translations));
  const rows = (sameId.get(texts.id[i]) ?? []).filter((other) => other !== i);
  if (!rows.length) return block(title, h("p", { class: "lsc-dim" }, "None among the sentences shown."));
  const more = rows.length - TRANSLATIONS;
  return block(
    title,
    h("ul", { class: "lsc-rows" }, ...rows.slice(0, TRANSLATIONS).map((other) => linkTo(panel, other, ""))),
    more > 0 ? h("p", { class: "lsc-dim" }, `and ${count(more)} more`) : null,
  );
}

// ---------------------------------------------------------------------------------------------- neighbours

function neighboursOf(panel, got) {
  const { about, state } = panel.view;
  const title = `Nearest sentences, layer ${state.layer}`;
  if (!got) return block(title, waits());
  if (got.why && !got.neighbours) return block(title, note(got.why));
  const there = (got.neighbours ?? []).filter((one) => isAtStep(panel.view, one.model));
  const box = block(title, ...there.map((one) => neighboursIn(panel, one)));
  if (about.models.some((one) => one.layers - 1 < state.layer)) {
    box.append(h("p", { class: "lsc-dim" }, "A model with fewer layers answers with its last."));
  }
  return box;
}

/** The neighbours in one model: kept and gained beside the baseline's, and those that are lost. */
function neighboursIn(panel, { model: m, found, lost }) {
  const { view, unfolded } = panel;
  const { about, names } = view;
  const sum = (state) => found.filter((other) => other.state === state).length;
  const isBase = m === about.baseline || about.baseline < 0;
  const changes = isBase
    ? plural(found.length, "sentence")
    : `${sum("kept")} kept, ${sum("gained")} gained, ${lost.length} lost`;
  const summary = h(
    "summary",
    { "data-model": m },
    glyph(view, m),
    words("span", "lsc-name", names[m]),
    h("span", { class: "lsc-dim" }, changes),
  );
  const fold = h("details", { class: "lsc-neighbours", "data-model": m }, summary);
  fold.open = unfolded.has(m);
  fold.addEventListener("toggle", () => (fold.open ? unfolded.add(m) : unfolded.delete(m)));
  const rows = found.map(({ row, state, cosine }) => {
    const sign = neighbourSign({ kept: "=", gained: "+" }[state] ?? "·", state);
    const how = { class: "lsc-num lsc-dim", title: "cosine" };
    return linkTo(panel, row, "", sign, ...(Number.isFinite(cosine) ? [h("span", how, cosine.toFixed(2))] : []));
  });
  const gone = (lost ?? []).map((row) => linkTo(panel, row, "lsc-gone", neighbourSign("−", "lost")));
  fold.append(h("ul", { class: "lsc-rows" }, ...rows, ...gone));
  return fold;
}

function neighbourSign(mark, name) {
  const said = { role: "img", "aria-label": name || "neighbour", title: name };
  return h("span", { class: `lsc-sign lsc-${name || "same"}`, ...said }, mark);
}

// ---------------------------------------------------------------------------------------------- representers

function representersOf(panel, got) {
  const { about } = panel.view;
  const title = "Representers";
  if (about.missing?.representers) return block(title, note(about.missing.representers));
  if (!got || (got.why && !got.neighbours)) return "";
  if (!got.representers) return got.why ? block(title, note(got.why)) : "";
  const { model, target, excitatory, inhibitory } = got.representers;
  const behind = h(
    "p",
    { class: "lsc-dim" },
    "training sentences behind ",
    words("span", "", model),
    "’s prediction ",
    words("b", "", target),
  );
  return block(title, behind, representerSide(panel, "for", excitatory), representerSide(panel, "against", inhibitory));
}

function representerSide(panel, name, listed) {
  const items = listed.map((one) => {
    const inner = [
      h("span", { class: "lsc-num" }, number(one.value)),
      words("span", "lsc-lang", one.language ?? ""),
      words("span", "lsc-text", one.text || "(empty text)"),
      words("span", "lsc-dim lsc-of", one.label ?? ""),
    ];
    if (!(one.row >= 0)) return h("li", {}, h("div", { class: "lsc-link" }, ...inner)); // not among those shown
    const entry = linkTo(panel, one.row, "");
    entry.firstChild.replaceChildren(...inner);
    return entry;
  });
  const list = items.length ? h("ul", { class: "lsc-rows" }, ...items) : h("p", { class: "lsc-dim" }, "none");
  return h("div", { class: `lsc-side lsc-${name}` }, h("h5", {}, name), list);
}
