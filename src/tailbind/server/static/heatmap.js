// Every substitution as a map: a column per position, a row per residue, moved through with the arrow keys.

import { csv, download, element, signed } from "./element.js";
import { interval, kd } from "./results.js";

const RESIDUES = [..."GAVLIMPFWYSTCNQHKRDE"];
const [WEAKER, STRONGER] = [[178, 58, 38], [33, 102, 160]];
const MOST_RANKED = 10;

// Whether training never saw this residue at this place; what else of the pair is new is said of the wild type.
function strange(row) {
  return row.unseen_here ?? Boolean(row.unseen);
}

function colour(value, limit) {
  const share = Math.min(1, Math.abs(value) / limit) ** 0.8;
  const end = value < 0 ? WEAKER : STRONGER;
  return `rgb(${end.map((part) => Math.round(247 + (part - 247) * share)).join(", ")})`;
}

function columnsOf(rows) {
  const columns = new Map();
  for (const row of rows) {
    const key = `${row.chain} ${row.position}`;
    if (!columns.has(key)) columns.set(key, { ...row, cells: new Map() });
    columns.get(key).cells.set(row.residue, row);
  }
  return [...columns.values()];
}

function bands(columns) {
  const cells = [];
  for (let start = 0; start < columns.length;) {
    let stop = start;
    const name = columns[start].region ?? "";
    while (stop < columns.length && (columns[stop].region ?? "") === name) stop += 1;
    const cdr = /cdr/i.test(name) ? "region cdr" : "region";
    cells.push(element("th", { colspan: stop - start, class: cdr, title: name, scope: "colgroup" }, stop - start > 2 ? name : ""));
    start = stop;
  }
  return cells;
}

function words(row, column, residue, level) {
  const where = [column.imgt ? `IMGT ${column.imgt}` : null, column.region].filter(Boolean).join(", ");
  if (!row) return `${column.chain} ${column.wild_type}${column.position}: the wild type has ${residue}${where ? ` (${where})` : ""}.`;
  if (row.delta_pkd === null) return `${row.mutation}: no prediction.`;
  const sure = typeof row.pkd_low === "number" && typeof row.pkd_high === "number" ? `, ${interval(level).replace("I", "i")} ${row.pkd_low.toFixed(1)} to ${row.pkd_high.toFixed(1)}`
    : typeof row.predicted_sd === "number" ? `, SD of the mutant ${row.predicted_sd.toFixed(2)}` : "";
  const seen = strange(row) ? ". Training never saw it here" : "";
  return `${row.mutation}: ΔpKd ${signed(row.delta_pkd)} (pKd ${row.predicted_pkd.toFixed(2)}${sure})${where ? `, ${where}` : ""}${seen}`;
}

function grid(columns, limit, level, tell) {
  const body = RESIDUES.map((residue) => element("tr", { role: "row" },
    element("th", { scope: "row" }, residue),
    ...columns.map((column) => {
      const row = column.cells.get(residue);
      const own = residue === column.wild_type;
      const made = element("td", { role: "gridcell", tabindex: "-1", class: own ? "own" : row && strange(row) ? "unseen" : "", "aria-label": words(own ? null : row, column, residue, level) });
      if (!own && row && row.delta_pkd !== null) made.style.backgroundColor = colour(row.delta_pkd, limit);
      return made;
    })));
  const map = element("table", { role: "grid", "aria-label": "Change of pKd by position and residue; arrow keys move" },
    element("thead", {},
      element("tr", {}, element("th", {}), ...bands(columns)),
      element("tr", {}, element("th", {}), ...columns.map((column) => element("th", { scope: "col" }, column.wild_type))),
      element("tr", {}, element("th", {}), ...columns.map((column) => element("th", { class: "place" }, String(column.imgt ?? column.position).replace(/^[A-Z](?=\d)/, ""))))),
    element("tbody", {}, ...body));
  const cells = body.map((line) => [...line.querySelectorAll("td")]);
  const place = new Map(cells.flatMap((line, y) => line.map((one, x) => [one, [x, y]])));
  cells[0][0].tabIndex = 0;
  const show = (target) => { if (place.has(target)) tell(target.getAttribute("aria-label")); };
  map.addEventListener("pointerover", (event) => show(event.target));
  map.addEventListener("focusin", (event) => show(event.target));
  map.addEventListener("click", (event) => { if (place.has(event.target)) move(event.target); });
  let current = cells[0][0];
  function move(to) { current.tabIndex = -1; to.tabIndex = 0; current = to; to.focus(); }
  map.addEventListener("keydown", (event) => {
    const [x, y] = place.get(event.target) ?? [];
    if (x === undefined) return;
    const to = { ArrowLeft: [x - 1, y], ArrowRight: [x + 1, y], ArrowUp: [x, y - 1], ArrowDown: [x, y + 1], Home: [0, y], End: [columns.length - 1, y] }[event.key];
    if (!to) return;
    event.preventDefault();
    const next = cells[to[1]]?.[to[0]];
    if (next) move(next);
  });
  return map;
}

function legend(limit, unseen) {
  const stops = Array.from({ length: 11 }, (_, index) => element("rect", { x: index * 10, width: 10.2, y: 0, height: 10, fill: colour((index / 5 - 1) * limit || 1e-9, limit) }));
  return element("p", { class: "legend" },
    element("span", {}, `weaker, −${limit.toFixed(1)} or less`, element("svg", { viewBox: "0 0 110 10", preserveAspectRatio: "none", "aria-hidden": "true" }, ...stops), `+${limit.toFixed(1)} or more, stronger`),
    element("span", {}, "• wild type"), unseen ? element("span", {}, "hatched: training never saw it there") : null);
}

function ranked(title, rows) {
  return element("div", {}, element("h3", {}, title), element("table", {},
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Mutation"), element("th", { scope: "col" }, "IMGT"), element("th", { scope: "col", class: "number" }, "ΔpKd"), element("th", { scope: "col", class: "number" }, "pKd"))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, element("td", {}, row.mutation), element("td", {}, row.imgt ? `${row.imgt}${row.region ? ` (${row.region})` : ""}` : "–"), element("td", { class: "number" }, signed(row.delta_pkd)), element("td", { class: "number" }, row.predicted_pkd.toFixed(2)))))));
}

export function showSubstitutions(place, answer) {
  const rows = answer.substitutions;
  const known = rows.filter((row) => row.delta_pkd !== null).sort((one, other) => other.delta_pkd - one.delta_pkd);
  const sizes = known.map((row) => Math.abs(row.delta_pkd)).sort((one, other) => one - other);
  const limit = Math.max(0.1, sizes[Math.floor(sizes.length * 0.98)] ?? 0);
  const readout = element("p", { class: "readout", id: "readout", "aria-live": "polite" }, "Point at a square, or move through them with the arrow keys.");
  const save = element("button", { type: "button", class: "quiet", id: "download-scan" }, "Download CSV");
  save.addEventListener("click", () => download("scan.csv", csv(rows)));
  const columns = columnsOf(rows);
  const wild = answer.wild_type;
  place.replaceChildren(
    element("div", { class: "head" }, element("h2", {}, `${rows.length.toLocaleString("en")} substitutions`), save),
    element("p", { class: "note" }, wild.pkd === null ? "No prediction for the wild type." : `The wild type has pKd ${wild.pkd.toFixed(2)} (${kd(wild.kd_nm)}). Squares show by how much a substitution changes it.`),
    readout,
    element("div", { class: "map", id: "map" }, columns.length ? grid(columns, limit, answer.level, (text) => { readout.textContent = text; }) : "Nothing to show."),
    legend(limit, rows.some(strange)),
    element("div", { class: "two" }, ranked("Strongest", known.slice(0, MOST_RANKED)), ranked("Weakest", known.slice(-MOST_RANKED).reverse())),
  );
  place.hidden = false;
}
