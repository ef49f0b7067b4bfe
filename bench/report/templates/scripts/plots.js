/* Plots are drawn when they come near the screen, when the browser is idle, or before printing;
   learning curves, when the details of their run are opened. */
/* So that two plots with their captions fit on a sheet of print.css. */
const PAPER_PX = { width: 960, height: 275 };
/* Height in page.css of a plot without a height of its own. */
const CANVAS_PX = 432;
const LEGEND_GAP_PX = 9;
const figures = Array.from(document.querySelectorAll("figure.plot"));

/**
 * Runs Plotly when a plot is first drawn. It lies in the page as text, so that its five million
 * characters do not delay readers of tables. An inline script runs immediately.
 */
function loadPlotly() {
  if (typeof Plotly !== "undefined") return;
  const script = make("script", {}, byId("plotly").textContent);
  document.body.append(script);
  script.remove();
}

/** The parts of a figure's layout that depend on the theme. */
function plotTemplate() {
  const { ink, raised, rule, "strong-rule": strongRule, ...others } = colours();
  const axis = {
    gridcolor: rule, linecolor: strongRule, zerolinecolor: rule, tickcolor: rule, automargin: true,
  };
  const { fontFamily: family } = getComputedStyle(document.body);
  const nothing = "rgba(0,0,0,0)";
  const layout = {
    paper_bgcolor: nothing, plot_bgcolor: nothing, legend: { bgcolor: nothing },
    font: { family, size: onPaper ? 10 : 13, color: ink },
    colorway: Array.from({ length: 8 }, (_, number) => others[`c${number}`]),
    xaxis: axis, yaxis: axis, hovermode: "closest",
    margin: { l: 64, r: 16, t: 16, b: onPaper ? 40 : 52 },
    hoverlabel: { bgcolor: raised, bordercolor: strongRule, font: { color: ink } },
  };
  return { layout };
}

/** A copy of a figure's data and layout, since Plotly changes what it is given. */
function figureOf(figure) {
  const { data, layout } = structuredClone(report().plots[Number(figure.dataset.plot)].figure);
  const buttons = layout.updatemenus?.[0]?.buttons ?? [];
  delete layout.updatemenus; // Plotly's menus cannot be reached by keyboard; see `addMenu`.
  delete layout.title; // The page shows it as a heading.
  if (layout.legend?.orientation === "h") {
    // Above the plot, away from the axis title, at the same distance for any height.
    const y = 1 + LEGEND_GAP_PX / (layout.height ?? CANVAS_PX);
    Object.assign(layout.legend, { x: 0, xanchor: "left", y, yanchor: "bottom" });
  }
  return { data, layout, buttons };
}

/** Converts Plotly's text, which is HTML, to plain text. */
function unescaped(text) {
  return new DOMParser().parseFromString(text, "text/html").documentElement.textContent;
}

/** A menu of a figure's choices, or the name of the only one. */
function menuOf(figure, buttons) {
  const names = buttons.map(({ label }) => unescaped(label));
  if (names.length === 1) return make("p", { class: "menu quiet" }, names[0]);
  const select = make("select", {}, ...names.map((name) => new Option(name)));
  select.addEventListener("change", () => draw(figure));
  const menu = labelled("shown", select, `menu-${figure.dataset.plot}`);
  menu.className = "menu";
  return menu;
}

const LEGEND_PX = { row: 20, symbol: 60, margins: 80 };

/** Height of the legend of the visible traces, in pixels. */
function legendHeight(data, template, width) {
  const context = document.createElement("canvas").getContext("2d");
  const { size, family } = template.layout.font;
  context.font = `${size}px ${family}`;
  const named = data.filter(({ visible, showlegend }) => visible !== false && showlegend !== false);
  const widths = named.map(({ name }) => context.measureText(unescaped(name ?? "")).width);
  const widest = LEGEND_PX.symbol + Math.max(0, ...widths);
  const columns = Math.max(1, Math.floor((width - LEGEND_PX.margins) / widest));
  return LEGEND_PX.row * Math.ceil(named.length / columns);
}

/** Draws one choice of a figure into a canvas. */
function drawInto(canvas, { data, layout, buttons }, chosenButton) {
  // What a button of Plotly's menu would do.
  const visible = buttons[chosenButton]?.args[0].visible;
  if (visible) data.forEach((trace, number) => { trace.visible = visible[number]; });
  canvas.style.height = layout.height ? `${layout.height}px` : "";
  const paper = { ...PAPER_PX, height: Math.max(PAPER_PX.height, layout.height ?? 0) };
  const size = onPaper ? { ...paper, autosize: false } : { autosize: true };
  const template = plotTemplate();
  const whole = { ...layout, ...size, template, uirevision: chosenButton };
  const height = whole.height ?? canvas.clientHeight;
  const legend = legendHeight(data, template, whole.width ?? canvas.clientWidth);
  // A legend above half the height would scroll, which paper cannot: make the plot higher.
  if (legend > height / 2) {
    whole.height = height + legend;
    whole.legend = { ...layout.legend, maxheight: whole.height };
  }
  canvas.style.height = whole.height ? `${whole.height}px` : "";
  Plotly.react(canvas, data, whole, { responsive: !onPaper, displayModeBar: false });
}

/** Draws a figure, or redraws it in the current theme. */
function draw(figure) {
  loadPlotly();
  const content = figureOf(figure);
  const canvas = figure.querySelector(".canvas");
  const hasMenu = figure.querySelector(".menu") !== null;
  if (content.buttons.length > 0 && !hasMenu) canvas.before(menuOf(figure, content.buttons));
  const chosenButton = figure.querySelector(".menu select")?.selectedIndex ?? 0;
  drawInto(canvas, content, chosenButton);
  figure.dataset.drawn = isDark() ? "dark" : "light";
  for (const extra of figure.querySelectorAll(".extra")) extra.remove();
  if (onPaper) drawOtherChoices(figure, content.buttons, chosenButton);
}

/** Draws all other choices below a figure, since paper has no menu. */
function drawOtherChoices(figure, buttons, chosenButton) {
  buttons.forEach(({ label }, number) => {
    const words = make("p", { class: "extra" }, unescaped(label));
    if (number === chosenButton) return figure.querySelector(".canvas").before(words);
    const canvas = make("div", { class: "canvas extra" });
    figure.append(words, canvas);
    drawInto(canvas, figureOf(figure), number);
  });
}

const isMissing = (figure) => !figure.dataset.drawn;

/* Learning curves in the details of a run: field of its result, title, format of values. */
const CURVES = [
  { field: "val_top1_by_epoch", title: "validation top-1", format: ".1%" },
  { field: "train_loss_by_epoch", title: "training loss", format: ".3g" },
];

/** An empty figure for a learning curve, or null if the run has no such values. */
function curveFigure({ field, title, format }, result) {
  const values = result[field] ?? [];
  if (values.every((value) => value === null)) return null;
  const label = `${title} by epoch: ${values.map((y) => y?.toPrecision(3) ?? "–").join(", ")}`;
  const canvas = make("div", { role: "img", "aria-label": label });
  const curve = { title, format, values };
  return Object.assign(make("figure", { class: "curve" }, canvas), { curve });
}

/** Draws a learning curve, or redraws it in the current theme. */
function drawCurve(figure) {
  loadPlotly();
  const { title, format, values } = figure.curve;
  const data = [{
    x: values.map((_, number) => number + 1), y: values, mode: "lines+markers",
    marker: { size: 4 }, hovertemplate: `%{y:${format}} after epoch %{x}<extra></extra>`,
  }];
  const layout = {
    template: plotTemplate(), width: 340, height: 190, showlegend: false,
    margin: { l: 48, r: 8, t: 8, b: 36 },
    xaxis: { title: { text: "epoch" }, nticks: 6 },
    yaxis: { title: { text: title }, tickformat: format, nticks: 4 },
  };
  Plotly.react(figure.firstChild, data, layout, { displayModeBar: false });
}

const near = new IntersectionObserver((entries) => entries
  .filter(({ isIntersecting, target }) => isIntersecting && isMissing(target))
  .forEach(({ target }) => draw(target)), { rootMargin: "500px" });

const whenIdle = window.requestIdleCallback ?? ((call) => setTimeout(call, 200));

/** Draws one figure at a time, so that the page stays responsive. */
function drawNext() {
  const figure = figures.find(isMissing);
  if (!figure) return;
  draw(figure);
  whenIdle(drawNext);
}

whenRead.then(() => {
  figures.forEach((figure) => near.observe(figure));
  whenIdle(drawNext);
});
document.addEventListener("theme", () => {
  for (const figure of figures) if (!isMissing(figure)) draw(figure);
  document.querySelectorAll("details[open] .curve").forEach(drawCurve);
});
addEventListener("beforeprint", () => figures.filter(isMissing).forEach(draw));
