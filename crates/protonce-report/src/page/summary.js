// The head of the page: what a run is, what it comes to in numbers, and the command that makes it again.

/** What a run comes to, in numbers. */
function figuresOf(run) {
  const { history, analysis } = run;
  const done = history?.points.length ? history.points[history.points.length - 1][0] : 0;
  const figures = [];
  const figure = (term, value, note, best) =>
    figures.push(el("div", { class: best ? "best" : "" }, el("dt", {}, term), el("dd", {}, value, note ? el("small", {}, note) : null)));
  const images = analysis?.images ?? run.images;
  if (images) figure("Images", count(images), analysis && analysis.readable < images ? `${count(images - analysis.readable)} unreadable` : analysis?.classes.length ? `${plural(analysis.classes.length, "class", "classes")}, unseen in training` : "no labels");
  if (analysis) figure("Prototypes", analysis.granularities.map((one) => count(one.count)).join(" · "), `found after epoch ${analysis.epoch ?? "?"}`);
  if (history?.best) {
    const [top1, k, epoch] = history.best;
    const chance = history.evaluations.at(-1)?.chance;
    const floors = history.floors.filter((floor) => Number.isFinite(floor.knn[k]));
    const beside = floors.map((floor) => `${floor.name} ${percent(floor.knn[k], 1)}`);
    if (Number.isFinite(chance)) beside.push(`chance ${percent(chance, 0)}`);
    const above = floors.every((floor) => floor.knn[k] < top1);
    figure("kNN accuracy", percent(top1), `best, ${k} neighbours, epoch ${epoch}; ${beside.join(", ")}${above ? "" : ": nothing gained by training yet"}`, above);
  }
  const purity = analysis?.granularities.at(-1)?.purity;
  if (Number.isFinite(purity)) figure("Purity", percent(purity, 0), `of ${count(analysis.granularities.at(-1).count)} prototypes: images with the commonest label of theirs`);
  if (history?.points.length) {
    const last = history.points[history.points.length - 1];
    const rates = history.points.slice(-40).map((point) => point[7]).filter(Number.isFinite);
    const rate = rates.length ? `${short(rates.reduce((a, b) => a + b) / rates.length)} images/s, waiting for data ${percent(last[8])} of the time` : null;
    const running = done < run.epochs;
    figure(running ? "Epochs so far" : "Epochs", running ? `${short(Math.floor(done * 100) / 100)} of ${count(run.epochs)}` : count(run.epochs), rate);
    const total = history.training_seconds + history.expectation_seconds + history.evaluation_seconds;
    figure("Time", duration(total), `${duration(history.training_seconds)} training, ${duration(history.expectation_seconds)} E\u2011steps${history.evaluation_seconds > 0 ? `, ${duration(history.evaluation_seconds)} evaluating` : ""}`);
  }
  return figures;
}

function summary() {
  const { run } = page;
  const { analysis } = run;
  const copy = el("button", { type: "button", onclick: async () => {
    try {
      await navigator.clipboard.writeText(run.command);
      copy.textContent = "Copied";
    } catch {
      // Without permission, selected text can still be copied by hand.
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected";
    }
  } }, "Copy");
  const code = el("code", {}, run.command);
  // Images of the finest prototypes are most alike: what the encoder has learned to see shows there first.
  const finest = (analysis?.granularities.length ?? 0) - 1;
  const size = `${run.image_size}\u00a0px`;
  page.put("summary", null, [
    content.runs.length > 1 ? el("div", { class: "controls" }, segments("Run", content.runs.map((one) => one.name), page.selected, (at) => { page.selected = at; drawRun(); })) : null,
    el("p", { class: "kicker" }, content.live ? "A run as it goes" : "What a run learned without labels"),
    el("h1", { id: "summary-title" }, run.name),
    el("p", { class: "lead" }, `${run.method} with ${run.arch} at ${size}, ${plural(run.epochs, "epoch", "epochs")} on ${run.data}.`),
    run.missing ? el("p", { class: "warning" }, `No pictures and no labels: ${run.missing}.`) : null,
    run.problem ? el("p", { class: "warning" }, `The newest prototypes cannot be shown: ${run.problem}.`) : null,
    el("dl", { class: "figures" }, figuresOf(run)),
    analysis ? el("div", { class: "strip", "aria-label": "The largest of the finest prototypes" }, analysis.granularities[finest].prototypes.slice(0, 8).map((prototype) =>
      prototypeCard(run, finest, prototype, { tiles: 4, open: (id) => openPrototype(finest, id) }))) : null,
    el("div", { class: "command" }, code, copy),
  ]);
}
