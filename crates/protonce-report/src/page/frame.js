// The frame: sections in their order, the links above to them, and the colours of curves.

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
  if (run.analysis) unpack(run.analysis);
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
