// The page: what is asked goes to the interface under /api, and what comes back is shown; mistakes beside their field.

import { rendered } from "./card.js";
import { showSubstitutions } from "./heatmap.js";
import { showPredictions } from "./results.js";

const at = (id) => document.getElementById(id);
const CHAINS = ["heavy", "light", "antigen"];
const FIELDS = [...CHAINS, "file", "pasted", "key"];
const EXAMPLE = {
  heavy: "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSRWGGDGFYAMDYWGQGTLVTVSS",
  light: "DIQMTQSPSSLSASVGDRVTITCRASQDVNTAVAWYQQKPGKAPKLLIYSASFLYSGVPSRFSGSRSGTDFTLTISSLQPEDFATYYCQQHYTTPPTFGQGTKVEIK",
  antigen: "",
};
let key = "";
let busy = false;

class Refused extends Error {
  constructor(message, fields = [], status = 0) {
    super(message);
    this.fields = fields;
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = { ...(options.headers ?? {}), ...(key ? { "X-API-Key": key } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused("The server does not answer. Is it still running?");
  }
  let content;
  try {
    content = await response.json();
  } catch {
    throw new Refused(`The server's answer (${response.status}) cannot be read.`, [], response.status);
  }
  if (!response.ok) throw new Refused(content.message ?? `The server refused (${response.status}).`, content.fields ?? [], response.status);
  return content;
}

function say(text, kind = "") {
  at("status").textContent = text;
  at("status").className = `banner ${kind}`;
}

function clearErrors() {
  for (const name of FIELDS) {
    at(`${name}-error`).textContent = "";
    at(name).removeAttribute("aria-invalid");
  }
}

function blame(name, words) {
  at(`${name}-error`).textContent = words;
  at(name).setAttribute("aria-invalid", "true");
}

function sentence(words) {
  return words[0].toUpperCase() + words.slice(1);
}

// Put each fault beside its field and go to the first; what belongs to none is said above the results.
function showMistake(error, names, otherwise) {
  if (error.status === 401) {
    at("key-form").hidden = false;
    blame("key", key ? "This is not the server's key." : "The server needs a key.");
    say("The server needs a key.", "bad");
    at("key").focus();
    return;
  }
  const blamed = [];
  for (const fault of error.fields) {
    const name = fault.path.split(".").pop();
    if (names.includes(name) && !blamed.includes(name)) {
      blame(name, sentence(fault.message));
      blamed.push(name);
    }
  }
  if (!blamed.length && otherwise && error.status === 422) {
    blame(otherwise, error.message);
    blamed.push(otherwise);
  }
  say(blamed.length ? "Please correct what is marked." : error.message, "bad");
  if (blamed.length) at(blamed[0]).focus();
}

async function work(words, names, otherwise, doIt) {
  if (busy) return;
  busy = true;
  const buttons = document.querySelectorAll("#predict, #scan, #predict-table");
  buttons.forEach((button) => button.setAttribute("aria-disabled", "true"));
  clearErrors();
  say(words, "busy");
  try {
    const done = await doIt();
    at("empty").hidden = true;
    say(done);
    at("answer").focus({ preventScroll: true });
    if (window.matchMedia("(max-width: 860px)").matches) at("answer").scrollIntoView();
  } catch (error) {
    if (!(error instanceof Refused)) console.error(error);
    showMistake(error instanceof Refused ? error : new Refused("This page made a mistake; see the browser's console."), names, otherwise);
  } finally {
    busy = false;
    buttons.forEach((button) => button.removeAttribute("aria-disabled"));
  }
}

// A sequence copied with its FASTA header is taken without it.
function sequence(name) {
  const text = at(name).value.trim();
  return text.startsWith(">") && text.lastIndexOf(">") === 0 ? text.split("\n").slice(1).join("\n") : text;
}

function pair() {
  return Object.fromEntries(CHAINS.map((name) => [name, sequence(name)]));
}

const json = (content) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) });

at("pair-form").addEventListener("submit", (event) => {
  event.preventDefault();
  work("Predicting", CHAINS, null, async () => {
    const answer = await ask("/api/predict", json({ pairs: [pair()] }));
    showPredictions(at("predictions"), answer.predictions, answer.level);
    at("substitutions").hidden = true;
    return "Done: one pair predicted.";
  });
});

at("scan").addEventListener("click", () => {
  const chain = at("chain").value;
  work(`Predicting every substitution of the ${chain} chain`.replace("antigen chain", "antigen"), CHAINS, chain, async () => {
    const answer = await ask("/api/scan", json({ ...pair(), chains: [chain] }));
    showPredictions(at("predictions"), [answer.wild_type], answer.level);
    showSubstitutions(at("substitutions"), answer);
    return `Done: ${answer.substitutions.length.toLocaleString("en")} substitutions predicted.`;
  });
});

at("table-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const [file] = at("file").files;
  const text = at("pasted").value;
  if (!file && !text.trim()) {
    clearErrors();
    showMistake(new Refused("", [{ path: "file", message: "choose a file, or paste a table below." }], 422), ["file"], null);
    return;
  }
  const form = new FormData();
  if (file) form.append("file", file);
  else form.append("file", new Blob([text]), text.split("\n")[0].includes("\t") ? "pasted.tsv" : "pasted.csv");
  work("Predicting the table", ["file"], file ? "file" : "pasted", async () => {
    try {
      const answer = await ask("/api/predict-file?format=json", { method: "POST", body: form });
      showPredictions(at("predictions"), answer.predictions, answer.level, answer.notes);
      at("substitutions").hidden = true;
      return `Done: ${answer.predictions.length.toLocaleString("en")} rows predicted.`;
    } catch (error) {
      if (!file && error instanceof Refused) error.fields = [];
      throw error;
    }
  });
});

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value.trim();
  clearErrors();
  say("");
  loadCard();
});

at("example").addEventListener("click", () => {
  for (const name of CHAINS) at(name).value = EXAMPLE[name];
  clearErrors();
  at("predict").focus();
});

async function loadCard() {
  try {
    at("card-text").replaceChildren(...rendered((await ask("/api/model-card")).markdown));
    return true;
  } catch (error) {
    at("card-text").textContent = error.message;
    if (error.status === 401 && key) showMistake(error, [], null);
    return false;
  }
}

async function begin() {
  try {
    const health = await ask("/api/health");
    at("model").textContent = `model ${health.model} · tailbind ${health.version}`;
    at("model").hidden = false;
    at("scan-tools").hidden = !health.scans;
    at("key-form").hidden = !health.needs_key;
    if (health.reads === "columns") {
      at("pair-form").hidden = true;
      at("file-hint").textContent = "With the feature columns that the model was trained on; one row per pair. This model does not read sequences.";
    }
    if (!health.needs_key) await loadCard();
  } catch (error) {
    say(error.message, "bad");
  }
}

begin();
