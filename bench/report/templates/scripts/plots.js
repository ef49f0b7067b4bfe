/* Plots: drawn when they come near the screen, all when the browser is idle or before printing. */
const PAPER_PX = { width: 480, height: 320 };
const figures = Array.from(document.querySelectorAll("figure.plot"));

/** Everything of a figure that depends on light or dark. */
function plotTemplate() {
  const now = colours();
  const axis = {
    gridcolor: now.rule, linecolor: now["strong-rule"], zerolinecolor: now.rule,
    tickcolor: now.rule, automargin: true,
  };
  return {
    layout: {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: now.ink },
      colorway: Array.from({ length: 8 }, (_, number) => now[`c${number}`]),
      xaxis: axis,
      yaxis: axis,
      margin: { l: 64, r: 16, t: 16, b: 52 },
      hoverlabel: { bgcolor: now.raised, bordercolor: now["strong-rule"], font: { color: now.ink } },
      legend: { bgcolor: "rgba(0,0,0,0)" },
      hovermode: "closest",
    },
  };
}

/** Draws a figure, or draws it again in the colours of now. */
function draw(figure) {
  if (typeof Plotly === "undefined") return;
  const canvas = figure.querySelector(".canvas");
  // A copy: plotly writes into what it is given.
  const { data, layout } = structuredClone(report().plots[Number(figure.dataset.plot)].figure);
  delete layout.title; // The page has it as a heading.
  if (layout.height) canvas.style.height = `${layout.height}px`;
  const size = onPaper ? { ...PAPER_PX, autosize: false } : { autosize: true };
  const options = { responsive: true, displayModeBar: false };
  const whole = { ...layout, ...size, template: plotTemplate(), uirevision: "kept" };
  Plotly.react(canvas, data, whole, options);
  figure.dataset.drawn = isDark() ? "dark" : "light";
}

function drawMissing() {
  for (const figure of figures) if (!figure.dataset.drawn) draw(figure);
}

const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting && !target.dataset.drawn) draw(target);
  }
}, { rootMargin: "500px" });

const whenIdle = window.requestIdleCallback ?? ((call) => setTimeout(call, 200));

/** One figure at a time, so that the page answers in between. */
function drawNext() {
  const figure = figures.find((one) => !one.dataset.drawn);
  if (!figure) return;
  draw(figure);
  whenIdle(drawNext);
}

whenRead.then(() => {
  for (const figure of figures) near.observe(figure);
  if (typeof Plotly !== "undefined") whenIdle(drawNext);
});
followTheme(() => {
  for (const figure of figures) if (figure.dataset.drawn) draw(figure);
});
addEventListener("beforeprint", () => {
  setOnPaper(true);
  drawMissing();
});
addEventListener("afterprint", () => setOnPaper(false));
