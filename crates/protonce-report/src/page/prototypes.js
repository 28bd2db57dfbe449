// Prototypes: a gallery for each granularity, and a walk from one prototype to its children.

/** What a prototype is called: by its commonest label, where there are labels. */
function prototypeName(run, m, id) {
  const { granularities, position, classes } = run.analysis;
  const at = position[m].get(id);
  const labels = at === undefined ? [] : granularities[m].prototypes[at].labels;
  return labels.length ? `${classes[labels[0][0]]} · #${id}` : `prototype #${id}`;
}

const purityOf = (prototype) => (prototype.labels.length ? prototype.labels[0][1] / prototype.size : 0);

function prototypeCard(run, m, prototype, { tiles = 8, note = null, open }) {
  const label = prototype.labels.length ? run.analysis.classes[prototype.labels[0][0]] : null;
  const share = purityOf(prototype);
  const title = label ?? `#${prototype.id}`;
  const said = `${label ? `${label}, ${Math.round(100 * share)} percent, ` : ""}prototype ${prototype.id}, ${plural(prototype.size, "image", "images")}${note ? `, ${note}` : ""}. Open it.`;
  const meter = label ? el("div", { class: "meter" }, el("i")) : null;
  if (meter) meter.firstChild.style.width = `${100 * share}%`;
  return el("button", { type: "button", class: "prototype", "aria-label": said, onclick: () => open(prototype.id) },
    el("span", { class: "tiles" }, prototype.nearest.slice(0, tiles).map((entry) => tile(run, entry, { quiet: true }))),
    el("span", { class: "name" }, el("span", {}, title), label ? el("span", {}, percent(100 * share, 0)) : null),
    el("span", { class: "facts" }, el("span", {}, note ?? plural(prototype.size, "image", "images")),
      note ? null : el("span", { title: "concentration: small where images lie close" }, `φ\u00a0${short(prototype.concentration)}`)),
    meter);
}

class Gallery {
  constructor(run) {
    this.run = run;
    this.m = 0;
    this.sort = "size";
    this.label = "";
    this.shown = 24;
    this.path = [];
    const { granularities, classes } = run.analysis;
    this.levels = segments("Granularity, from coarse to fine",
      granularities.map((granularity) => count(granularity.count)), 0,
      (m) => { this.m = m; this.shown = 24; this.path = []; this.draw(); });
    const sorts = [["size", "largest first"], ["tight", "tightest first"], ["loose", "loosest first"]];
    if (granularities[0].purity !== null) sorts.push(["pure", "purest first"], ["mixed", "most mixed first"]);
    const sort = el("select", { onchange: () => { this.sort = sort.value; this.shown = 24; this.draw(); } },
      sorts.map(([value, name]) => el("option", { value }, name)));
    const label = classes.length && granularities[0].purity !== null
      ? el("select", { onchange: () => { this.label = label.value; this.shown = 24; this.draw(); } },
        el("option", { value: "" }, "any label"), classes.map((name, at) => el("option", { value: at }, name)))
      : null;
    this.walk = el("div");
    this.cards = el("div", { class: "gallery" });
    this.note = el("p", { class: "note" });
    this.more = el("button", { type: "button", class: "more", onclick: () => { this.shown += 48; this.draw(); } });
    this.root = el("div", {},
      el("div", { class: "controls" },
        el("span", { class: "field" }, "Prototypes ", this.levels),
        el("label", { class: "field" }, "Order ", sort),
        label && el("label", { class: "field" }, "Label ", label)),
      this.walk, this.note, this.cards, this.more);
    this.draw();
  }

  draw() {
    const granularity = this.run.analysis.granularities[this.m];
    const orders = {
      size: () => 0,
      tight: (a, b) => a.concentration - b.concentration || b.size - a.size,
      loose: (a, b) => b.concentration - a.concentration || b.size - a.size,
      pure: (a, b) => purityOf(b) - purityOf(a) || b.size - a.size,
      mixed: (a, b) => purityOf(a) - purityOf(b) || b.size - a.size,
    };
    const wanted = granularity.prototypes
      .filter((prototype) => this.label === "" || prototype.labels[0]?.[0] === Number(this.label))
      .sort(orders[this.sort]);
    const cards = wanted.slice(0, this.shown).map((prototype) =>
      prototypeCard(this.run, this.m, prototype, { open: (id) => this.open([[this.m, id]]) }));
    this.cards.replaceChildren(...cards);
    const missing = granularity.count - granularity.empty - granularity.prototypes.length;
    this.note.textContent = [
      wanted.length ? null : "No prototype has this label as its commonest.",
      granularity.empty ? `${plural(granularity.empty, "prototype has", "prototypes have")} no image.` : null,
      missing > 0 ? `The ${count(granularity.prototypes.length)} described here are the largest and the children of the largest; ${count(missing)} smaller ones are only counted.` : null,
    ].filter(Boolean).join(" ");
    this.more.hidden = wanted.length <= this.shown;
    this.more.textContent = `Show more of ${count(wanted.length)}`;
  }

  /** Opens the last prototype of a path of [granularity, id], from coarse to fine. */
  open(path, focus = true) {
    this.path = path;
    this.drawWalk();
    if (!focus || !path.length) return;
    const panel = this.walk.firstChild;
    panel.focus({ preventScroll: true });
    panel.scrollIntoView({ block: "start" });
  }

  drawWalk() {
    if (!this.path.length) return this.walk.replaceChildren();
    const { run } = this;
    const { granularities, classes, position } = run.analysis;
    const [m, id] = this.path[this.path.length - 1];
    const granularity = granularities[m];
    const prototype = granularity.prototypes[position[m].get(id)];
    if (!prototype) return this.walk.replaceChildren();

    const crumbs = el("ol", { class: "crumbs", "aria-label": "Way from coarse to fine" },
      el("li", {}, el("button", { type: "button", onclick: () => this.close() }, "All prototypes")),
      this.path.map(([level, number], at) => {
        const name = `${prototypeName(run, level, number)} of ${count(granularities[level].count)}`;
        const last = at === this.path.length - 1;
        return el("li", { "aria-current": last ? "page" : undefined }, "› ",
          last ? name : el("button", { type: "button", onclick: () => this.open(this.path.slice(0, at + 1)) }, name));
      }));

    const most = Math.max(1, ...prototype.labels.map((label) => label[1]));
    const bars = prototype.labels.length
      ? el("div", { class: "bars", role: "table", "aria-label": "Labels of its images" }, prototype.labels.map(([label, images]) => {
        const bar = el("i", { "aria-hidden": "true" });
        bar.style.width = `${(100 * images) / most}%`;
        return [el("span", { class: "ellipsis" }, classes[label]), bar, el("span", {}, count(images))];
      }))
      : null;
    const rest = prototype.size - prototype.labels.reduce((sum, label) => sum + label[1], 0);

    const children = prototype.children.map(([at, images]) => {
      const child = granularities[m + 1].prototypes[at];
      return prototypeCard(run, m + 1, child, {
        tiles: 4,
        note: `${count(images)} of ${plural(child.size, "image", "images")} shared`,
        open: (to) => this.open([...this.path, [m + 1, to]]),
      });
    });

    const panel = el("div", { class: "walk", tabindex: -1, role: "region", "aria-label": prototypeName(run, m, id) },
      crumbs,
      el("div", { class: "cols" },
        el("div", { class: "pictures" }, prototype.nearest.map((entry) => tile(run, entry))),
        el("div", {},
          el("h3", {}, prototypeName(run, m, id)),
          el("p", { class: "note" }, `${plural(prototype.size, "image", "images")}, the ${count(prototype.nearest.length)} nearest shown; concentration φ ${short(prototype.concentration)}.`),
          bars,
          bars && rest > 0 ? el("p", { class: "note" }, `${count(rest)} of other labels or none.`) : null)),
      m + 1 < granularities.length
        ? el("div", { class: "children" },
          el("h3", {}, `Among ${count(granularities[m + 1].count)} prototypes, its images are in ${count(prototype.relatives)}`),
          children.length < prototype.relatives ? el("p", { class: "note" }, `The ${count(children.length)} that take most of them:`) : null,
          el("div", { class: "gallery" }, children))
        : el("p", { class: "note" }, "This is the finest granularity."));
    panel.addEventListener("keydown", (event) => { if (event.key === "Escape") this.close(); });
    this.walk.replaceChildren(panel);
  }

  close() {
    this.open([]);
    this.cards.querySelector("button")?.focus({ preventScroll: true });
  }
}
