// The page: one section after another, drawn from what is known; live, drawn anew as more comes.

const RUN_COLOURS = [
  () => colour("accent"),
  () => css(hsl(0.06, 0.7, theme.dark ? 0.62 : 0.46)),
  () => css(hsl(0.72, 0.5, theme.dark ? 0.7 : 0.48)),
  () => css(hsl(0.56, 0.65, theme.dark ? 0.65 : 0.42)),
  () => css(hsl(0.93, 0.55, theme.dark ? 0.7 : 0.48)),
  () => css(hsl(0.13, 0.75, theme.dark ? 0.55 : 0.4)),
];
const ink = () => colour("ink");
const faint = () => colour("faint");
const accent = () => colour("accent");

for (const run of content.runs) {
  if (run.discovery) unpack(run.discovery);
}

const page = {
  selected: 0,
  /** The sections that are linked to above. */
  linked: "",
  sections: new Map(),
  get run() { return content.runs[this.selected]; },

  /** Puts a section into its place, or takes it out when there is nothing in it. */
  put(id, title, children) {
    const order = ["summary", "training", "prototypes", "map", "change", "labels", "images", "evaluations", "settings"];
    this.sections.get(id)?.remove();
    this.sections.delete(id);
    if (children) {
      const heading = id === "summary" ? [] : [el("h2", { id: `${id}-title` }, title)];
      const section = el("section", { id, "aria-labelledby": `${id}-title`, class: id === "summary" ? "hero" : "" }, heading, children);
      const after = order.slice(order.indexOf(id) + 1).map((next) => this.sections.get(next)).find(Boolean);
      main.insertBefore(section, after || main.querySelector("footer"));
      this.sections.set(id, section);
    }
    const linked = order.filter((next) => next !== "summary" && this.sections.has(next));
    if (linked.join() !== this.linked) {
      this.linked = linked.join();
      document.getElementById("nav").replaceChildren(...linked.map((next) =>
        el("li", {}, el("a", { href: `#${next}` }, next[0].toUpperCase() + next.slice(1)))));
    }
    watchSections();
  },
};

const main = document.getElementById("main");

// ── Summary ───────────────────────────────────────────────────────────────────────────────────

/** What a run comes to, in numbers. */
function figuresOf(run) {
  const { history, discovery } = run;
  const done = history?.points.length ? history.points[history.points.length - 1][0] : 0;
  const figures = [];
  const figure = (term, value, note, best) =>
    figures.push(el("div", { class: best ? "best" : "" }, el("dt", {}, term), el("dd", {}, value, note ? el("small", {}, note) : null)));
  const images = discovery?.images ?? run.images;
  if (images) figure("Images", count(images), discovery && discovery.readable < images ? `${count(images - discovery.readable)} unreadable` : discovery?.classes.length ? `${plural(discovery.classes.length, "class", "classes")}, unseen in training` : "no labels");
  if (discovery) figure("Prototypes", discovery.granularities.map((one) => count(one.count)).join(" · "), `found after epoch ${discovery.epoch ?? "?"}`);
  if (history?.best) {
    const [top1, k, epoch] = history.best;
    const chance = history.evaluations.at(-1)?.chance;
    figure("kNN accuracy", percent(top1), `best, ${k} neighbours, epoch ${epoch}${Number.isFinite(chance) ? `; chance ${percent(chance, 0)}` : ""}`, true);
  }
  const purity = discovery?.granularities.at(-1)?.purity;
  if (Number.isFinite(purity)) figure("Purity", percent(purity, 0), `of ${count(discovery.granularities.at(-1).count)} prototypes: images with the commonest label of theirs`);
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
  const { discovery } = run;
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
  const size = `${run.image_size}\u00a0px`;
  page.put("summary", null, [
    content.runs.length > 1 ? el("div", { class: "controls" }, segments("Run", content.runs.map((one) => one.name), page.selected, (at) => { page.selected = at; drawRun(); })) : null,
    el("p", { class: "kicker" }, content.live ? "A run as it goes" : "What a run learned without labels"),
    el("h1", { id: "summary-title" }, run.name),
    el("p", { class: "lead" }, `${run.method} with ${run.arch} at ${size}, ${plural(run.epochs, "epoch", "epochs")} on ${run.data}.`),
    run.missing ? el("p", { class: "warning" }, `No pictures and no labels: ${run.missing}.`) : null,
    run.problem ? el("p", { class: "warning" }, `The newest prototypes cannot be shown: ${run.problem}.`) : null,
    el("dl", { class: "figures" }, figuresOf(run)),
    discovery ? el("div", { class: "strip", "aria-label": "The largest prototypes" }, discovery.granularities[0].prototypes.slice(0, 8).map((prototype) =>
      prototypeCard(run, 0, prototype, { tiles: 4, open: (id) => openPrototype(0, id) }))) : null,
    el("div", { class: "command" }, code, copy),
  ]);
}

// ── Training ──────────────────────────────────────────────────────────────────────────────────

const training = {
  build() {
    this.losses = new LineChart({ title: "Loss", height: 250, className: "wide" });
    this.accuracies = new LineChart({ title: "Own key or prototype scored highest", format: (v) => percent(v, 0) });
    this.knn = new LineChart({ title: "kNN accuracy", format: (v) => percent(v, 1), tick: (v) => percent(v, 0), smoothed: false });
    this.rate = new LineChart({ title: "Images a second" });
    this.learning = new LineChart({ title: "Learning rate", smoothed: false });
    this.waiting = new LineChart({ title: "Time spent waiting for data", format: (v) => `${short(v)}\u202f%` });
    this.charts = [this.losses, this.accuracies, this.knn, this.learning, this.rate, this.waiting];
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
      return number === content.runs.indexOf(runs[0]) ? [...of, chance] : of;
    });
    this.knn.set(knn);
    if (!page.sections.has("training") || page.sections.get("training").querySelector(".empty")) {
      page.put("training", "Training", [el("div", { class: "grid" }, this.charts.map((chart) => chart.root)), this.note = el("p", { class: "note" })]);
    }
    const stride = Math.max(...runs.map((run) => run.history.stride));
    this.note.textContent = `Faint: as logged; strong: smoothed.${stride > 1 ? ` A point is the mean of ${count(stride)} log lines.` : ""} Losses need not fall: the better the encoder, the harder the negatives it is given.`;
  },
};

// ── Prototypes, map, change ───────────────────────────────────────────────────────────────────

let gallery = null;

function openPrototype(m, id) {
  gallery?.open([[m, id]]);
}

function prototypes() {
  const { discovery } = page.run;
  if (!discovery) {
    const { run } = page;
    const why = run.method !== "PCL" ? null
      : `No prototypes yet: the first E-step begins epoch ${run.warmup_epochs + 1}.`;
    return page.put("prototypes", "Prototypes", why && [el("p", { class: "empty" }, why)]);
  }
  gallery = new Gallery(page.run);
  const charts = discovery.granularities.map((granularity) => [
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
  const { discovery } = page.run;
  if (!discovery?.mapped) return page.put("map", "Map", null);
  const drawn = new ImageMap(page.run);
  const all = discovery.sampled === discovery.readable;
  page.put("map", "Map of the images", [
    el("p", {}, `${all ? "All" : "A sample of"} ${plural(discovery.sampled, "image", "images")}${all ? "" : ` of ${count(discovery.readable)}`}, laid out by t-SNE so that images with similar embeddings are neighbours. Distances between far groups mean little.`),
    drawn.root,
  ]);
}

function change() {
  const { discovery } = page.run;
  if (!discovery?.changes.length) return page.put("change", "Change", null);
  const { changes, granularities } = discovery;
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
    changes.length < discovery.steps - 1 ? el("p", { class: "note" }, `${count(changes.length)} pairs of successive E-steps, spread over ${count(discovery.steps)}.`) : null,
  ]);
}

// ── Labels against prototypes ─────────────────────────────────────────────────────────────────

function labels() {
  const { discovery } = page.run;
  if (!discovery?.class_table.length) return page.put("labels", "Labels", null);
  const { classes, granularities, class_table: table } = discovery;
  const heat = el("div", { class: "card heat" });
  const draw = (m) => heat.replaceChildren(...heatMap(m));
  draw(0);
  const rows = table.slice(0, 30).map((row) => classRow(row));
  const body = el("tbody", {}, rows);
  const more = table.length > 30 ? el("button", { type: "button", class: "more", onclick: () => {
    body.replaceChildren(...table.map((row) => classRow(row)));
    more.remove();
  } }, `Show all ${count(table.length)}`) : null;

  function classRow(row) {
    return el("tr", {}, el("th", { scope: "row" }, classes[row.class]), el("td", {}, count(row.images)),
      row.found.map(([share, number]) => el("td", {}, `${percent(share, 0)} in ${count(number)}`)));
  }

  function heatMap(m) {
    const kinds = table.slice(0, 40).map((row) => row.class);
    const rank = new Map(kinds.map((kind, at) => [kind, at]));
    const columns = granularities[m].prototypes.slice(0, 80)
      .filter((prototype) => prototype.labels.length)
      .sort((a, b) => (rank.get(a.labels[0][0]) ?? 99) - (rank.get(b.labels[0][0]) ?? 99) || purityOf(b) - purityOf(a));
    const [side, wide] = [15, 112];
    const drawing = svg("svg", {
      width: wide + columns.length * side + 4, height: kinds.length * side + 4, role: "img",
      "aria-label": `Labels against the ${columns.length} largest of ${count(granularities[m].count)} prototypes; the table below says the same for each label.`,
    });
    kinds.forEach((kind, row) => drawing.append(svg("text", { x: wide - 8, y: row * side + 11, "text-anchor": "end" }, classes[kind].length > 14 ? `${classes[kind].slice(0, 13)}…` : classes[kind])));
    columns.forEach((prototype, column) => {
      drawing.append(svg("rect", { x: wide + column * side, y: 0, width: side - 1.5, height: kinds.length * side - 1.5, fill: "var(--wash)", rx: 2, "pointer-events": "none" }));
      for (const [label, images] of prototype.labels) {
        const row = rank.get(label);
        if (row === undefined) continue;
        drawing.append(svg("rect", {
          x: wide + column * side, y: row * side, width: side - 1.5, height: side - 1.5, rx: 2,
          fill: "var(--accent)", "fill-opacity": (0.08 + 0.92 * images / prototype.size).toFixed(3),
          onclick: () => openPrototype(m, prototype.id),
          onpointermove: (event) => showTip([
            prototype.nearest.length && pictured(page.run, prototype.nearest[0]) ? tile(page.run, prototype.nearest[0], { quiet: true, tip: false }) : [],
            el("b", {}, classes[label]), el("div", {}, `${count(images)} of ${count(prototype.size)} images of ${prototypeName(page.run, m, prototype.id)}`)], event.clientX, event.clientY),
          onpointerleave: hideTip,
        }));
      }
    });
    return [el("div", { class: "scroll" }, drawing), el("p", { class: "note" },
      `Columns: the ${count(columns.length)} largest prototypes of ${count(granularities[m].count)}; rows: the ${count(kinds.length)} commonest labels; full colour where all images of a prototype have the label. At most ${12} labels a prototype are drawn.`)];
  }

  page.put("labels", "Labels and prototypes", [
    el("p", {}, "Labels were not used in training. How well do the prototypes find them?"),
    el("div", { class: "controls" }, el("span", { class: "field" }, "Prototypes ", segments("Granularity, from coarse to fine", granularities.map((one) => count(one.count)), 0, draw))),
    heat,
    el("div", { class: "card scroll" }, el("table", {},
      el("caption", {}, "Share of a label's images that lie in prototypes where it is the commonest, and how many such prototypes there are."),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Label"), el("th", { scope: "col" }, "Images"),
        granularities.map((one) => el("th", { scope: "col" }, `of ${count(one.count)}`)))), body), more),
  ]);
  heat.nextElementSibling.style.marginTop = "16px";
}

// ── Images that stand out ─────────────────────────────────────────────────────────────────────

function images() {
  const { run } = page;
  const { discovery } = run;
  if (!discovery || !(discovery.typical.length || discovery.atypical.length)) return page.put("images", "Images", null);
  const one = ([place, score]) => el("figure", {}, tile(run, place), el("figcaption", {}, apart(score)));
  const group = (title, text, body, className = "") => body.length
    ? el("div", { class: `card ${className}` }, el("h3", {}, title), el("p", { class: "note" }, text), el("div", { class: `standouts ${className ? "pairs" : ""}` }, body)) : null;
  page.put("images", "Images that stand out", [
    el("p", {}, `What to look at first when cleaning the data${discovery.sampled < discovery.readable ? `, found in a sample of ${plural(discovery.sampled, "image", "images")}` : ""}.`),
    el("div", { class: "grid" },
      group("Most typical", "Nearest to its prototype, one of each coarse prototype. Numbers here are cosine distances.", discovery.typical.map(one)),
      group("Most atypical", "Farthest from its fifth nearest neighbour: odd ones out, or of a kind of their own.", discovery.atypical.map(one)),
      group("Near-duplicates", "Pairs that the encoder can hardly tell apart.", discovery.duplicates.map((pair) =>
        el("figure", {}, el("div", { class: "two" }, pair.images.map((place) => tile(run, place))),
          el("figcaption", {}, apart(pair.similarity), pair.identical ? [" ", el("span", { class: "badge" }, "same file")] : null))), "wide"),
      group("Labels worth a second look", "Images whose label is not that of nearly all others of their prototype.", discovery.doubtful.map(([place, label, share]) =>
        el("figure", {}, tile(run, place), el("figcaption", {}, `${labelOf(run, place) ?? "no label"} among ${percent(100 * share, 0)} ${discovery.classes[label]}`))), "wide"),
    ),
  ]);
}

// ── Evaluations and settings ──────────────────────────────────────────────────────────────────

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
  const { discovery } = run;
  const notes = [];
  if (discovery) {
    const { images_shown: shown } = discovery;
    if (!content.live && run.thumbnails && run.thumbnails.tiles < shown.count) notes.push(`Pictures of ${count(run.thumbnails.tiles)} images, those of large prototypes and those that stand out first; other images are shown by name.`);
    if (discovery.sampled < discovery.readable) notes.push(`The map, outliers and near-duplicates come from ${count(discovery.sampled)} of ${count(discovery.readable)} images, evenly spread.`);
    const listed = discovery.granularities.reduce((sum, one) => sum + one.prototypes.length, 0);
    const all = discovery.granularities.reduce((sum, one) => sum + one.count - one.empty, 0);
    if (listed < all) notes.push(`${count(listed)} of ${count(all)} prototypes are described one by one.`);
  }
  main.querySelector("footer").replaceChildren(
    el("p", {}, `Made by protonce ${content.version}${content.live ? "" : `, ${new Date(content.made * 1000).toLocaleString()}`}. Sizes, purities and histograms count every image.`),
    notes.length ? el("ul", {}, notes.map((note) => el("li", {}, note))) : "");
}

// ── Putting it together ───────────────────────────────────────────────────────────────────────

let sectionWatch;

function watchSections() {
  sectionWatch?.disconnect();
  sectionWatch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const link = document.querySelector(`#nav a[href="#${entry.target.id}"]`);
      if (entry.isIntersecting) {
        document.querySelectorAll("#nav a[aria-current]").forEach((other) => other.removeAttribute("aria-current"));
        link?.setAttribute("aria-current", "true");
      }
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const section of page.sections.values()) sectionWatch.observe(section);
}

function drawDiscovery() {
  for (const chart of charts) if (!chart.root.isConnected && !training.charts?.includes(chart)) charts.delete(chart);
  prototypes();
  map();
  change();
  labels();
  images();
}

function drawHistory() {
  training.draw();
  evaluations();
}

function drawRun() {
  document.title = `${content.runs.map((run) => run.name).join(" · ")} · protonce`;
  summary();
  drawHistory();
  drawDiscovery();
  settings();
  footer();
}

main.append(el("footer"));
theme.apply();
document.getElementById("theme").addEventListener("click", () => { theme.dark = !theme.dark; theme.apply(); });
drawRun();

// ── Live ──────────────────────────────────────────────────────────────────────────────────────

const live = {
  status: document.getElementById("status"),

  say(text, lost) {
    if (this.status.textContent !== text) this.status.textContent = text;
    this.status.classList.toggle("lost", lost);
  },

  connect() {
    const source = new EventSource("events");
    source.onopen = () => this.say("live", false);
    // The browser connects again by itself, and then gets everything anew.
    source.onerror = () => this.say("connection lost", true);
    source.onmessage = (event) => { for (const news of JSON.parse(event.data)) this.take(news); };
  },

  take(news) {
    const run = content.runs[news.run];
    if (news.history) {
      const points = run.history ? run.history.points.slice(0, news.history.from) : [];
      run.history = { ...news.history, points: points.concat(news.history.points) };
    }
    if (run.problem !== news.problem) {
      run.problem = news.problem;
      if (run === page.run) summary();
    }
    this.redraw();
    if (news.discovery && news.discovery !== run.version) {
      run.version = news.discovery;
      this.discover(run);
    }
  },

  async discover(run) {
    const answer = await fetch(`runs/${content.runs.indexOf(run)}/discovery`);
    if (!answer.ok) return;
    run.discovery = unpack(await answer.json());
    if (run === page.run) { drawDiscovery(); summary(); footer(); }
  },

  /**
   * Draws what the log changes, at most once a frame, and not while it is not looked at. What
   * somebody may be reading or have opened stays.
   */
  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      page.sections.get("summary").querySelector(".figures").replaceChildren(...figuresOf(page.run));
      training.draw();
      const state = JSON.stringify(content.runs.map((run) => [run.history?.evaluations, run.history?.skipped]));
      if (state !== this.state) {
        this.state = state;
        evaluations();
        settings();
      }
    });
  },
};

if (content.live) live.connect();
