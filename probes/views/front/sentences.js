// The sentences.

function sentencesPart(ctx) {
  const { about, texts, n, names, state, row, change, set, answer, part, note, glyph, endings } = ctx;
  const clearing = h("button", { class: "lsc-clear", type: "button", hidden: true, onclick: () => change("selected", new Int32Array(0)) }, "Clear selection");
  const sum = h("span", { class: "lsc-count" });
  const el = part("sentences", "Sentences", sum, clearing);
  if (about.missing?.sentences || !texts) return ctx.absent(el, about.missing?.sentences ?? "There are no texts to show.");
  const scroller = h("div", { class: "lsc-scroll" });
  const list = h("ul", { class: "lsc-list" });
  const after = h("div", {});
  scroller.append(list, after);
  el.append(h("div", { class: "lsc-scrollbox" }, scroller));
  const unfolded = new Set([others()[0] ?? 0]);
  function others() {
    return names.map((_, i) => i).filter((i) => i !== about.baseline);
  }

  const ask = debounced(() => {
    if (state.open >= 0) answer({ ask: "sentence", row: state.open, layer: state.layer });
  }, WAIT_MS);
  endings.push(() => ask.cancel());

  const browse = !(ctx.root && model_has_maps());
  function model_has_maps() {
    return !about.missing?.maps;
  }
  function rowsNow() {
    if (state.selected.length) return [...state.selected.subarray(0, LISTED)];
    if (state.open >= 0) return [state.open];
    if (state.lastHover >= 0) return [state.lastHover];
    return browse ? Array.from({ length: Math.min(n, LISTED) }, (_, i) => i) : [];
  }
  let drawnRows = "";
  function draw() {
    const rows = rowsNow();
    const total = state.selected.length || rows.length;
    sum.textContent = state.selected.length ? `${count(total)} selected` : rows.length === 1 && state.open < 0 ? "last pointed at" : "";
    clearing.hidden = !state.selected.length;
    after.replaceChildren();
    if (!rows.length) after.append(h("p", { class: "lsc-hint" }, "Point at a map to read a sentence. Click one to keep it, or draw around several; with Shift they are added. Escape or a double click clears."));
    if (state.selected.length > LISTED) after.append(h("p", { class: "lsc-more" }, `and ${count(state.selected.length - LISTED)} more`));
    if (browse && !state.selected.length && n > LISTED) after.append(h("p", { class: "lsc-more" }, `and ${count(n - LISTED)} more`));
    const key = rows.join();
    if (key !== drawnRows) {
      drawnRows = key;
      list.replaceChildren(...rows.map(item));
      if (state.selected.length) scroller.scrollTop = 0;
    }
    for (const one of list.children) mark(one);
  }
  function item(i) {
    const head = h("button", { class: "lsc-sentence", type: "button", "aria-expanded": "false", "data-row": i }, words("span", "lsc-text", ctx.textOf(i)), h("span", { class: "lsc-meta" }, ...joined([words("span", "lsc-id", texts.id[i]), words("span", "lsc-lang", row.language(i)), row.label(i) ? words("span", "lsc-label", row.label(i)) : null])), predictions(i));
    head.addEventListener("click", () => open(state.open === i ? -1 : i));
    head.addEventListener("pointerenter", () => set("hover", i));
    head.addEventListener("pointerleave", () => set("hover", -1));
    return h("li", { "data-row": i }, head);
  }
  function predictions(i) {
    if (!about.classes.length) return "";
    const given = names.map((_, m) => row.predicted(m, i));
    const some = given.filter(Boolean);
    if (!some.length) return "";
    const label = row.label(i);
    const base = about.baseline >= 0 ? given[about.baseline] : "";
    const wrong = (text) => label && text !== label;
    const box = h("span", { class: "lsc-predictions" });
    if (names.length > 1 && some.length === names.length && new Set(some).size === 1) {
      box.append(h("span", { class: "lsc-dim" }, "all models predict "), words("span", wrong(some[0]) ? "lsc-wrong" : "", some[0]));
      return box;
    }
    given.forEach((text, m) => {
      if (!text) return;
      const differs = m !== about.baseline && base && text !== base;
      const one = h("span", { class: `lsc-prediction${differs ? " lsc-differs" : ""}`, title: `${names[m]}: ${text}${wrong(text) ? ", differs from the label" : ""}${differs ? ", differs from the baseline" : ""}` }, glyph(m), words("span", wrong(text) ? "lsc-wrong" : "", text));
      if (differs) one.append(h("span", { class: "lsc-flag", "aria-label": "differs from the baseline" }, "≠"));
      box.append(one);
    });
    return box;
  }
  function open(i) {
    state.open = i;
    ask();
    ctx.notify("open");
  }
  function mark(one) {
    const i = Number(one.dataset.row);
    const isOpen = i === state.open;
    one.firstChild.setAttribute("aria-expanded", String(isOpen));
    one.classList.toggle("lsc-open", isOpen);
    if (!isOpen) one.querySelector(".lsc-detail")?.remove();
    else if (!one.querySelector(".lsc-detail")) one.append(h("div", { class: "lsc-detail" }));
    if (isOpen) detail(one.querySelector(".lsc-detail"), i);
  }
  let shownAnswer = null;
  function detail(box, i) {
    const ask = { ask: "sentence", row: i, layer: state.layer };
    const got = answer(ask, false);
    if (got && box.childElementCount && shownAnswer === got && !box.classList.contains("lsc-stale")) return;
    if (!got && box.childElementCount) {
      box.classList.add("lsc-stale"); // the former layer's, until the new answer is here
      return;
    }
    shownAnswer = got ?? null;
    const keepFocus = document.activeElement?.closest?.("summary")?.dataset.model;
    box.classList.remove("lsc-stale");
    box.replaceChildren(translations(i), neighbours(got), representers(got));
    if (keepFocus !== undefined) box.querySelector(`summary[data-model="${keepFocus}"]`)?.focus();
  }
  const link = (i, extra, ...before) => {
    const button = h("button", { class: `lsc-link ${extra}`, type: "button", "data-row": i }, ...before, words("span", "lsc-lang", row.language(i)), words("span", "lsc-text", ctx.textOf(i)));
    button.addEventListener("pointerenter", () => set("hover", i));
    button.addEventListener("pointerleave", () => set("hover", -1));
    button.addEventListener("focus", () => set("hover", i));
    button.addEventListener("blur", () => set("hover", -1));
    button.addEventListener("click", () => {
      if (!state.selected.includes(i)) {
        change("selected", Int32Array.of(i));
        el.querySelector(".lsc-sentence")?.focus();
      } else open(i);
    });
    return h("li", {}, button);
  };
  const block = (title, ...content) => h("div", { class: "lsc-block" }, h("h4", {}, title), ...content);
  function translations(i) {
    if (about.missing?.translations) return block("Translations", note(about.missing.translations));
    const rows = (ctx.sameId.get(texts.id[i]) ?? []).filter((other) => other !== i);
    if (!rows.length) return block("Translations", h("p", { class: "lsc-dim" }, "None among the sentences shown."));
    const shown = rows.slice(0, 60);
    return block("Translations", h("ul", { class: "lsc-rows" }, ...shown.map((other) => link(other, ""))), rows.length > 60 ? h("p", { class: "lsc-dim" }, `and ${count(rows.length - 60)} more`) : null);
  }
  function neighbours(got) {
    const title = `Nearest sentences, layer ${state.layer}`;
    if (!got) return block(title, ctx.waits());
    if (got.why && !got.neighbours) return block(title, note(got.why));
    const box = block(title);
    for (const one of got.neighbours ?? []) {
      const m = one.model;
      const kept = one.found.filter((other) => other.state === "kept").length;
      const gained = one.found.filter((other) => other.state === "gained").length;
      const isBase = m === about.baseline || about.baseline < 0;
      const summary = h("summary", { "data-model": m }, glyph(m), words("span", "lsc-name", names[m]), h("span", { class: "lsc-dim" }, isBase ? plural(one.found.length, "sentence") : `${kept} kept, ${gained} gained, ${one.lost.length} lost`));
      const fold = h("details", { class: "lsc-neighbours", "data-model": m }, summary);
      fold.open = unfolded.has(m);
      fold.addEventListener("toggle", () => (fold.open ? unfolded.add(m) : unfolded.delete(m)));
      const sign = (mark, name) => h("span", { class: `lsc-sign lsc-${name || "same"}`, role: "img", "aria-label": name || "neighbour", title: name }, mark);
      fold.append(
        h("ul", { class: "lsc-rows" },
          ...one.found.map((other) => link(other.row, "", sign({ kept: "=", gained: "+" }[other.state] ?? "·", other.state), ...(Number.isFinite(other.cosine) ? [h("span", { class: "lsc-num lsc-dim", title: "cosine" }, other.cosine.toFixed(2))] : []))),
          ...(one.lost ?? []).map((other) => link(other, "lsc-gone", sign("−", "lost"))),
        ),
      );
      box.append(fold);
    }
    if (about.models.some((one) => one.layers - 1 < state.layer)) box.append(h("p", { class: "lsc-dim" }, "A model with fewer layers answers with its last."));
    return box;
  }
  function representers(got) {
    if (about.missing?.representers) return block("Representers", note(about.missing.representers));
    if (!got || (got.why && !got.neighbours)) return "";
    if (!got.representers) return got.why ? block("Representers", note(got.why)) : "";
    const { model, target, excitatory, inhibitory } = got.representers;
    const side = (name, listed, title) =>
      h("div", { class: `lsc-side lsc-${name}` }, h("h5", {}, title), listed.length ? h("ul", { class: "lsc-rows" }, ...listed.map((one) => {
        const inner = [h("span", { class: "lsc-num" }, number(one.value)), words("span", "lsc-lang", one.language ?? ""), words("span", "lsc-text", one.text || "(empty text)"), words("span", "lsc-dim lsc-of", one.label ?? "")];
        if (!(one.row >= 0)) return h("li", {}, h("div", { class: "lsc-link" }, ...inner));
        const entry = link(one.row, "");
        entry.firstChild.replaceChildren(...inner);
        return entry;
      })) : h("p", { class: "lsc-dim" }, "none"));
    return block("Representers", h("p", { class: "lsc-dim" }, "training sentences behind ", words("span", "", model), "’s prediction ", words("b", "", target)), side("for", excitatory, "for"), side("against", inhibitory, "against"));
  }

  draw();
  if (state.selected.length === 1) state.open = state.selected[0];
  draw();
  ask();
  return {
    el,
    update(what, kind) {
      if (what === "selected" || what === "open") {
        draw();
        ask();
      } else if (what === "hover") {
        if (!state.selected.length && state.open < 0 && state.hover >= 0 && !el.contains(document.activeElement) && !el.matches(":hover")) draw();
      } else if (what === "layer" || what === "models") {
        if (state.open >= 0) {
          draw();
          ask();
        }
      } else if (what === "answer" && kind === "sentence") draw();
    },
  };
}
