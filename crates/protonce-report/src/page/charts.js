// Curves and histograms in SVG. Each is drawn for the width it has and drawn again when that, the
// theme or its data change. Pointer and arrow keys read values off.

const charts = new Set();
const observer = new ResizeObserver((entries) => {
  for (const entry of entries) entry.target.chart.soon();
});
theme.listeners.push(() => charts.forEach((chart) => chart.soon()));

/** Three to six round numbers that span the range. */
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((by) => by * power).find((by) => by >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-6; tick += step) {
    found.push(Math.abs(tick) < step * 1e-6 ? 0 : tick);
  }
  return found;
}

/** Means over a window around each value; gaps stay gaps. */
function smooth(values, reach) {
  if (reach < 1) return values;
  return values.map((value, at) => {
    if (!Number.isFinite(value)) return NaN;
    let sum = 0, number = 0;
    for (let i = Math.max(0, at - reach); i <= Math.min(values.length - 1, at + reach); i++) {
      if (Number.isFinite(values[i])) { sum += values[i]; number++; }
    }
    return sum / number;
  });
}

class Chart {
  static made = 0;

  constructor({ title, height = 200, className = "" }) {
    this.height = height;
    this.title = title;
    this.legend = el("span", { class: "legend" });
    this.drawing = svg("svg", { tabindex: 0, role: "img" });
    this.root = el("figure", { class: `card chart ${className}` },
      el("h3", {}, el("span", {}, title), this.legend), this.drawing);
    this.root.style.margin = "0";
    this.drawing.chart = this;
    observer.observe(this.drawing);
    charts.add(this);
    this.drawing.addEventListener("pointermove", (event) => this.read(event.clientX, event));
    this.drawing.addEventListener("pointerleave", () => this.leave());
    this.drawing.addEventListener("blur", () => this.leave());
    this.drawing.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      this.walk(by);
    });
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      const width = this.drawing.clientWidth || this.drawing.parentNode.clientWidth;
      if (width > 0) this.draw(width);
    });
  }

  leave() {
    this.marks?.replaceChildren();
    hideTip();
  }
}

class LineChart extends Chart {
  /** format: of a value. range: [low, high] where it is fixed. */
  constructor(options) {
    super(options);
    this.format = options.format || short;
    this.tick = options.tick || this.format;
    this.range = options.range;
    this.smoothed = options.smoothed !== false;
    this.series = [];
    this.events = [];
  }

  /** series: {name, colour, dashed, x: [], y: []}; events: {x, name}. */
  set(series, events = []) {
    this.series = series.filter((one) => one.y.some(Number.isFinite));
    this.events = events;
    this.root.hidden = this.series.length === 0;
    const names = this.series.map((one) => {
      const mark = el("i", { class: one.dashed ? "dashed" : "" });
      mark.style.borderTopColor = one.colour();
      return el("span", {}, mark, el("span", { class: "ellipsis" }, one.name));
    });
    this.legend.replaceChildren(...(this.series.length > 1 ? names : []));
    this.soon();
  }

  draw(width) {
    const { height } = this;
    const box = { left: 46, right: 12, top: 8, bottom: 24 };
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const one of this.series) {
      one.smooth = this.smoothed ? smooth(one.y, Math.floor(one.y.length / 90)) : one.y;
      for (const x of one.x) { left = Math.min(left, x); right = Math.max(right, x); }
      // The scale follows what is read, not single spikes.
      for (const y of one.smooth) if (Number.isFinite(y)) { low = Math.min(low, y); high = Math.max(high, y); }
    }
    if (!(right >= left)) return;
    left = Math.min(left, this.from ?? 0);
    right = Math.max(right, left + 1e-9);
    const space = (high - low) * 0.08 || Math.abs(high) * 0.05 || 1;
    low = this.range ? this.range[0] : low >= 0 ? Math.max(0, low - space) : low - space;
    high = this.range ? this.range[1] : high + space;
    const x = (value) => box.left + ((value - left) / (right - left)) * (width - box.left - box.right);
    const y = (value) => height - box.bottom - ((value - low) / (high - low)) * (height - box.top - box.bottom);
    Object.assign(this, { x, y, width, left, right });

    const parts = [];
    for (const tick of ticks(low, high, 4)) {
      parts.push(svg("line", { class: "axis", x1: box.left, x2: width - box.right, y1: y(tick), y2: y(tick) }));
      parts.push(svg("text", { x: box.left - 8, y: y(tick) + 4, "text-anchor": "end" }, this.tick(tick)));
    }
    for (const tick of ticks(left, right, Math.max(2, Math.min(8, width / 90)))) {
      parts.push(svg("text", { x: x(tick), y: height - 6, "text-anchor": "middle" }, short(tick)));
    }
    for (const event of this.events) {
      if (event.x < left || event.x > right) continue;
      parts.push(svg("line", { class: "rule", x1: x(event.x), x2: x(event.x), y1: box.top, y2: height - box.bottom }));
      const after = x(event.x) < width - 130;
      parts.push(svg("text", { x: x(event.x) + (after ? 6 : -6), y: box.top + 10, "text-anchor": after ? "start" : "end" }, event.name));
    }
    const clip = (this.clip ??= `clip-${Chart.made++}`);
    parts.push(svg("clipPath", { id: clip },
      svg("rect", { x: box.left, y: box.top - 4, width: Math.max(0, width - box.left - box.right + 2), height: height - box.top - box.bottom + 8 })));
    const curves = svg("g", { "clip-path": `url(#${clip})` });
    for (const one of this.series) {
      const stroke = one.colour();
      if (one.smooth !== one.y) curves.append(svg("path", { class: "curve raw", d: this.path(one.x, one.y), stroke }));
      curves.append(svg("path", { class: one.dashed ? "curve dashed" : "curve", d: this.path(one.x, one.smooth), stroke }));
      if (one.x.length === 1) curves.append(svg("circle", { cx: x(one.x[0]), cy: y(one.y[0]), r: 3, fill: stroke }));
    }
    parts.push(curves);
    this.marks = svg("g");
    parts.push(this.marks);
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.drawing.setAttribute("height", height);
    const last = (one) => this.format(one.y.findLast(Number.isFinite));
    const said = this.series.map((one) => `${one.name} ends at ${last(one)}`).join(", ");
    this.drawing.setAttribute("aria-label", `${this.title} over epochs ${short(left)} to ${short(right)}: ${said}. Arrow keys read values.`);
    this.drawing.replaceChildren(...parts);
  }

  path(xs, ys) {
    let path = "";
    let open = false;
    for (let i = 0; i < xs.length; i++) {
      if (!Number.isFinite(ys[i])) { open = false; continue; }
      path += `${open ? "L" : "M"}${this.x(xs[i]).toFixed(1)} ${this.y(ys[i]).toFixed(1)}`;
      open = true;
    }
    return path;
  }

  read(clientX, event) {
    if (!this.x || !this.series.length) return;
    const bounds = this.drawing.getBoundingClientRect();
    const part = (clientX - bounds.left) / bounds.width * this.width;
    this.at = this.left + ((part - this.x(this.left)) / (this.x(this.right) - this.x(this.left))) * (this.right - this.left);
    this.tell(event.clientX, event.clientY);
  }

  /** Moves the reading by so many points of the longest curve. */
  walk(by) {
    if (!this.x || !this.series.length) return;
    const longest = this.series.reduce((a, b) => (b.x.length > a.x.length ? b : a));
    const now = this.at === undefined ? longest.x.length - 1 : nearest(longest.x, this.at);
    const next = Math.max(0, Math.min(longest.x.length - 1, now + by));
    this.at = longest.x[next];
    const bounds = this.drawing.getBoundingClientRect();
    this.tell(bounds.left + this.x(this.at) * bounds.width / this.width, bounds.top + 30);
  }

  tell(clientX, clientY) {
    const marks = [];
    const rows = [];
    let told;
    for (const one of this.series) {
      const at = nearest(one.x, this.at);
      const value = one.y[at];
      if (!Number.isFinite(value)) continue;
      told ??= one.x[at];
      marks.push(svg("circle", { cx: this.x(one.x[at]), cy: this.y(one.smooth[at]), r: 3.5, fill: one.colour() }));
      const dot = el("i");
      dot.style.background = one.colour();
      rows.push(el("div", { class: "row" }, el("span", {}, dot, one.name), el("b", {}, this.format(value))));
    }
    if (told === undefined) return this.leave();
    marks.unshift(svg("line", { class: "rule", x1: this.x(told), x2: this.x(told), y1: 8, y2: this.height - 24 }));
    this.marks.replaceChildren(...marks);
    showTip([el("div", { class: "note" }, `epoch ${short(told)}`), rows], clientX, clientY);
  }
}

/** The place of the value in a rising list that is nearest to x. */
function nearest(xs, x) {
  let [low, high] = [0, xs.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && x - xs[low - 1] < xs[low] - x ? low - 1 : low;
}

class Histogram extends Chart {
  constructor(options) {
    super({ height: 150, ...options });
    this.unit = options.unit;
    this.format = options.format || short;
    this.data = options.data;
    this.whole = options.whole;
  }

  draw(width) {
    const { low, high, counts } = this.data;
    const most = Math.max(1, ...counts);
    const box = { left: 4, right: 4, top: 16, bottom: 22 };
    const bar = (width - box.left - box.right) / Math.max(1, counts.length);
    const each = (high - low) / Math.max(1, counts.length);
    const down = this.height - box.bottom;
    const tall = (value) => (value / most) * (down - box.top);
    this.bars = counts.map((value, at) => svg("rect", {
      class: "barmark", x: box.left + at * bar + 0.5, width: Math.max(1, bar - 1),
      y: down - Math.max(tall(value), value ? 1.5 : 0), height: Math.max(tall(value), value ? 1.5 : 0), rx: 1.5,
    }));
    const x = (value) => box.left + ((value - low) / (high - low)) * (width - box.left - box.right);
    const labels = ticks(low, high, Math.max(2, width / 80)).filter((tick) => x(tick) < width - 14).map((tick) =>
      svg("text", { x: Math.max(x(tick), 8), y: this.height - 5, "text-anchor": "middle" }, this.format(tick)));
    this.marks = svg("g");
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.drawing.setAttribute("height", this.height);
    this.drawing.setAttribute("aria-label", `${this.title}: ${this.format(low)} to ${this.format(high)}, the fullest bar has ${plural(most, "prototype", "prototypes")}. Arrow keys read bars.`);
    this.drawing.replaceChildren(
      svg("line", { class: "baseline", x1: box.left, x2: width - box.right, y1: down + 0.5, y2: down + 0.5 }),
      ...this.bars, ...labels, this.marks);
    Object.assign(this, { bar, each, box, width });
  }

  read(clientX, event) {
    if (!this.bars) return;
    const bounds = this.drawing.getBoundingClientRect();
    const at = Math.floor(((clientX - bounds.left) * this.width / bounds.width - this.box.left) / this.bar);
    this.tell(Math.max(0, Math.min(this.bars.length - 1, at)), event.clientX, event.clientY);
  }

  walk(by) {
    if (!this.bars?.length) return;
    const at = Math.max(0, Math.min(this.bars.length - 1, (this.at ?? 0) + by));
    const bounds = this.bars[at].getBoundingClientRect();
    this.tell(at, bounds.left, bounds.top - 40);
  }

  tell(at, clientX, clientY) {
    this.bars.forEach((bar, number) => bar.classList.toggle("on", number === at));
    this.at = at;
    const from = this.data.low + at * this.each;
    const to = this.whole ? from + this.each - 1 : from + this.each;
    const range = this.whole && to <= from ? this.format(from) : `${this.format(from)} to ${this.format(to)}`;
    showTip([el("div", { class: "note" }, `${this.unit} ${range}`),
      el("b", {}, plural(this.data.counts[at], "prototype", "prototypes"))], clientX, clientY);
  }

  leave() {
    super.leave();
    this.bars?.forEach((bar) => bar.classList.remove("on"));
  }
}
