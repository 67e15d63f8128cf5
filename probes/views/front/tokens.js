// An open sentence token by token: coloured by how far its tokens moved or how much they surprise, and what each layer
// would say in the place of the one that is chosen.

const TOKEN_COLOURS = { moved: "KL from the baseline", surprise: "surprise in the model" };
const KEPT =
  "Kept of the sentences of the ten tokens that moved most in each model, and of one that was drawn, in up to twelve " +
  "languages. Colour: KL from the baseline, full at two nats, or surprise, minus the log of the probability of the " +
  "token, full at ten. Choose a token for its layers, which are kept of the 40 of a sentence that moved most.";

/** The text in each model for which it is kept; the words of a token are both models' best. */
function tokensOf(panel, i) {
  const { view } = panel;
  const found = view.about.spoken?.[i];
  if (!found) return "";
  const options = Object.entries(TOKEN_COLOURS).map(([value, text]) => ({ value, text }));
  const said = found.map((one) => saidIn(view, one));
  const coloured = (by) => {
    panel.coloured = by;
    for (const { text } of said) text.classList.toggle("lsc-surprise", by === "surprise");
  };
  const { field } = picker("Colour of tokens", "lsc-token-colour", options, panel.coloured, coloured);
  coloured(panel.coloured);
  return block("Token by token", field, ...said.flatMap((one) => one.nodes), h("p", { class: "lsc-dim" }, KEPT));
}

function saidIn(view, { model, parts, worst }) {
  const lens = h("div", { class: "lsc-lens", "aria-live": "polite" });
  const spans = parts.map((part) => tokenOf(part));
  const chosen = (k) => {
    spans.forEach((span, other) => span.classList.toggle("lsc-chosen", other === k));
    spans.forEach((span, other) => span.hasAttribute("role") && span.setAttribute("aria-pressed", String(other === k)));
    lens.replaceChildren(...lensOf(view, model, parts[k]));
  };
  spans.forEach((span, k) => {
    if (!span.hasAttribute("role")) return;
    span.addEventListener("click", () => chosen(k));
    span.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      chosen(k);
    });
  });
  if (parts[worst]?.[4].length) chosen(worst);
  const text = h("p", { class: "lsc-said", dir: "auto" }, ...spans);
  const head = h("div", { class: "lsc-dim" }, glyph(view, model), " ", words("span", "lsc-name", view.names[model]));
  return { text, nodes: [head, text, lens] };
}

/** A part of the text; spans, not buttons, so that letters of one word stay joined and lines break where they would. */
function tokenOf([text, moved, surprise, about, layers]) {
  const share = (x) => `${Math.round(70 * x)}%`;
  const style = `--moved: ${share(moved)}; --surprise: ${share(surprise)}`;
  const acts = layers.length ? { role: "button", tabindex: 0, "aria-pressed": "false" } : {};
  return h("span", { class: about ? "lsc-token" : null, title: about || null, style, ...acts }, text);
}

/** What each layer of both models would say in the place of a token. */
function lensOf(view, model, [text, , , , layers]) {
  const names = [view.names[view.about.baseline] ?? "", view.names[model]];
  const cell = (tag, content) => h(tag, { dir: "auto" }, content);
  const head = h("tr", {}, ...["layer", ...names].map((name) => cell("th", name)));
  const rows = layers.map((row) => h("tr", {}, ...row.map((content, k) => cell(k ? "td" : "th", content))));
  const shown = text.trim() || "(no letters)";
  const title = ["In the place of ", words("b", "", shown), ", by layer: likeliest token, probability of the right one"];
  return [h("p", { class: "lsc-dim" }, ...title), h("table", {}, head, ...rows)];
}
