"use strict";
// What a feature does: changes that interventions with it alone made.

async function effectSection(cell, of) {
  if (!cell.effects) return null;
  const rows = (await load(`${cell.effects}/effects`)).rows.filter(({ feature }) => feature === of);
  if (!rows.length) return null;
  const heads = ["Edit", "Change of", "by", "95 % over texts", "random features"];
  return section(
    "What it does",
    h("p", { class: "note" }, "The LM edited by this feature alone, less the plain LM, and the mean of random features that are about as active."),
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h(
        "tbody",
        {},
        rows.map(({ edit, metric, value, low, high, random, draws }) =>
          h(
            "tr",
            {},
            h("td", {}, edit),
            h("td", {}, metric),
            h("td", { class: "number", "data-value": String(value) }, digits(value)),
            h("td", { class: "number" }, `${digits(low)} to ${digits(high)}`),
            h("td", { class: "number" }, draws ? `${digits(random)} (mean of ${draws})` : "–"),
          ),
        ),
      ),
    ),
  );
}
