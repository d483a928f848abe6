// The model card: Markdown's headings, paragraphs, lists, tables, code and emphasis, as elements.

import { element } from "./element.js";

function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).filter(Boolean).map((part) => {
    if (part.startsWith("`") && part.length > 1) return element("code", {}, part.slice(1, -1));
    if (part.startsWith("**") && part.length > 3) return element("strong", {}, part.slice(2, -2));
    return part.replace(/\[([^\]]+)\]\([^)]*\)/g, "$1");
  });
}

function cells(line) {
  return line.replace(/^\s*\||\|\s*$/g, "").split("|").map((one) => one.trim());
}

function tableOf(lines) {
  const [head, , ...rows] = lines;
  return element("table", {},
    element("thead", {}, element("tr", {}, ...cells(head).map((one) => element("th", { scope: "col" }, ...inline(one))))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row).map((one) => element("td", {}, ...inline(one)))))));
}

export function rendered(markdown) {
  const lines = markdown.replace(/^---\n[\s\S]*?\n---\n/, "").split("\n");
  const parts = [];
  const take = (test) => { const found = []; while (lines.length && test(lines[0])) found.push(lines.shift()); return found; };
  while (lines.length) {
    const line = lines[0];
    const heading = /^(#{1,6})\s+(.*)$/.exec(line);
    if (!line.trim()) lines.shift();
    else if (heading) { lines.shift(); parts.push(element(`h${Math.min(6, heading[1].length + 1)}`, {}, ...inline(heading[2]))); }
    else if (line.startsWith("```")) { lines.shift(); parts.push(element("pre", {}, take((one) => !one.startsWith("```")).join("\n"))); lines.shift(); }
    else if (/^\s*\|/.test(line)) parts.push(tableOf(take((one) => /^\s*\|/.test(one))));
    else if (/^\s*[-*]\s+/.test(line)) parts.push(element("ul", {}, ...take((one) => /^\s*[-*]\s+/.test(one)).map((one) => element("li", {}, ...inline(one.replace(/^\s*[-*]\s+/, ""))))));
    else parts.push(element("p", {}, ...inline([lines.shift(), ...take((one) => one.trim() && !/^(#|```|\s*\||\s*[-*]\s)/.test(one))].join(" "))));
  }
  return parts;
}
