// Evaluations and settings as tables, and what the page leaves out.

function evaluations() {
  const runs = content.runs.filter((run) => run.history?.evaluations.length);
  if (!runs.length) return page.put("evaluations", "Evaluations", null);
  const tables = runs.map((run) => {
    const all = run.history.evaluations;
    const ks = [...new Set(all.flatMap((evaluation) => Object.keys(evaluation.knn)))];
    const best = run.history.best?.[2];
    // The newest and the best, and between them no more than fits a screen.
    const step = Math.ceil(all.length / 24);
    const shown = all.filter((evaluation, at) => (all.length - 1 - at) % step === 0 || evaluation.epoch === best);
    return el("div", { class: "card scroll" }, el("table", {},
      el("caption", {}, `${content.runs.length > 1 ? `${run.name}: ` : ""}top-1 accuracy of a weighted kNN on backbone features${step > 1 ? `; every ${step}th of ${count(all.length)} and the best` : ""}.`),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "After epoch"), ks.map((k) => el("th", { scope: "col" }, `${k} neighbours`)), el("th", { scope: "col" }, "Chance"))),
      el("tbody", { class: "floors" }, run.history.floors.map((floor) => el("tr", {},
        el("th", { scope: "row" }, floor.name), ks.map((k) => el("td", {}, percent(floor.knn[k], 2))), el("td", {})))),
      el("tbody", {}, shown.map((evaluation) => el("tr", { class: evaluation.epoch === best ? "best" : "" },
        el("th", { scope: "row" }, count(evaluation.epoch)), ks.map((k) => el("td", {}, percent(evaluation.knn[k], 2))), el("td", {}, percent(evaluation.chance, 1)))))));
  });
  page.put("evaluations", "Evaluations", [el("div", { class: tables.length > 1 ? "grid" : "" }, tables)]);
}

function settings() {
  const { run } = page;
  const skipped = run.history?.skipped ?? 0;
  page.put("settings", "Settings", [
    el("details", {}, el("summary", {}, `All ${count(run.settings.length)} settings of ${run.path}`),
      el("dl", { class: "settings" }, run.settings.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value || "–"))))),
    skipped ? el("details", {}, el("summary", {}, `${plural(skipped, "image was", "images were")} skipped`),
      el("ul", {}, run.history.skipped_first.map(([name, reason]) => el("li", {}, `${name}: ${reason}`))),
      skipped > run.history.skipped_first.length ? el("p", { class: "note" }, "The rest is in events.jsonl.") : null) : null,
  ]);
}

function footer() {
  const { run } = page;
  const { analysis } = run;
  const notes = [];
  if (analysis) {
    const { images_shown: shown } = analysis;
    if (!content.live && run.thumbnails && run.thumbnails.tiles < shown.count) notes.push(`Pictures of ${count(run.thumbnails.tiles)} images, those of large prototypes and those that stand out first; other images are shown by name.`);
    if (analysis.sampled < analysis.readable) notes.push(`The map, outliers and near-duplicates come from ${count(analysis.sampled)} of ${count(analysis.readable)} images, evenly spread.`);
    const listed = analysis.granularities.reduce((sum, one) => sum + one.prototypes.length, 0);
    const all = analysis.granularities.reduce((sum, one) => sum + one.count - one.empty, 0);
    if (listed < all) notes.push(`${count(listed)} of ${count(all)} prototypes are described one by one.`);
  }
  main.querySelector("footer").replaceChildren(
    el("p", {}, `Made by protonce ${content.version}${content.live ? "" : `, ${new Date(content.made * 1000).toLocaleString()}`}. Sizes, purities and histograms count every image.`),
    notes.length ? el("ul", {}, notes.map((note) => el("li", {}, note))) : "");
}
