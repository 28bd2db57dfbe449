// What the prototypes of the newest E-step look like: gallery, map, and how assignments changed.

let gallery = null;

function openPrototype(m, id) {
  gallery?.open([[m, id]]);
}

function prototypes() {
  const { analysis } = page.run;
  if (!analysis) {
    const { run } = page;
    const why = run.method !== "PCL" ? null
      : `No prototypes yet: the first E-step begins epoch ${run.warmup_epochs + 1}.`;
    return page.put("prototypes", "Prototypes", why && [el("p", { class: "empty" }, why)]);
  }
  gallery = new Gallery(page.run);
  const charts = analysis.granularities.map((granularity) => [
    new Histogram({ title: `Sizes of ${count(granularity.count)} prototypes`, unit: "images", data: granularity.sizes, whole: true }),
    new Histogram({ title: `Their concentrations φ`, unit: "φ from", data: granularity.concentrations }),
  ]);
  page.put("prototypes", "Prototypes", [
    el("p", {}, "Groups of images that the encoder formed by itself, from few coarse ones to many fine ones. Open one to see its nearest images and into which finer prototypes they fall."),
    gallery.root,
    el("div", { class: "grid" }, charts.flat().map((chart) => chart.root)),
  ]);
}

function map() {
  const { analysis } = page.run;
  if (!analysis?.mapped) return page.put("map", "Map", null);
  const drawn = new ImageMap(page.run);
  const all = analysis.sampled === analysis.readable;
  page.put("map", "Map of the images", [
    el("p", {}, `${all ? "All" : "A sample of"} ${plural(analysis.sampled, "image", "images")}${all ? "" : ` of ${count(analysis.readable)}`}, laid out by t-SNE so that images with similar embeddings are neighbours. Distances between far groups mean little.`),
    drawn.root,
  ]);
}

function change() {
  const { analysis } = page.run;
  if (!analysis?.changes.length) return page.put("change", "Change", null);
  const { changes, granularities } = analysis;
  const x = changes.map((one) => one.to);
  const shades = [accent, ink, faint];
  const series = (field) => granularities.map((granularity, m) => ({
    name: `${count(granularity.count)} prototypes`, colour: shades[m % 3], dashed: m > 2, x,
    y: changes.map((one) => one[field][m] ?? NaN),
  }));
  const agreement = new LineChart({ title: "Agreement with the E-step before", smoothed: false, range: [0, 1] });
  const labelled = new LineChart({ title: "Agreement with the labels", smoothed: false });
  agreement.from = labelled.from = x[0];
  agreement.set(series("agreement"));
  labelled.set(series("with_labels"));
  page.put("change", "How assignments changed", [
    el("p", {}, "How assignments changed over the epochs: normalised mutual information, 1 where two groupings of the images are the same."),
    el("div", { class: "grid" }, agreement.root, labelled.root),
    changes.length < analysis.steps - 1 ? el("p", { class: "note" }, `${count(changes.length)} pairs of successive E-steps, spread over ${count(analysis.steps)}.`) : null,
  ]);
}
