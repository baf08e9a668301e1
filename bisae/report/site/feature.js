"use strict";
// The page of one feature.

const section = (title, ...content) => h("section", { "aria-label": title }, h("h2", {}, title), ...content);

/** Names and values; each value keeps its full digits in data-value. */
function facts(cell, of, names) {
  const known = names.filter((name) => cell.columns[name]);
  return h(
    "dl",
    {},
    known.map((name) => {
      const value = cell.at(name, of);
      return [
        h("dt", { title: meaning(name)[1] }, meaning(name)[0]),
        h("dd", { "data-name": name, "data-value": String(value) }, said(name, value)),
      ];
    }),
  );
}

async function showFeature(cell, of) {
  const kind = cell.at("class", of);
  const place = order.indexOf(of);
  const step = (by, text, label) => {
    const next = place < 0 ? undefined : order[place + by];
    return h(
      "a",
      {
        class: "button",
        "aria-label": label,
        title: label,
        ...(next === undefined ? { "aria-disabled": "true" } : { href: address({ feature: next }) }),
      },
      text,
    );
  };
  const tags = [
    ["bilingual", "bilingual"],
    ["single_token", "single token"],
    ["contextual", "contextual"],
  ];
  const head = h(
    "div",
    { class: "head" },
    h(
      "nav",
      { "aria-label": "Features" },
      h("a", { class: "button back", href: address({ feature: null }) }, "‹ List"),
      step(-1, "‹", "previous feature (k)"),
      step(1, "›", "next feature (j)"),
    ),
    h("h1", {}, `Feature ${of}`),
    h("span", { class: `class ${colour(cell, kind)}` }, kind),
    tags.filter(([name]) => cell.at(name, of)).map(([, text]) => h("span", { class: "tag" }, text)),
    h("p", { class: "tokens" }, labels(cell, of)),
  );
  const parts = await Promise.all([
    effectSection(cell, of),
    tokenSection(cell, of),
    contextSection(cell, of),
    neighbourSection(cell, of),
    historySection(cell, of),
    tracedSection(cell, of),
  ]);
  return [
    head,
    h(
      "div",
      { class: "panels" },
      languageSection(cell, of),
      section(
        "Monosemanticity",
        scale(cell, of),
        facts(cell, of, [
          "monosemanticity",
          "monosemanticity_null",
          "monosemanticity_null_high",
          "h_token",
          "h_semantic",
          "distinct_tokens",
        ]),
      ),
      section(
        "Firing",
        facts(cell, of, [
          "rate",
          ...cell.languages.map((code) => `rate_${code}`),
          "firings",
          "maximum",
          "by_token",
          "by_previous",
        ]),
      ),
      section("Words of both languages", facts(cell, of, ["cross", "cross_p", "cross_q", "cross_left_out"])),
      section("Translation alignment", facts(cell, of, ["alignment", "alignment_p", "alignment_other"])),
    ),
    ...parts.filter(Boolean),
  ];
}

/** Shares of the languages, by the strongest contexts and by all firings: the first sees too little, the second too much. */
function languageSection(cell, of) {
  const views = [
    ["Top contexts", "share_", "class"],
    ["All firings", "firing_share_", "class_firings"],
  ].filter(([, prefix]) => cell.columns[prefix + cell.languages[0]]);
  return section(
    "Language",
    views.map(([text, prefix, kind]) =>
      h(
        "div",
        { class: "view" },
        h("span", {}, text),
        h("b", {}, cell.at(kind, of) ?? ""),
        languageBar(cell, prefix, of),
        h(
          "span",
          { class: "shares" },
          cell.languages.map((code, i) =>
            h(
              "span",
              { "data-name": prefix + code, "data-value": String(cell.at(prefix + code, of)) },
              h("i", { class: `language-${i % 4}` }),
              `${className(code)} ${percent(cell.at(prefix + code, of))}`,
            ),
          ),
        ),
      ),
    ),
  );
}

/** The score on a line from 0 to 1, beside what shuffled meanings give. */
function scale(cell, of) {
  const value = cell.at("monosemanticity", of);
  if (value === null) return null;
  const at = (name) => Math.min(1, Math.max(0, cell.at(name, of) ?? 0)) * 100;
  const told = `${digits(value)}, shuffled ${digits(cell.at("monosemanticity_null", of))}`;
  return h(
    "div",
    { class: "scale", role: "img", "aria-label": told, title: told },
    h("i", { class: "null", style: `width:${at("monosemanticity_null_high")}%` }),
    h("i", { class: "mean", style: `left:${at("monosemanticity_null")}%` }),
    h("i", { class: "dot", style: `left:${at("monosemanticity")}%` }),
  );
}

/** Its tokens in their clusters; without clusters from the analysis, the peak tokens of the contexts. */
async function tokenSection(cell, of) {
  const tokens = (await tokensOf(cell, of)) ?? (await peakTokens(cell, of));
  if (!tokens.length) return null;
  const clusters = new Map();
  for (const one of tokens) clusters.set(one.cluster, [...(clusters.get(one.cluster) ?? []), one]);
  const total = (part) => part.reduce((sum, { count }) => sum + count, 0);
  const groups = [...clusters.values()].sort((a, b) => total(b) - total(a));
  return section(
    groups[0][0].cluster === null ? "Tokens" : "Tokens by meaning",
    h(
      "ul",
      { class: "clusters" },
      groups.map((group) =>
        h(
          "li",
          {},
          group
            .sort((a, b) => b.count - a.count)
            .map(({ token: text, count }) =>
              h("span", { class: "token", lang: lang(text) }, text.trim() || "␣", h("small", {}, count)),
            ),
        ),
      ),
    ),
  );
}

async function peakTokens(cell, of) {
  const found = new Map();
  for (const { sequence, peak } of await contextsOf(cell, of)) {
    const text = (await sequenceOf(cell, sequence)).pieces[peak];
    found.set(text, (found.get(text) ?? 0) + 1);
  }
  return [...found].map(([text, count]) => ({ token: text, count, cluster: null }));
}

async function neighbourSection(cell, of) {
  if (!cell.neighbours) return null;
  const near = await load(`${cell.neighbours}/neighbours`);
  const places = Array.from({ length: near.each }, (_, i) => of * near.each + i).filter((i) => near.feature[i] >= 0);
  return section(
    "Neighbours",
    h("p", { class: "note" }, "Features with the nearest decoder directions, by cosine."),
    h(
      "ul",
      { class: "neighbours" },
      places.map((i) => {
        const other = near.feature[i];
        const kind = cell.at("class", other);
        return h(
          "li",
          {},
          h("span", { class: "number" }, digits(near.cosine[i])),
          h("a", { href: address({ feature: other }) }, other),
          h("b", { class: `short ${colour(cell, kind)}` }, shortName(kind)),
          h("span", { class: "tokens" }, labels(cell, other)),
        );
      }),
    ),
  );
}
