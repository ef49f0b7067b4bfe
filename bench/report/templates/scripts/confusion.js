/* Confusion matrices, and of many classes a list of the most frequent confusions. */

/** A table with a row for each true class. */
function confusion(matrix, classes, label) {
  const names = matrix.map((_, number) => String(classes[number] ?? number));
  const head = make("tr", {}, make("th", { scope: "col" }, "true ↓ predicted →"),
    ...names.map((name) => make("th", { scope: "col", title: name }, name)));
  const body = matrix.map((counts, truth) => {
    const sum = counts.reduce((a, b) => a + b, 0) || 1;
    return make("tr", {}, make("th", { scope: "row" }, names[truth]), ...counts.map((count) => {
      const share = Math.round((count / sum) * 45);
      const colour = `background: color-mix(in srgb, var(--c0) ${share}%, var(--page))`;
      return make("td", share > 0 ? { style: colour } : {}, count === 0 ? "·" : String(count));
    }));
  });
  const table = make("table", { class: "confusion" },
    make("thead", {}, head), make("tbody", {}, ...body));
  return make("div", { class: "scroll", ...scrolls(label) }, table);
}

function confusionList(confusions, classes) {
  const name = (number) => String(classes[number] ?? number);
  const lines = confusions.largest.map(([truth, predicted, count]) =>
    make("li", {}, `${name(truth)} predicted as ${name(predicted)}: ${count}`));
  const words = `${classes.length} classes. The most frequent of ${confusions.kinds} confusions:`;
  return make("div", {}, make("p", { class: "quiet" }, words), make("ul", {}, ...lines));
}
