// Draws the sections, all at first and those that change later.

function drawAnalysis() {
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
  drawAnalysis();
  settings();
  footer();
}

main.append(el("footer"));
theme.apply();
document.getElementById("theme").addEventListener("click", () => { theme.dark = !theme.dark; theme.apply(); });
drawRun();
