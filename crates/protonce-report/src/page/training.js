// Curves of training: losses, accuracies, kNN, learning rate and speed, of several runs side by side.

const training = {
  build() {
    this.losses = new LineChart({ title: "Loss", height: 250, className: "wide" });
    this.accuracies = new LineChart({ title: "Own key or prototype scored highest", format: (v) => percent(v, 0) });
    this.knn = new LineChart({ title: "kNN accuracy", format: (v) => percent(v, 1), tick: (v) => percent(v, 0), smoothed: false });
    this.rate = new LineChart({ title: "Images a second" });
    this.learning = new LineChart({ title: "Learning rate", smoothed: false });
    this.waiting = new LineChart({ title: "Time spent waiting for data", format: (v) => `${short(v)}\u202f%` });
    this.rank = new LineChart({ title: "Directions that the embeddings fill (effective rank)", smoothed: false });
    this.charts = [this.losses, this.accuracies, this.knn, this.rank, this.learning, this.rate, this.waiting];
  },

  draw() {
    const runs = content.runs.filter((run) => run.history?.points.length);
    if (!runs.length) {
      return page.put("training", "Training", [el("p", { class: "empty" }, "No step was logged yet.")]);
    }
    if (!this.losses) this.build();
    const several = runs.length > 1;
    const curves = (columns, knn) => runs.flatMap((run) => {
      const number = content.runs.indexOf(run);
      const at = (column) => run.history.columns.indexOf(column);
      const x = run.history.points.map((point) => point[0]);
      return columns.map(([column, name, own, dashed]) => ({
        name: several ? (columns.length > 1 ? `${run.name}, ${name}` : run.name) : name,
        colour: several ? RUN_COLOURS[number % RUN_COLOURS.length] : own,
        dashed: several ? columns.length > 1 && dashed : dashed,
        x,
        y: run.history.points.map((point) => point[at(column)] ?? NaN),
      }));
    });
    const first = page.run;
    const starts = first.method === "PCL" ? [{ x: first.warmup_epochs, name: "prototypes join" }] : [];
    const terms = runs.some((run) => run.history.points.some((point) => point[3] !== null));
    this.losses.set(curves(several ? [["loss", "total", ink]] : terms
      ? [["loss", "total", ink], ["instance_loss", "instance", accent], ["prototype_loss", "prototypes", accent, true]]
      : [["loss", "instance", accent]]), terms && first.warmup_epochs > 0 ? starts : []);
    this.accuracies.set(curves([["instance_accuracy", "own key", ink], ["prototype_accuracy", "own prototype", accent, true]]));
    this.learning.set(curves([["learning_rate", "learning rate", accent]]));
    this.rate.set(curves([["rate", "images a second", accent]]));
    this.waiting.set(curves([["waiting", "waiting", accent]]));
    const knn = runs.flatMap((run) => {
      const number = content.runs.indexOf(run);
      const ks = [...new Set(run.history.evaluations.flatMap((evaluation) => Object.keys(evaluation.knn)))];
      const x = run.history.evaluations.map((evaluation) => evaluation.epoch);
      const of = ks.map((k, at) => ({
        name: several ? `${run.name}, ${k}` : `${k} neighbours`,
        colour: several ? RUN_COLOURS[number % RUN_COLOURS.length] : at ? ink : accent,
        dashed: at > 0, x, y: run.history.evaluations.map((evaluation) => evaluation.knn[k] ?? NaN),
      }));
      const chance = { name: "chance", colour: faint, dashed: true, x, y: run.history.evaluations.map((evaluation) => evaluation.chance ?? NaN) };
      const start = run.history.floors[0];
      const floors = several || !start ? [] : ks.slice(0, 1).map((k) => ({ name: `${start.name}, ${k}`, colour: faint, x, y: x.map(() => start.knn[k] ?? NaN) }));
      return number === content.runs.indexOf(runs[0]) ? [...of, ...floors, chance] : of;
    });
    this.knn.set(knn);
    this.rank.set(runs.filter((run) => run.history.expectations.length).map((run) => ({
      name: several ? run.name : "effective rank",
      colour: several ? RUN_COLOURS[content.runs.indexOf(run) % RUN_COLOURS.length] : accent,
      x: run.history.expectations.map((expectation) => expectation.epoch),
      y: run.history.expectations.map((expectation) => expectation.effective_rank ?? NaN),
    })));
    if (!page.sections.has("training") || page.sections.get("training").querySelector(".empty")) {
      page.put("training", "Training", [el("div", { class: "grid" }, this.charts.map((chart) => chart.root)), this.note = el("p", { class: "note" })]);
    }
    const stride = Math.max(...runs.map((run) => run.history.stride));
    this.note.textContent = `Faint: as logged; strong: smoothed.${stride > 1 ? ` A point is the mean of ${count(stride)} log lines.` : ""} Losses need not fall: the better the encoder, the harder the negatives it is given.`;
  },
};
