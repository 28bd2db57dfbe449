// Labels against prototypes: a heat map and a table.

function labels() {
  const { analysis } = page.run;
  if (!analysis?.class_table.length) return page.put("labels", "Labels", null);
  const { classes, granularities, class_table: table } = analysis;
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
