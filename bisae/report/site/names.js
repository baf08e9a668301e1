"use strict";
// What columns and metrics are called, how numbers and languages are shown.

const MEANINGS = {
  feature: ["Number", "number of the latent in its SAE"],
  rate: ["Firing rate", "share of the tokens it fires on"],
  firings: ["Firings", "tokens it fires on"],
  maximum: ["Maximum", "largest activation before TopK"],
  contexts: ["Contexts", "contexts the analysis kept"],
  distinct_tokens: ["Distinct tokens", "different tokens at the peaks of its contexts"],
  monosemanticity: ["Monosemanticity", "1 − H semantic / H token: 1 if all its tokens mean the same"],
  monosemanticity_null: ["shuffled, mean", "the same with the meanings of tokens shuffled"],
  monosemanticity_null_high: ["shuffled, high", "the stated quantile of the shuffled values"],
  h_token: ["H token", "entropy of its tokens, in nats"],
  h_semantic: ["H semantic", "entropy of the clusters its tokens fall into, in nats"],
  cross: ["R cross", "what its clusters leave open of the language / H token: 0 if no cluster has words of both"],
  cross_p: ["p", "share of the pairs of its halves with those of other features that score as high"],
  cross_q: ["q", "false discovery rate among the Mixed features"],
  cross_left_out: ["left out", "contexts on words of both languages"],
  alignment: ["Alignment", "correlation r of its activation on a sentence and on the translation, words only"],
  alignment_p: ["p", "share of shuffled pairs that correlate at least as much"],
  alignment_other: ["punctuation, digits", "the same on punctuation and digits"],
  by_token: ["by the token", "share of its firing that the token itself explains, cross-fitted"],
  by_previous: ["by the previous token", "share of its firing that the previous token explains, cross-fitted"],
  hits: ["Matches", "contexts that match the search"],
  alive: ["Alive", "features that fire"],
  dead: ["Dead", "share of features that never fire"],
  bilingual: ["Bilingual", "share of the features alive"],
  English: ["English", "share of the features alive"],
  Japanese: ["Japanese", "share of the features alive"],
  Mixed: ["Mixed", "share of the features alive"],
};

function meaning(name) {
  if (name.startsWith("firing_"))
    return [`${name.slice(7)}, all firings`, "share of the features alive, by all firings"];
  const [, whole, language] = name.match(/^(rate|firings)_([\w-]+)$/) ?? [];
  if (whole)
    return [`${MEANINGS[whole][0]}, ${className(language)}`, `${MEANINGS[whole][1]}, in ${className(language)}`];
  return MEANINGS[name] ?? [name.replaceAll("_", " "), ""];
}

const CLASSES = { en: "English", ja: "Japanese" }; // other languages go by their code
const SHORT = { English: "En", Japanese: "Ja", dead: "–", Mixed: "Mix" };
const className = (language) => CLASSES[language] ?? language;
const shortName = (name) => SHORT[name] ?? name;

/** Number of the colour of a class or language: languages in order, then Mixed and dead. */
function colour(cell, name) {
  const place = cell.languages.findIndex((language) => language === name || className(language) === name);
  return place >= 0 ? `language-${place % 4}` : name === "Mixed" ? "mixed" : "dead";
}

/** A number in `places` significant digits, as a fraction where that is short. */
function digits(value, places = 3) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const small = Math.abs(value) < 0.001;
  const text = small
    ? value.toExponential(places - 2)
    : Math.abs(value) < 1
      ? value.toFixed(places)
      : value.toPrecision(places + 1);
  return (Number(text) === 0 ? text.replace("-", "") : text).replaceAll("-", "−");
}
/** A value of the column `name`: rates in percent. */
function said(name, value, places) {
  if (value === null || !/^rate/.test(name)) return digits(value, places);
  return `${Number((value * 100).toPrecision(2))} %`;
}
const percent = (share) => (share === null ? "–" : `${Math.round(share * 100)} %`);

/** Which glyphs a text wants: kana and kanji are Japanese here. */
const lang = (text) => (/[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]/u.test(text) ? "ja" : "en");

/** A bar split by the shares of the languages; empty where there are none. */
function languageBar(cell, prefix, of) {
  const shares = cell.languages.map((language) => cell.at(`${prefix}${language}`, of));
  const told = cell.languages.map((language, i) => `${className(language)} ${percent(shares[i])}`).join(", ");
  return h(
    "span",
    { class: "bar", role: "img", "aria-label": told, title: told },
    shares.map((share, i) => share > 0 && h("i", { class: `language-${i % 4}`, style: `flex-grow:${share}` })),
  );
}
