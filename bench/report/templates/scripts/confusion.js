/* Confusion matrices. */
const MOST_CLASSES = 25;
const MOST_CONFUSIONS = 20;

/** A table with a row for each true class; for many classes, a list of the most frequent errors. */
function confusion(matrix, classes) {
  const name = (number) => String(classes[number] ?? number);
  if (matrix.length > MOST_CLASSES) return confusionList(largest(matrix), classes);
  const head = make("tr", {}, make("th", { scope: "col" }, "true ↓ predicted →"));
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

/** The most frequent confusions of a matrix, in the form that documents of many classes hold. */
function largest(matrix) {
  const all = matrix.flatMap((counts, truth) => counts.map((count, predicted) => [truth, predicted, count]));
  const wrong = all.filter(([truth, predicted, count]) => truth !== predicted && count > 0);
  wrong.sort((a, b) => b[2] - a[2]);
  return { kinds: wrong.length, largest: wrong.slice(0, MOST_CONFUSIONS) };
}

function confusionList(confusions, classes) {
  const name = (number) => String(classes[number] ?? number);
  const list = make("ul");
  for (const [truth, predicted, count] of confusions.largest) {
    list.append(make("li", {}, `${name(truth)} predicted as ${name(predicted)}: ${count}`));
  }
  const words = `${classes.length} classes. The most frequent of ${confusions.kinds} confusions:`;
  return make("div", {}, make("p", { class: "quiet" }, words), list);
}
