// Images that stand out: typical, atypical, near-duplicates, doubtful labels.

function images() {
  const { run } = page;
  const { analysis } = run;
  if (!analysis || !(analysis.typical.length || analysis.atypical.length)) return page.put("images", "Images", null);
  const one = ([entry, score]) => el("figure", {}, tile(run, entry), el("figcaption", {}, apart(score)));
  const group = (title, text, body, className = "") => body.length
    ? el("div", { class: `card ${className}` }, el("h3", {}, title), el("p", { class: "note" }, text), el("div", { class: `standouts ${className ? "pairs" : ""}` }, body)) : null;
  page.put("images", "Images that stand out", [
    el("p", {}, `What to look at first when cleaning the data${analysis.sampled < analysis.readable ? `, found in a sample of ${plural(analysis.sampled, "image", "images")}` : ""}.`),
    el("div", { class: "grid" },
      group("Most typical", "Nearest to its prototype, one of each coarse prototype. Numbers here are cosine distances.", analysis.typical.map(one)),
      group("Most atypical", "Farthest from its fifth nearest neighbour: odd ones out, or of a kind of their own.", analysis.atypical.map(one)),
      group("Near-duplicates", "Pairs that the encoder can hardly tell apart.", analysis.duplicates.map((pair) =>
        el("figure", {}, el("div", { class: "two" }, pair.images.map((entry) => tile(run, entry))),
          el("figcaption", {}, apart(pair.similarity), pair.identical ? [" ", el("span", { class: "badge" }, "same file")] : null))), "wide"),
      group("Labels worth a second look", "Images whose label is not that of nearly all others of their prototype.", analysis.doubtful.map(([entry, label, share]) =>
        el("figure", {}, tile(run, entry), el("figcaption", {}, `${labelOf(run, entry) ?? "no label"} among ${percent(100 * share, 0)} ${analysis.classes[label]}`))), "wide"),
    ),
  ]);
}
