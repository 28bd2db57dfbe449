// The map: all sampled embeddings as dots or pictures on one canvas. Dots are written into an
// array of pixels, which keeps 50 000 of them smooth without a graphics card.

/** Ten hues that stay apart, then ever finer steps around the circle. */
function hue(number, total) {
  const first = [172, 18, 262, 45, 330, 95, 222, 0, 140, 290];
  return total <= first.length ? first[number % first.length] : (number * 137.508) % 360;
}

function kindColour(number, total) {
  const light = theme.dark ? 68 : 45;
  const lift = total > 10 ? ((number % 3) - 1) * 8 : 0;
  return hsl(hue(number, total) / 360, theme.dark ? 0.62 : 0.66, (light + lift) / 100);
}

/** Red, green and blue from 0 to 255. */
function hsl(h, s, l) {
  const a = s * Math.min(l, 1 - l);
  const channel = (n) => {
    const k = (n + h * 12) % 12;
    return Math.round(255 * (l - a * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

class ImageMap {
  constructor(run) {
    this.run = run;
    const { images_shown: shown, granularities, classes } = run.analysis;
    this.shown = shown;
    const entries = [];
    for (let i = 0; i < shown.count; i++) if (shown.x[i] !== 0xffff) entries.push(i);
    // The first of the table have pictures: drawn last, they lie on top.
    this.entries = Uint32Array.from(entries).reverse();
    this.kinds = [];
    if (shown.label && classes.length > 1) this.kinds.push({ name: "label", of: shown.label, names: classes });
    granularities.forEach((granularity, m) => {
      this.kinds.push({ name: `prototype, ${count(granularity.count)}`, of: shown.prototype[m], granularity: m });
    });
    this.kind = this.kinds[0];
    this.chosen = null;
    this.view = { x: 0.5, y: 0.5, zoom: 1 };
    this.pictures = false;
    this.sheets = new Map();
    this.build();
    this.index();
    theme.listeners.push(() => { if (this.canvas.isConnected) { this.recolour(); this.soon(); } });
  }

  build() {
    this.canvas = el("canvas", {
      tabindex: 0, role: "application",
      "aria-label": `Map of ${plural(this.entries.length, "image", "images")}. Arrow keys move, plus and minus zoom, 0 shows all, P changes between dots and pictures. The galleries of prototypes above show the same images as lists.`,
    });
    const button = (text, label, action) => el("button", { type: "button", "aria-label": label, title: label, onclick: action }, text);
    this.box = el("div", { class: "mapbox" }, this.canvas, el("div", { class: "zoom" },
      button("+", "Zoom in", () => this.zoom(1.6)),
      button("−", "Zoom out", () => this.zoom(1 / 1.6)),
      button("⤢", "Show all", () => { this.view = { x: 0.5, y: 0.5, zoom: 1 }; this.soon(); })));
    this.legend = el("ul", { class: "maplegend", "aria-label": "Colours; choose one to bring it out" });
    const kinds = el("select", { onchange: () => { this.kind = this.kinds[kinds.value]; this.chosen = null; this.recolour(); this.soon(); } },
      this.kinds.map((kind, at) => el("option", { value: at }, kind.name)));
    this.mode = segments("Draw images as", ["Dots", "Pictures"], 0, (at) => { this.pictures = at === 1; this.soon(); });
    this.controls = el("div", { class: "controls" }, el("label", { class: "field" }, "Colour by ", kinds), this.mode,
      el("span", { class: "note" }, "Drag to move; click, then scroll to zoom."));
    this.root = el("div", {}, this.controls, this.box, this.legend);

    const canvas = this.canvas;
    const pointers = new Map();
    let moved = 0;
    canvas.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, event);
      moved = 0;
      // One finger scrolls the page until the map is zoomed.
      if (event.pointerType === "mouse" || this.view.zoom > 1) canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return this.hover(event);
      const others = [...pointers.values()].filter((other) => other.pointerId !== event.pointerId);
      moved += Math.abs(event.clientX - before.clientX) + Math.abs(event.clientY - before.clientY);
      if (others.length) {
        const far = (a) => Math.hypot(a.clientX - others[0].clientX, a.clientY - others[0].clientY);
        this.zoom(far(event) / Math.max(1, far(before)), event);
      } else if (moved > 3) {
        canvas.classList.add("moving");
        hideTip();
        this.move(event.clientX - before.clientX, event.clientY - before.clientY);
      }
      pointers.set(event.pointerId, event);
    });
    const end = (event) => {
      if (pointers.delete(event.pointerId) && moved <= 3 && event.type === "pointerup") this.click(event);
      canvas.classList.remove("moving");
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", hideTip);
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * 0.0016), event);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = 60;
      const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
      if (moves[event.key]) this.move(...moves[event.key]);
      else if (event.key === "+" || event.key === "=") this.zoom(1.4);
      else if (event.key === "-") this.zoom(1 / 1.4);
      else if (event.key === "0") { this.view = { x: 0.5, y: 0.5, zoom: 1 }; this.soon(); }
      else if (event.key === "p" || event.key === "P") this.mode.children[this.pictures ? 0 : 1].click();
      else return;
      event.preventDefault();
    });
    new ResizeObserver(() => this.soon()).observe(canvas);
  }

  /** Sorts the points into cells, so that the one under the pointer is found at once. */
  index() {
    const side = (this.side = Math.max(1, Math.min(256, Math.ceil(Math.sqrt(this.entries.length / 3)))));
    const { x, y } = this.shown;
    const cell = (entry) => Math.floor(y[entry] / 65535 * side) * side + Math.floor(x[entry] / 65535 * side);
    this.cells = new Uint32Array(side * side + 1);
    for (const entry of this.entries) this.cells[cell(entry) + 1]++;
    for (let i = 0; i < side * side; i++) this.cells[i + 1] += this.cells[i];
    const next = this.cells.slice();
    this.byCell = new Uint32Array(this.entries.length);
    for (const entry of this.entries) this.byCell[next[cell(entry)]++] = entry;
    this.recolour();
  }

  recolour() {
    const { of, names } = this.kind;
    const sizes = new Map();
    for (const entry of this.entries) if (of[entry] !== NONE) sizes.set(of[entry], (sizes.get(of[entry]) || 0) + 1);
    const order = [...sizes.keys()].sort((a, b) => (names ? a - b : sizes.get(b) - sizes.get(a)));
    const grey = theme.dark ? [90, 90, 96] : [190, 190, 194];
    const colours = new Map(order.map((kind, at) => [kind, kindColour(at, order.length)]));
    const kinds = this.chosen === null ? colours : new Map([...colours].map(([kind, own]) => [kind, kind === this.chosen ? own : grey]));
    this.rgb = new Uint8Array(this.shown.count * 3);
    for (const entry of this.entries) this.rgb.set(kinds.get(of[entry]) || grey, entry * 3);
    this.legend.replaceChildren(...order.slice(0, names ? 60 : 24).map((kind) => {
      const dot = el("i");
      dot.style.background = css(colours.get(kind));
      return el("li", {}, el("button", {
        type: "button", "aria-pressed": String(kind === this.chosen),
        onclick: () => { this.chosen = this.chosen === kind ? null : kind; this.recolour(); this.soon(); },
      }, dot, el("span", { class: "ellipsis" }, names ? names[kind] : prototypeName(this.run, this.kind.granularity, kind)),
      el("span", { class: "note" }, count(sizes.get(kind)))));
    }));
    if (order.length > (names ? 60 : 24)) this.legend.append(el("li", { class: "note" }, `and ${count(order.length - (names ? 60 : 24))} more`));
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  size() {
    return { width: this.canvas.clientWidth, height: this.canvas.clientHeight };
  }

  /** Screen pixels of the unit square's side. */
  scale() {
    const { width, height } = this.size();
    return Math.min(width, height) * 0.94 * this.view.zoom;
  }

  move(dx, dy) {
    const scale = this.scale();
    this.view.x = Math.max(0, Math.min(1, this.view.x - dx / scale));
    this.view.y = Math.max(0, Math.min(1, this.view.y - dy / scale));
    this.soon();
  }

  zoom(by, at) {
    const { width, height } = this.size();
    const bounds = this.canvas.getBoundingClientRect();
    const dx = at ? at.clientX - bounds.left - width / 2 : 0;
    const dy = at ? at.clientY - bounds.top - height / 2 : 0;
    const before = this.scale();
    this.view.zoom = Math.max(1, Math.min(80, this.view.zoom * by));
    const after = this.scale();
    this.view.x = Math.max(0, Math.min(1, this.view.x + dx / before - dx / after));
    this.view.y = Math.max(0, Math.min(1, this.view.y + dy / before - dy / after));
    this.canvas.style.touchAction = this.view.zoom > 1 ? "none" : "pan-y";
    hideTip();
    this.soon();
  }

  draw() {
    const { width, height } = this.size();
    if (!width || !height) return;
    const ratio = Math.min(2, devicePixelRatio || 1);
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== w || this.canvas.height !== h) {
      this.canvas.width = w;
      this.canvas.height = h;
      this.pixels = null;
    }
    const context = this.canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    this.pixels ??= context.createImageData(w, h);
    const data = this.pixels.data;
    const paper = colour("card").match(/\w\w/g).map((part) => parseInt(part, 16));
    new Uint32Array(data.buffer).fill((255 << 24) | (paper[2] << 16) | (paper[1] << 8) | paper[0]);

    const scale = this.scale() * ratio;
    const left = w / 2 - this.view.x * scale;
    const top = h / 2 - this.view.y * scale;
    const crowd = Math.sqrt(this.entries.length / 2500);
    const radius = Math.max(1.1, Math.min(6, (2.6 * Math.sqrt(this.view.zoom)) / Math.max(0.75, crowd))) * ratio;
    const stamp = disc(radius);
    const { x, y } = this.shown;
    const faded = this.pictures ? 0.35 : this.chosen === null ? 0.85 : 1;
    const { of } = this.kind;
    const paint = (entry) => {
      const [px, py] = [(left + x[entry] / 65534 * scale) | 0, (top + y[entry] / 65534 * scale) | 0];
      if (px < -8 || py < -8 || px > w + 8 || py > h + 8) return;
      const at = entry * 3;
      const [r, g, b] = [this.rgb[at], this.rgb[at + 1], this.rgb[at + 2]];
      for (let i = 0; i < stamp.length; i += 3) {
        const cx = px + stamp[i], cy = py + stamp[i + 1];
        if (cx < 0 || cy < 0 || cx >= w || cy >= h) continue;
        const part = stamp[i + 2] * faded;
        const to = (cy * w + cx) * 4;
        data[to] += (r - data[to]) * part;
        data[to + 1] += (g - data[to + 1]) * part;
        data[to + 2] += (b - data[to + 2]) * part;
      }
    };
    // What was chosen lies on top of what was not.
    for (const entry of this.entries) if (this.chosen === null || of[entry] !== this.chosen) paint(entry);
    if (this.chosen !== null) for (const entry of this.entries) if (of[entry] === this.chosen) paint(entry);
    context.putImageData(this.pixels, 0, 0);
    if (this.pictures) this.drawPictures(context, { w, h, scale, left, top, ratio });
  }

  /** One picture for every cell of the screen, the same ones while the map moves. */
  drawPictures(context, { w, h, scale, left, top, ratio }) {
    const gap = 38 * ratio;
    const side = 36 * ratio;
    const taken = new Set();
    const { x, y } = this.shown;
    context.imageSmoothingQuality = "high";
    for (let at = this.entries.length - 1; at >= 0; at--) {
      const entry = this.entries[at];
      if (!pictured(this.run, entry)) continue;
      if (this.chosen !== null && this.kind.of[entry] !== this.chosen) continue;
      const px = left + x[entry] / 65534 * scale;
      const py = top + y[entry] / 65534 * scale;
      if (px < -side || py < -side || px > w + side || py > h + side) continue;
      // Cells hang on the map, not on the screen, so that pictures do not jump when it moves.
      const [cx, cy] = [Math.floor((px - left) / gap), Math.floor((py - top) / gap)];
      const cell = cx * 100003 + cy;
      if (taken.has(cell)) continue;
      taken.add(cell);
      const [dx, dy] = [left + (cx + 0.5) * gap - side / 2, top + (cy + 0.5) * gap - side / 2];
      this.drawPicture(context, entry, dx, dy, side);
    }
  }

  drawPicture(context, entry, dx, dy, side) {
    if (content.live) {
      const source = liveUrl(this.run, this.shown.index[entry]);
      const picture = this.picture(source);
      if (picture) context.drawImage(picture, dx, dy, side, side);
      return;
    }
    const { sheet, column, row } = tileOf(this.run, entry);
    const picture = this.picture(sheetUrl(sheet));
    const own = this.run.thumbnails.side;
    if (picture) context.drawImage(picture, column * own, row * own, own, own, dx, dy, side, side);
  }

  /** A picture once it is loaded; the map is drawn again then. */
  picture(source) {
    let found = this.sheets.get(source);
    if (!found) {
      found = new Image();
      found.onload = () => { found.ready = true; this.soon(); };
      found.src = source;
      this.sheets.set(source, found);
    }
    return found.ready ? found : null;
  }

  /** The image under the pointer; among near ones rather one with a picture. */
  find(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const { width, height } = this.size();
    const scale = this.scale();
    const mx = (event.clientX - bounds.left - width / 2) / scale + this.view.x;
    const my = (event.clientY - bounds.top - height / 2) / scale + this.view.y;
    const reach = 14 / scale;
    const { side, cells, byCell } = this;
    const { x, y } = this.shown;
    const clamp = (value) => Math.max(0, Math.min(side - 1, Math.floor(value * side)));
    let best = null;
    let least = Infinity;
    for (let row = clamp(my - reach); row <= clamp(my + reach); row++) {
      for (let column = clamp(mx - reach); column <= clamp(mx + reach); column++) {
        for (let i = cells[row * side + column]; i < cells[row * side + column + 1]; i++) {
          const entry = byCell[i];
          let distance = Math.hypot(x[entry] / 65534 - mx, y[entry] / 65534 - my);
          if (distance > reach) continue;
          if (!pictured(this.run, entry)) distance += reach / 2;
          if (distance < least) { least = distance; best = entry; }
        }
      }
    }
    return best;
  }

  hover(event) {
    const entry = this.find(event);
    if (entry === null) return hideTip();
    const m = this.kind.granularity ?? 0;
    const id = this.shown.prototype[m][entry];
    const more = [];
    if (id !== NONE) more.push(el("div", { class: "note" }, `in ${prototypeName(this.run, m, id)}`));
    if (!pictured(this.run, entry)) more.push(el("div", { class: "note" }, "its picture is not in this file's sample"));
    showImageTip(this.run, entry, event, more);
  }

  click(event) {
    this.canvas.focus({ preventScroll: true });
    const entry = this.find(event);
    const kind = entry === null ? null : this.kind.of[entry];
    this.chosen = kind === this.chosen || kind === NONE ? null : kind;
    this.recolour();
    this.soon();
  }
}

/** The pixels of a disc with soft edges: dx, dy, coverage, … */
function disc(radius) {
  const found = [];
  const reach = Math.ceil(radius);
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      const cover = Math.max(0, Math.min(1, radius + 0.5 - Math.hypot(dx, dy)));
      if (cover > 0) found.push(dx, dy, cover);
    }
  }
  return found;
}
