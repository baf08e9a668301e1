"use strict";
// What a feature does: changes that interventions with it alone made.

async function effectSection(cell, of) {
  if (!cell.effects) return null;
  const rows = (await load(`${cell.effects}/effects`)).rows.filter(({ feature }) => feature === of);
  if (!rows.length) return null;
  const heads = ["Edit", "Change of", "by", "95 % over texts or words", "random features"];
  const atRandom = ({ random, random_low: low, random_high: high, draws }) =>
    low === null ? `${digits(random)} (mean of ${draws})` : `${digits(random)}, ${digits(low)} to ${digits(high)} (${draws} draws)`;
  return section(
    "What it does",
    h("p", { class: "note" }, "The LM edited by this feature alone, less the plain LM, beside random features that are about as active: their mean and where 95 % of such features lie."),
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            {},
            h("td", {}, row.edit),
            h("td", {}, row.metric),
            h("td", { class: "number", "data-value": String(row.value) }, digits(row.value)),
            h("td", { class: "number" }, `${digits(row.low)} to ${digits(row.high)}`),
            h("td", { class: "number" }, row.draws ? atRandom(row) : "–"),
          ),
        ),
      ),
    ),
  );
}
