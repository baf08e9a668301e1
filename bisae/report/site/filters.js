"use strict";
// Which features are listed, in which order; the form that says so.

const RANGES = { mono: "monosemanticity", align: "alignment", rate: "rate" }; // key of the address -> column
const FLAGS = { bilingual: ["bilingual", 1, "bilingual only"], several: ["single_token", 0, "several tokens only"] };
const FILTERS = ["class", ...Object.keys(RANGES), ...Object.keys(FLAGS)]; // keys of the address
const SORTS = [
  "monosemanticity",
  "cross",
  "alignment",
  "rate",
  "feature",
  "hits",
  "h_token",
  "h_semantic",
  "distinct_tokens",
  "firings",
  "maximum",
  "by_token",
  "by_previous",
];
const filters = document.querySelector("#filters form");

/** The column to sort by and whether it falls; unless the address says it, matches of a search, else alignment. */
function sorting() {
  const key = link.get("sort") ?? (link.has("q") ? "-hits" : "-alignment");
  return { column: key.replace("-", ""), falling: key.startsWith("-") };
}

/** The features to list. `hits`: counts of a search, or null. Those without a value come last. */
function selected(cell, hits) {
  const classes = link.get("class")?.split(",");
  const named = cell.columns.class;
  const wanted = classes && named.names.map((name) => classes.includes(name));
  const bounds = Object.entries(RANGES)
    .filter(([key, column]) => link.has(key) && cell.columns[column])
    .map(([key, column]) => [cell.columns[column], ...range(key)]);
  const flags = Object.entries(FLAGS)
    .filter(([key, [column]]) => link.has(key) && cell.columns[column]?.yes)
    .map(([, [column, wants]]) => [cell.columns[column].yes, wants]);
  const counts = hits && hits[link.get("where") ?? "peak"];
  const kept = [];
  for (let feature = 0; feature < cell.features; feature++) {
    if (wanted && !wanted[named.codes[feature]]) continue;
    if (flags.some(([values, wants]) => values[feature] !== wants)) continue;
    if (counts && counts[feature] === 0) continue;
    if (bounds.every(([column, least, most]) => column[feature] >= least && column[feature] <= most))
      kept.push(feature);
  }
  const { column, falling } = sorting();
  const values = column === "hits" ? counts : cell.columns[column];
  if (values?.length === cell.features) {
    const last = falling ? -Infinity : Infinity;
    const keys = Float64Array.from(values, (value) => (Number.isNaN(value) ? last : value));
    kept.sort(falling ? (a, b) => keys[b] - keys[a] || a - b : (a, b) => keys[a] - keys[b] || a - b);
  }
  return Int32Array.from(kept);
}

/** Fill the form for a cell; what the address says is set by `showFilters`. */
function makeFilters(cell) {
  const names = [...cell.languages.map(className), "Mixed", "dead"].filter((name) =>
    cell.columns.class.names.includes(name),
  );
  const box = (value, text, id) =>
    h(
      "label",
      { class: "chip" },
      h("input", { type: "checkbox", name: id, value }),
      h("i", { class: colour(cell, value) }),
      text,
    );
  const bound = (key, which) =>
    h("input", {
      type: "number",
      step: "any",
      name: key,
      "aria-label": `${meaning(RANGES[key])[0]}, ${which}`,
      placeholder: which,
    });
  fill(
    filters,
    h(
      "fieldset",
      {},
      h("legend", {}, "Class"),
      names.map((name) => box(name, name, "class")),
      Object.entries(FLAGS)
        .filter(([, [column]]) => cell.columns[column])
        .map(([key, [, , text]]) => h("label", { class: "chip" }, h("input", { type: "checkbox", name: key }), text)),
    ),
    Object.entries(RANGES)
      .filter(([, column]) => cell.columns[column])
      .map(([key, column]) =>
        h(
          "fieldset",
          { class: "range", title: meaning(column)[1] },
          h("legend", {}, meaning(column)[0]),
          bound(key, "least"),
          bound(key, "most"),
        ),
      ),
    h(
      "fieldset",
      { class: "range" },
      h("legend", {}, "Sort by"),
      h(
        "select",
        { name: "sort", "aria-label": "Sort by" },
        SORTS.filter((name) => name === "hits" || cell.columns[name]).map((name) =>
          h("option", { value: name }, meaning(name)[0]),
        ),
      ),
      h(
        "button",
        { type: "button", name: "turn", "aria-label": "Turn the order", onclick: () => sortBy(sorting().column) },
        "↓",
      ),
    ),
    h("button", { type: "reset", class: "quiet" }, "Reset"),
  );
}

function showFilters() {
  const classes = link.get("class")?.split(",") ?? [];
  const { column, falling } = sorting();
  for (const field of filters.elements) {
    if (field.name === "class") field.checked = classes.includes(field.value);
    if (field.name in FLAGS) field.checked = link.has(field.name);
    if (field.name === "sort") field.value = column;
    if (field.name === "turn") field.textContent = falling ? "↓" : "↑";
    if (field.name in RANGES && field !== document.activeElement) {
      field.value = (link.get(field.name) ?? "").split("..")[field.placeholder === "least" ? 0 : 1] ?? "";
    }
  }
  document.querySelector("#filters").classList.toggle(
    "used",
    FILTERS.some((key) => link.has(key)),
  );
}

/** Sort by a column, falling first; again turns the order. */
function sortBy(column) {
  const now = sorting();
  go({ sort: (now.column === column ? !now.falling : column !== "feature") ? `-${column}` : column });
}

filters.addEventListener("input", ({ target }) => {
  if (target.name === "sort") return sortBy(target.value);
  const form = new FormData(filters);
  const changes = { class: form.getAll("class").join(",") };
  for (const key of Object.keys(FLAGS)) changes[key] = form.has(key) ? 1 : null;
  for (const key of Object.keys(RANGES))
    changes[key] = form.getAll(key).some(Boolean) ? form.getAll(key).join("..") : null;
  return go(changes);
});
filters.addEventListener("submit", (event) => event.preventDefault());
filters.addEventListener("reset", (event) => {
  event.preventDefault();
  go(Object.fromEntries(["sort", ...FILTERS].map((key) => [key, null])));
});
