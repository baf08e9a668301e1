"use strict";
// The features of other checkpoints that a feature comes from and becomes: by co-activation on the same text, and, of
// warm starts, by the latent's number.

/** Cells that differ from `cell` in the step alone, by step. */
function checkpoints(cell) {
  const same = (other) =>
    Object.keys(cell.axes).every((axis) => axis === "step" || other.axes[axis] === cell.axes[axis]);
  return cells.filter(same).sort((a, b) => a.axes.step - b.axes.step);
}

/** Forward the best match at each next checkpoint; backward, of the features whose best match this is, the closest. */
async function lineOf(cell, of) {
  const line = checkpoints(cell);
  const tables = await Promise.all(line.map((one) => one.history && load(`${one.history}/history`)));
  const here = line.findIndex((one) => one.name === cell.name);
  const places = line.map(() => null);
  places[here] = { feature: of };
  for (let i = here; i + 1 < line.length && tables[i]?.next_step === line[i + 1].axes.step; i++) {
    const entry = tables[i].feature.indexOf(places[i].feature);
    if (entry < 0 || tables[i].next_feature[entry] < 0) break;
    places[i].coactivation = tables[i].next_coactivation[entry];
    places[i + 1] = { feature: tables[i].next_feature[entry] };
  }
  for (let i = here - 1; i >= 0 && tables[i]?.next_step === line[i + 1].axes.step; i--) {
    const table = tables[i];
    let best = -1;
    for (let entry = 0; entry < table.feature.length; entry++) {
      const matches = table.next_feature[entry] === places[i + 1].feature;
      if (matches && (best < 0 || table.next_coactivation[entry] > table.next_coactivation[best])) best = entry;
    }
    if (best < 0) break;
    places[i] = { feature: table.feature[best], coactivation: table.next_coactivation[best] };
  }
  return line.map((one, i) => places[i] && { ...places[i], one }).filter(Boolean);
}

async function historySection(cell, of) {
  const line = await lineOf(cell, of);
  const note =
    "Each step's feature is the best match of the one before by co-activation (Jaccard index of the tokens both fire on); a low value is another feature.";
  return line.length < 2 ? null : lineSection("Over checkpoints", note, cell, line);
}

/** The same latent at each step of a ladder whose SAEs each started from the one before. */
async function tracedSection(cell, of) {
  if (!cell.traced) return null;
  const table = await load(`${cell.traced}/traced`);
  const line = table.cells.map((name, i) => {
    const at = i * table.latents + of;
    const [same, chance, drift] = ["same", "chance", "drift"].map((column) =>
      Number.isNaN(table[column][at]) ? null : table[column][at],
    );
    const one = cells.find((other) => other.name === name);
    return { one, feature: of, coactivation: same, chance, drift, life: table.life[at] };
  });
  const lives = line.filter(({ life }, i) => life > 0 && life !== line[i - 1]?.life).map(({ one, life }) => {
    const last = line.findLastIndex((place) => place.life === life);
    const end = last + 1 < line.length ? `gone at step ${digits(line[last + 1].one.axes.step)}` : "to the last step";
    return `born at step ${digits(one.axes.step)}, ${end}, drift ${thousandths(line[last].drift)}`;
  });
  const note = `This latent, by its number. Its lives: ${lives.join("; ") || "none"}. Drift: 1 − cosine of its direction with that at birth.`;
  return lineSection("The same latent over checkpoints", note, cell, line, {
    "By chance": ({ chance }) => digits(chance),
    Life: ({ life }) => digits(life || null),
    Drift: ({ drift }) => thousandths(drift),
  });
}

const thousandths = (value) => digits(value === null ? null : Math.round(value * 1000) / 1000);

/** A row for each place of the line; `more`: further columns of numbers, by head. */
async function lineSection(title, note, cell, line, more = {}) {
  const open = await Promise.all(line.map(({ one }) => openCell(one)));
  const heads = ["Step", "Feature", "Class", "Strongest tokens", "Mono.", "Same firing as the next"];
  const table = h(
    "table",
    {},
    h("thead", {}, h("tr", {}, [...heads, ...Object.keys(more)].map((head) => h("th", { scope: "col" }, head)))),
    h(
      "tbody",
      {},
      line.map((place, i) => {
        const { one, feature: match, coactivation } = place;
        const kind = open[i].at("class", match);
        return h(
          "tr",
          { "aria-current": one.name === cell.name ? "true" : null },
          h("td", { class: "number" }, digits(one.axes.step)),
          h("td", { class: "number" }, h("a", { href: address({ cell: one.name, feature: match }) }, match)),
          h(
            "td",
            {},
            h("b", { class: `short ${colour(cell, kind)}` }, shortName(kind)),
            open[i].at("bilingual", match) && " bilingual",
          ),
          h("td", { class: "tokens" }, labels(open[i], match)),
          h("td", { class: "number" }, digits(open[i].at("monosemanticity", match))),
          h("td", { class: "number" }, digits(coactivation)),
          Object.values(more).map((text) => h("td", { class: "number" }, text(place))),
        );
      }),
    ),
  );
  const values = line.map(({ feature: match }, i) => open[i].at("monosemanticity", match));
  const kinds = line.map(({ feature: match }, i) => colour(cell, open[i].at("class", match)));
  return section(
    title,
    h("p", { class: "note" }, note),
    curve(
      line.map(({ one }) => one.axes.step),
      values,
      kinds,
    ),
    h("div", { class: "wide" }, table),
  );
}

/** Monosemanticity over checkpoints, a dot a step in the colour of its class. */
function curve(steps, values, kinds) {
  const [width, height, left] = [560, 110, 34];
  const x = (i) => left + 14 + (i * (width - left - 40)) / (steps.length - 1);
  const y = (value) => 10 + (1 - Math.min(1, Math.max(0, value))) * (height - 36);
  const known = values.map((value, i) => [i, value]).filter(([, value]) => value !== null);
  return h(
    "svg:svg",
    {
      class: "curve",
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": `Monosemanticity over ${steps.length} checkpoints`,
    },
    [0, 0.5, 1].map((value) => [
      h("svg:line", { class: "axis", x1: left, x2: width - 12, y1: y(value), y2: y(value) }),
      h("svg:text", { x: left - 6, y: y(value) + 3.5, "text-anchor": "end" }, value),
    ]),
    h("svg:polyline", { points: known.map(([i, value]) => `${x(i)},${y(value)}`).join(" ") }),
    known.map(([i, value]) =>
      h(
        "svg:circle",
        { class: kinds[i], cx: x(i), cy: y(value), r: 4.5 },
        h("svg:title", {}, `step ${steps[i]}: ${digits(value)}`),
      ),
    ),
    steps.map((step, i) => h("svg:text", { x: x(i), y: height - 8, "text-anchor": "middle" }, step)),
  );
}
