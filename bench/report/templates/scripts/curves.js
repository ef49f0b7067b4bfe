/* Small learning curves, and confusion matrices. */
const CURVE = { width: 300, height: 110, left: 46, right: 8, top: 8, bottom: 18 };
const SVG = "http://www.w3.org/2000/svg";
const MOST_CLASSES = 25;
const MOST_CONFUSIONS = 20;

function drawn(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

/** A curve over epochs. values: numbers, null where there is none; show: number → text. */
function curve(words, values, show) {
  const points = values.flatMap((y, x) => (y === null ? [] : [[x, y]]));
  if (points.length === 0) return null;
  const ys = points.map(([, y]) => y);
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const { width, height, left, right, top, bottom } = CURVE;
  const last = Math.max(values.length - 1, 1);
  const across = (x) => left + (x / last) * (width - left - right);
  const up = (y) => {
    const share = high > low ? (y - low) / (high - low) : 0.5;
    return height - bottom - share * (height - top - bottom);
  };
  const spoken = `${words}, epochs 1 to ${values.length}: first ${show(ys[0])}, `
    + `last ${show(ys[ys.length - 1])}, lowest ${show(low)}, highest ${show(high)}`;
  const svg = drawn("svg", {
    class: "curve", role: "img", width, height, viewBox: `0 0 ${width} ${height}`,
    "aria-label": spoken,
  });
  const floor = height - bottom;
  svg.append(
    drawn("line", { class: "axis", x1: left, x2: width - right, y1: floor, y2: floor }),
    drawn("text", { x: left - 6, y: up(high) + 4, "text-anchor": "end" }, show(high)),
    drawn("text", { x: left, y: height - 4 }, "1"),
    drawn("text", { x: width - right, y: height - 4, "text-anchor": "end" }, `${values.length}`),
  );
  if (high > low) {
    svg.append(drawn("text", { x: left - 6, y: up(low) + 2, "text-anchor": "end" }, show(low)));
  }
  const path = values.map((y, x) => {
    if (y === null) return "";
    const starts = x === 0 || values[x - 1] === null;
    return `${starts ? "M" : "L"}${across(x).toFixed(1)} ${up(y).toFixed(1)}`;
  });
  svg.append(drawn("path", { class: "line", d: path.join("") }));
  const [x, y] = points[points.length - 1];
  svg.append(drawn("circle", { class: "dot", cx: across(x), cy: up(y), r: 2.5 }));
  return make("figure", { class: "curve" }, svg, make("figcaption", {}, `${words}, by epoch`));
}

/** Rows are the true classes; of many classes, only the most frequent confusions. */
function confusion(matrix, classes) {
  const name = (number) => String(classes[number] ?? number);
  if (matrix.length > MOST_CLASSES) return confusionList(largest(matrix), classes);
  const head = make("tr", {}, make("th", { scope: "col" }, "true ↓ taken for →"));
  matrix.forEach((_, number) => {
    head.append(make("th", { scope: "col", title: name(number) }, name(number)));
  });
  const body = make("tbody");
  matrix.forEach((counts, number) => {
    const sum = counts.reduce((a, b) => a + b, 0) || 1;
    const row = make("tr", {}, make("th", { scope: "row" }, name(number)));
    for (const count of counts) {
      const cell = make("td", {}, count === 0 ? "·" : String(count));
      const share = Math.round((count / sum) * 45);
      if (share > 0) cell.style.background = `color-mix(in srgb, var(--c0) ${share}%, var(--page))`;
      row.append(cell);
    }
    body.append(row);
  });
  const table = make("table", { class: "confusion" }, make("thead", {}, head), body);
  const attributes = {
    class: "scroll", role: "region", tabindex: "0", "aria-label": "Confusion matrix",
  };
  return make("div", attributes, table);
}

/** Of a matrix: the most frequent confusions, as a document has them of very many classes. */
function largest(matrix) {
  const all = matrix.flatMap((counts, is) => counts.map((count, said) => [is, said, count]));
  const wrong = all.filter(([is, said, count]) => is !== said && count > 0);
  wrong.sort((a, b) => b[2] - a[2]);
  return { kinds: wrong.length, largest: wrong.slice(0, MOST_CONFUSIONS) };
}

function confusionList(confusions, classes) {
  const name = (number) => String(classes[number] ?? number);
  const list = make("ul");
  for (const [is, said, count] of confusions.largest) {
    list.append(make("li", {}, `${name(is)} taken for ${name(said)}: ${count}`));
  }
  const words = `${classes.length} classes; the most frequent of ${confusions.kinds} confusions:`;
  return make("div", {}, make("p", { class: "quiet" }, words), list);
}
