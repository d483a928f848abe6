// Predictions as a table: pKd, how sure it is, Kd, bin, and what training never saw.

import { csv, download, element } from "./element.js";

const MOST_SHOWN = 500;
const [LOWEST, HIGHEST] = [3, 13];
const UNITS = [["mM", 1e6], ["µM", 1e3], ["nM", 1], ["pM", 1e-3], ["fM", 1e-6]];
const OWN = new Set(["row_id", "pkd", "kd_nm", "affinity_bin", "sd", "pkd_low", "pkd_high", "unseen", "domain"]);
const SHARE = /^p_(above|below)_|_identity$/;
const TITLES = { p_below_5: "P(pKd < 5)", p_above_9: "P(pKd > 9)", p_above_11: "P(pKd > 11)" };

export function kd(nanomolar) {
  if (nanomolar === null || nanomolar === undefined) return "–";
  const [unit, size] = UNITS.find(([, least]) => nanomolar >= least) ?? UNITS.at(-1);
  const value = nanomolar / size;
  return `${value >= 100 ? value.toFixed(0) : value.toPrecision(2)} ${unit}`;
}

function ends(row) {
  if (typeof row.pkd_low === "number" || typeof row.pkd_high === "number") {
    return [row.pkd_low ?? LOWEST, row.pkd_high ?? HIGHEST];
  }
  return typeof row.sd === "number" && typeof row.pkd === "number" ? [row.pkd - row.sd, row.pkd + row.sd] : null;
}

function bar(row) {
  const span = ends(row);
  if (row.pkd === null) return element("span", { class: "soft" }, "–");
  const at = (value) => (100 * (Math.min(HIGHEST, Math.max(LOWEST, value)) - LOWEST)) / (HIGHEST - LOWEST);
  const text = span ? `${span[0].toFixed(1)} to ${span[1].toFixed(1)}` : "";
  const picture = element("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    ...[5, 7, 9, 11].map((edge) => element("line", { x1: at(edge), x2: at(edge), y1: 0, y2: 10, stroke: "#d8dee5", "stroke-width": 0.7 })),
    span ? element("rect", { x: at(span[0]), width: Math.max(0.8, at(span[1]) - at(span[0])), y: 3.2, height: 3.6, fill: "#9cc3de" }) : null,
    element("rect", { x: at(row.pkd) - 0.9, width: 1.8, y: 0.8, height: 8.4, fill: "#1f5f8b" }));
  return element("span", { class: "interval" }, picture, text);
}

function plain(name) {
  const words = name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

function shown(name, value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "number" && SHARE.test(name)) return `${(100 * value).toFixed(value < 0.01 ? 1 : 0)} %`;
  return typeof value === "number" ? (Number.isInteger(value) ? String(value) : value.toFixed(2)) : String(value);
}

function chip(word) {
  return word ? element("span", { class: `chip ${/^[a-z]+$/.test(word) ? word : ""}` }, word) : "–";
}

// The level is the server's word, as in "90 % interval"; an answer without it has intervals of nobody knows which.
export function interval(level) {
  return typeof level === "number" ? `${Number((100 * level).toPrecision(3))} % interval` : "Interval";
}

function table(rows, level) {
  const has = (name) => rows.some((row) => row[name] !== null && row[name] !== undefined);
  const more = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter((name) => !OWN.has(name) && has(name));
  const sure = has("pkd_low") || has("pkd_high") ? interval(level) : has("sd") ? "± SD of the ensemble" : "Scale 3 to 13";
  const heads = [["Row", ""], ["pKd", "number"], ...(has("domain") ? [["Domain", ""]] : []), [sure, ""], ["Kd", "number"], ["Bin", ""]];
  const tells = rows.some((row) => "unseen" in row);
  if (tells) heads.push(["Training never saw", "words"]);
  heads.push(...more.map((name) => [TITLES[name] ?? plain(name), rows.some((row) => typeof row[name] === "number") ? "number" : ""]));
  const lines = rows.slice(0, MOST_SHOWN).map((row, index) => element("tr", {},
    element("td", {}, String(row.row_id ?? index + 1)),
    element("td", { class: "number" }, element("b", {}, row.pkd === null ? "–" : row.pkd.toFixed(2))),
    has("domain") ? element("td", {}, chip(row.domain)) : null,
    element("td", {}, bar(row)),
    element("td", { class: "number" }, kd(row.kd_nm)),
    element("td", {}, chip((row.affinity_bin ?? "").replace("_", " "))),
    tells ? element("td", { class: row.unseen ? "words flag" : "words soft" }, row.unseen ?? "nothing new") : null,
    ...more.map((name) => element("td", { class: typeof row[name] === "number" ? "number" : "" }, shown(name, row[name])))));
  return element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Predictions" }, element("table", {},
    element("thead", {}, element("tr", {}, ...heads.map(([title, kind]) => element("th", { scope: "col", class: kind }, title)))),
    element("tbody", {}, ...lines)));
}

function figure(row, level) {
  const span = ends(row);
  const parts = [["pKd", row.pkd === null ? "–" : row.pkd.toFixed(2)], ["Kd", kd(row.kd_nm)]];
  if (span) parts.push([typeof row.pkd_low === "number" || typeof row.pkd_high === "number" ? interval(level) : "± SD", `${span[0].toFixed(1)}–${span[1].toFixed(1)}`]);
  return element("div", { class: "figure" }, ...parts.map(([name, value]) => element("div", {}, element("span", {}, name), element("b", {}, value))),
    row.domain ? element("div", {}, element("span", {}, "Domain"), chip(row.domain)) : null);
}

export function showPredictions(place, rows, level = null, notes = []) {
  const save = element("button", { type: "button", class: "quiet", id: "download-predictions" }, "Download CSV");
  save.addEventListener("click", () => download("predictions.csv", csv(rows)));
  const title = rows.length === 1 ? "Prediction" : `${rows.length.toLocaleString("en")} predictions`;
  place.replaceChildren(...[
    element("div", { class: "head" }, element("h2", {}, title), save),
    rows.length === 1 ? figure(rows[0], level) : null,
    table(rows, level),
    rows.length > MOST_SHOWN ? element("p", { class: "note" }, `The first ${MOST_SHOWN} are shown; the download has all.`) : null,
    ...notes.map((note) => element("p", { class: "note" }, note)),
  ].filter(Boolean));
  place.hidden = false;
}
