// Maps and the table of a report, drawn from its data when they are asked for. No text of others becomes HTML.
const { models, baseline, languages, probes, maps, table, draws } = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes = {}, text = null, svg = false) {
  const made = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

function digits(value, count = 3) {
  if (value === null || value === undefined) return "";
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(count))) : String(value);
}

/** A function from a number to as many decimals as tell the largest one to two digits, or one more. */
function decimals(high, more) {
  const count = Math.min(5, Math.max(0, 1 - Math.floor(Math.log10(high)) + more));
  return (value) => value.toFixed(count).replace(/^-(0(\.0*)?)$/, "$1");
}

/** From loss (orange) over nothing to gain (blue); share from -1 to 1. */
function colour(share, better) {
  const bad = better === "lower" ? share : -share;
  const strength = Math.round(Math.min(Math.abs(share), 1) * 82);
  return `color-mix(in srgb, ${bad > 0 ? "#d55e00" : "#0072b2"} ${strength}%, Canvas)`;
}

// ---- maps: languages by layers

function order(how, rows) {
  const sums = languages.map((_, l) => {
    const own = rows.filter((row) => row.language === l);
    return own.reduce((sum, row) => sum + row.shown, 0) / (own.length || 1);
  });
  const places = languages.map((_, l) => l).filter((l) => rows.some((row) => row.language === l));
  if (how === "change") places.sort((a, b) => sums[a] - sums[b]);
  if (how === "script") places.sort((a, b) => languages[a].script.localeCompare(languages[b].script) || a - b);
  return places;
}

function map(probe, model, rows, high, how) {
  const about = probes[probe];
  const layers = [...new Set(rows.map((row) => row.layer))].sort((a, b) => a - b);
  const places = order(how, rows);
  if (how === "change" && about.better === "lower") places.reverse();
  const box = element("div", { class: "map" });
  const depth = rows.find((row) => row.baseline_layer !== null && row.baseline_layer !== row.layer);
  const beside = depth ? `, its layers beside those of ${baseline} in brackets` : "";
  box.append(element("h3", {}, about.compares ? `${model}, to ${baseline}` : `${model} minus ${baseline}${beside}`));
  const svg = element("svg", {}, null, true);
  const unit = about.share ? 100 : 1;
  const drawn = (zoomed) => {
    const told = decimals(high * unit, zoomed ? 1 : 0);
    const [wide, tall] = zoomed ? [58, 30] : [Math.max(20, Math.min(44, 780 / layers.length)), 17];
    const left = 190;
    svg.replaceChildren();
    svg.setAttribute("width", left + wide * layers.length + 8);
    svg.setAttribute("height", tall * places.length + 30);
    svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`); // for paper
    svg.classList.toggle("zoomed", zoomed);
    places.forEach((l, y) => {
      const name = how === "script" && languages[l].script ? `${languages[l].name} · ${languages[l].script}` : languages[l].name;
      svg.append(element("text", { x: left - 6, y: y * tall + tall / 2 + 4, "text-anchor": "end" }, name.length > 27 ? `${name.slice(0, 26)}…` : name, true));
    });
    layers.forEach((layer, x) => {
      const beside = rows.find((row) => row.layer === layer)?.baseline_layer;
      const name = beside === null || beside === layer ? `${layer}` : `${layer} (${beside})`;
      const at = { x: left + x * wide + wide / 2, y: places.length * tall + 15, "text-anchor": "middle" };
      svg.append(element("text", at, name, true));
    });
    svg.append(element("text", { x: left - 6, y: places.length * tall + 15, "text-anchor": "end" }, "layer", true));
    for (const row of rows) {
      const [x, y] = [layers.indexOf(row.layer), places.indexOf(row.language)];
      const cell = element("rect", { x: left + x * wide, y: y * tall, width: wide - 1, height: tall - 1 }, null, true);
      cell.style.fill = row.shown === null ? "#8883" : colour(row.shown / high, about.compares ? "lower" : about.better || "higher");
      const said = [`${languages[row.language].name}, layer ${row.layer}: ${digits(row.shown)}`];
      if (row.low !== null) said.push(`[${digits(row.low)}, ${digits(row.high)}] for all languages and layers at once`);
      cell.append(element("title", {}, said.join(" "), true));
      svg.append(cell);
      const [cx, cy] = [left + x * wide + (wide - 1) / 2, y * tall + (tall - 1) / 2];
      if (zoomed || wide >= 34) {
        const text = row.shown === null ? "–" : told(unit * row.shown);
        const mark = row.sure ? "•" : "";
        svg.append(element("text", { x: cx, y: cy + 3.5, class: "cell" }, mark + text, true));
      } else if (row.sure) {
        svg.append(element("circle", { cx, cy, r: Math.min(2 + row.effect, 5), fill: "CanvasText" }, null, true));
      }
    }
  };
  drawn(false);
  svg.addEventListener("click", () => drawn(!svg.classList.contains("zoomed")));
  box.append(svg);
  return box;
}

function drawMaps() {
  const probe = document.getElementById("probe").value;
  const how = document.getElementById("order").value;
  const about = probes[probe];
  const found = maps[probe];
  const rows = found.language.map((language, i) => {
    const row = { language };
    for (const key of ["model", "layer", "baseline_layer", "shown", "low", "high"]) row[key] = found[key][i];
    row.sure = !about.compares && row.low !== null && (row.low > 0 || row.high < 0);
    row.effect = row.sure ? Math.abs(row.shown) / ((row.high - row.low) / 2 || 1) : 0;
    return row;
  });
  const values = rows.map((row) => Math.abs(row.shown ?? 0));
  const high = Math.max(...values) || 1;
  const there = document.getElementById("maps");
  there.replaceChildren();
  models.forEach((model, m) => {
    const own = rows.filter((row) => row.model === m);
    if (own.length) there.append(map(probe, model, own, high, how));
  });
  const unit = about.share ? " in points" : "";
  const sign = about.better ? "orange is loss, blue is gain" : "orange is less, blue is more";
  document.getElementById("legend").textContent = about.compares
    ? `${about.title}${unit}; the darker the larger.`
    : `${about.title}: change${unit}; ${sign}; • where the interval that holds for all languages and layers of a model leaves out 0, the larger the more times its half width; click to zoom.`;
}

// ---- the table

const STEP = 100; // rows that are drawn as one scrolls
const SEEN = 30; // of them those that can be seen, which are drawn before anything else
const columns = Object.keys(table);
const count = table[columns[0]].codes.length;
for (const { codes } of Object.values(table)) codes.forEach((code, i) => typeof code === "string" && (codes[i] = Number(code)));
const isText = (column) => "names" in table[column];
const value = (column, row) => (isText(column) ? table[column].names[table[column].codes[row]] : table[column].codes[row]);
const shown = { rows: [], drawn: 0, by: null, down: false };
const ranked = {};
const alphabet = new Intl.Collator();
const later = window.requestIdleCallback ?? ((run) => setTimeout(run, 50));

function filtered() {
  const words = document.getElementById("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const texts = columns.filter(isText);
  const wanted = texts.map((c) => {
    const chosen = document.getElementById(`only-${c}`)?.value ?? "";
    return [c, chosen];
  });
  const lower = Object.fromEntries(texts.map((c) => [c, table[c].names.map((name) => String(name ?? "").toLowerCase())]));
  shown.rows = [];
  for (let row = 0; row < count; row++) {
    if (wanted.some(([c, chosen]) => chosen !== "" && value(c, row) !== chosen)) continue;
    if (words.every((word) => texts.some((c) => lower[c][table[c].codes[row]]?.includes(word)))) shown.rows.push(row);
  }
  if (shown.by !== null) sorted();
  redrawn();
}

/** Of each row the place of its value among all values of a column, missing ones last; found once a column. */
function ranks(column) {
  if (ranked[column]) return ranked[column];
  const { codes, names } = table[column];
  const place = new Map();
  if (names) {
    const there = names.map((_, i) => i).filter((i) => names[i] !== "");
    for (const i of there.sort((a, b) => alphabet.compare(names[a], names[b]))) place.set(i, place.size);
  } else {
    const numbers = new Set(codes);
    numbers.delete(null);
    for (const one of Float64Array.from(numbers).sort()) place.set(one, place.size);
  }
  return (ranked[column] = { of: Int32Array.from(codes, (code) => place.get(code) ?? place.size), values: place.size });
}

/** Rows by rank, and those of one rank as in the table: dealt out, and taken up in order. */
function sorted() {
  const { of, values } = ranks(shown.by);
  const dealt = Array.from({ length: values + 1 }, () => []);
  for (const row of shown.rows.sort((a, b) => a - b)) dealt[of[row]].push(row);
  const missing = dealt.pop();
  if (shown.down) dealt.reverse();
  shown.rows = [...dealt, missing].flat();
}

/** Rank a column, and then another, while nobody waits: the first click is as quick as all others. */
function rankAhead(left) {
  if (!left.length) return;
  later(() => {
    ranks(left[0]);
    rankAhead(left.slice(1));
  });
}

function redrawn() {
  shown.drawn = 0;
  document.querySelector("#table tbody").replaceChildren();
  document.getElementById("count").textContent = `${shown.rows.length} of ${count} rows`;
  more(SEEN);
  later(() => shown.drawn < STEP && more(STEP - shown.drawn));
}

function more(count = STEP) {
  const body = document.querySelector("#table tbody");
  const low = table.adjusted_low?.codes, high = table.adjusted_high?.codes;
  for (const row of shown.rows.slice(shown.drawn, shown.drawn + count)) {
    const about = probes[value("probe", row)];
    const sign = { higher: 1, lower: -1 }[about?.better] ?? 0;
    const side = low && low[row] > 0 ? 1 : high && high[row] !== null && high[row] < 0 ? -1 : 0;
    const made = element("tr", side * sign < 0 ? { class: "loss" } : side * sign > 0 ? { class: "gain" } : {});
    for (const column of columns) {
      const found = value(column, row);
      const least = 1 / (draws + 1);
      const p = (column === "p" || column === "p_adjusted") && found !== null && found <= least * 1.001;
      const text = p ? `< ${Number(least.toPrecision(1)) < least ? least.toPrecision(2) : least.toPrecision(1)}` : digits(found, 4);
      const gained = column === "difference" && side * sign > 0;
      made.append(element("td", { class: isText(column) ? "text" : gained ? "gained" : "" }, gained ? `▲ ${text}` : text));
    }
    body.append(made);
  }
  shown.drawn += count;
}

function start() {
  const head = element("tr");
  for (const column of columns) {
    const cell = element("th", isText(column) ? { class: "text" } : {});
    const button = element("button", { type: "button" }, column);
    button.addEventListener("click", () => {
      shown.down = shown.by === column ? !shown.down : false;
      shown.by = column;
      for (const other of head.children) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", shown.down ? "descending" : "ascending");
      sorted();
      redrawn();
    });
    cell.append(button);
    head.append(cell);
    if (!["model", "probe", "language"].includes(column)) continue;
    const select = element("select", { id: `only-${column}`, "aria-label": column });
    select.append(element("option", { value: "" }, `every ${column}`));
    for (const name of table[column].names) select.append(element("option", { value: name }, name));
    select.addEventListener("change", filtered);
    document.getElementById("filters").append(select);
  }
  document.querySelector("#table thead").append(head);
  document.getElementById("search").addEventListener("input", filtered);
  const scrolled = document.getElementById("table");
  scrolled.addEventListener("scroll", () => {
    if (scrolled.scrollTop + scrolled.clientHeight > scrolled.scrollHeight - 400 && shown.drawn < shown.rows.length) more();
  });
  filtered();
  rankAhead(columns);
  const probe = document.getElementById("probe");
  if (!probe) return;
  for (const name of Object.keys(maps)) probe.append(element("option", { value: name }, probes[name].title));
  probe.addEventListener("change", drawMaps);
  document.getElementById("order").addEventListener("change", drawMaps);
  drawMaps();
}

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
start();
