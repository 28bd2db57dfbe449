// The page's data and the few things that all parts of it need. Whatever comes from a run or its
// images is only ever put into text nodes and attributes, never parsed as HTML.

const content = JSON.parse(document.getElementById("content").textContent);
const NONE = 0xffffffff;

// ── Elements ──────────────────────────────────────────────────────────────────────────────────

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// ── Words and numbers ─────────────────────────────────────────────────────────────────────────

/** 12345 → 12 345, with a narrow space that does not break. */
function count(number) {
  return String(Math.round(number)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

const plural = (number, one, many) => `${count(number)}\u00a0${number === 1 ? one : many}`;
const percent = (value, digits = 1) => (Number.isFinite(value) ? `${value.toFixed(digits)}\u202f%` : "–");

/** A number with three figures that count. */
function short(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(1);
  if (size >= 1000) return count(value);
  return String(Number(value.toPrecision(3)));
}

/** How far apart two embeddings of this cosine similarity are. */
const apart = (similarity) => short(Math.max(0, 1 - similarity));

function duration(seconds) {
  if (!(seconds > 0)) return "–";
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)}\u00a0s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes}\u00a0min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours}\u00a0h ${minutes % 60}\u00a0min`;
  return `${Math.floor(hours / 24)}\u00a0d ${hours % 24}\u00a0h`;
}

// ── Numbers packed into the page ──────────────────────────────────────────────────────────────

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

const words = (base64) => new Uint32Array(bytesOf(base64).buffer);
const halves = (base64) => new Uint16Array(bytesOf(base64).buffer);

/** Unpacks what an analysis says of its images. */
function unpack(analysis) {
  const table = analysis.table;
  analysis.images_shown = {
    count: table.count,
    names: table.names,
    index: words(table.index),
    label: table.label ? words(table.label) : null,
    prototype: table.prototype.map(words),
    x: halves(table.x),
    y: halves(table.y),
  };
  analysis.table = null;
  // Where each prototype stands in the lists of those that are described.
  analysis.position = analysis.granularities.map(
    (granularity) => new Map(granularity.prototypes.map((prototype, at) => [prototype.id, at])));
  return analysis;
}

// ── Theme ─────────────────────────────────────────────────────────────────────────────────────

const theme = {
  listeners: [],
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  apply() {
    document.documentElement.classList.toggle("dark", this.dark);
    const button = document.getElementById("theme");
    button.textContent = this.dark ? "Light" : "Dark";
    button.setAttribute("aria-label", this.dark ? "Use light colours" : "Use dark colours");
    button.setAttribute("aria-pressed", String(this.dark));
    for (const listener of this.listeners) listener();
  },
};

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// ── Thumbnails ────────────────────────────────────────────────────────────────────────────────

const sheetUrls = new Map();

/** The address of a sheet of thumbnails; made when it is first looked at. */
function sheetUrl(number) {
  if (!sheetUrls.has(number)) {
    const bytes = bytesOf(document.getElementById(`sheet-${number}`).textContent);
    sheetUrls.set(number, URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" })));
  }
  return sheetUrls.get(number);
}

const liveUrl = (run, index) => `runs/${content.runs.indexOf(run)}/images/${index}`;

/** Whether there is a picture of the image at this entry of the table. */
const pictured = (run, entry) =>
  content.live ? run.images !== null : run.thumbnails !== null && entry < run.thumbnails.tiles;

/** Sheet, column, row and rows of the thumbnail of the image at this entry of the table. */
function tileOf(run, entry) {
  const across = run.thumbnails.sheet;
  const per = across * across;
  const sheet = Math.floor(entry / per);
  const within = entry % per;
  const rows = Math.ceil(Math.min(per, run.thumbnails.tiles - sheet * per) / across);
  return { sheet, column: within % across, row: Math.floor(within / across), rows, across };
}

function nameOf(run, entry) {
  const shown = run.analysis.images_shown;
  return shown.names[entry] || `image ${shown.index[entry]}`;
}

function labelOf(run, entry) {
  const label = run.analysis.images_shown.label;
  return label && label[entry] !== NONE ? run.analysis.classes[label[entry]] : null;
}

/** A thumbnail. `quiet` ones are decoration beside a text that says the same. */
function tile(run, entry, { quiet = false, tip = true } = {}) {
  const label = labelOf(run, entry);
  const name = nameOf(run, entry);
  const said = label && !name.startsWith(`${label}/`) ? `${name}, ${label}` : name;
  const element = el("span", quiet
    ? { class: "tile", "aria-hidden": "true" }
    : { class: "tile", role: "img", "aria-label": said });
  if (!pictured(run, entry)) {
    element.classList.add("none");
  } else if (content.live) {
    const source = liveUrl(run, run.analysis.images_shown.index[entry]);
    const picture = el("img", { loading: "lazy", decoding: "async", alt: "", src: source });
    picture.addEventListener("error", () => { picture.remove(); element.classList.add("none"); });
    element.append(picture);
  } else {
    const { sheet, column, row, rows, across } = tileOf(run, entry);
    element.style.backgroundImage = `url("${sheetUrl(sheet)}")`;
    element.style.backgroundSize = `${across * 100}% ${rows * 100}%`;
    const down = rows > 1 ? (100 * row) / (rows - 1) : 0;
    element.style.backgroundPosition = `${(100 * column) / (across - 1)}% ${down}%`;
  }
  if (tip) {
    element.addEventListener("pointerenter", (event) => showImageTip(run, entry, event));
    element.addEventListener("pointerleave", hideTip);
  }
  return element;
}

// ── Tooltip ───────────────────────────────────────────────────────────────────────────────────

const tipBox = document.getElementById("tip");

function showTip(children, x, y) {
  tipBox.replaceChildren(...children.flat(Infinity));
  tipBox.hidden = false;
  const { width, height } = tipBox.getBoundingClientRect();
  const left = x + 16 + width > innerWidth ? x - width - 14 : x + 16;
  const top = y + 16 + height > innerHeight ? y - height - 12 : y + 16;
  tipBox.style.left = `${Math.max(4, Math.min(left, innerWidth - width - 4))}px`;
  tipBox.style.top = `${Math.max(4, top)}px`;
}

function hideTip() {
  tipBox.hidden = true;
}

function showImageTip(run, entry, event, more = []) {
  const label = labelOf(run, entry);
  const parts = [];
  if (pictured(run, entry)) parts.push(tile(run, entry, { quiet: true, tip: false }));
  parts.push(el("div", {}, nameOf(run, entry)));
  if (label) parts.push(el("div", { class: "row" }, el("b", {}, label)));
  showTip([...parts, ...more], event.clientX, event.clientY);
}

addEventListener("scroll", hideTip, { passive: true });
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

// ── Buttons of which one is pressed ───────────────────────────────────────────────────────────

function segments(label, names, pressed, choose) {
  const buttons = names.map((name, number) =>
    el("button", {
      type: "button",
      "aria-pressed": String(number === pressed),
      onclick() {
        buttons.forEach((button, at) => button.setAttribute("aria-pressed", String(at === number)));
        choose(number);
      },
    }, name));
  return el("div", { class: "segments", role: "group", "aria-label": label }, buttons);
}
