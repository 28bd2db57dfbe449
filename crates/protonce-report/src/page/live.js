// Live: the server tells what is new, and the sections that it changes are drawn again.

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
    if (news.analysis && news.analysis !== run.version) {
      run.version = news.analysis;
      this.analyse(run);
    }
  },

  async analyse(run) {
    const answer = await fetch(`runs/${content.runs.indexOf(run)}/analysis`);
    if (!answer.ok) return;
    run.analysis = unpack(await answer.json());
    if (run === page.run) { drawAnalysis(); summary(); footer(); }
  },

  /**
   * Draws what the log changes, at most once per frame, and not while the page is hidden. What a
   * reader has opened stays.
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
