/* Confusion matrices. */
const MOST_CLASSES = 25;
const MOST_CONFUSIONS = 20;

/** A table with a row for each true class; for many classes, a list of the most frequent errors. */
function confusion(matrix, classes) {
  if (matrix.length > MOST_CLASSES) return confusionList(largest(matrix), classes);
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
  return make("div", { class: "scroll", ...scrolls("Confusion matrix") }, table);
}

/** The most frequent confusions of a matrix, in the form that documents of many classes hold. */
function largest(matrix) {
  const wrong = matrix.flatMap((counts, truth) =>
    counts.map((count, predicted) => [truth, predicted, count])
      .filter(([, predicted, count]) => predicted !== truth && count > 0));
  wrong.sort((a, b) => b[2] - a[2]);
  return { kinds: wrong.length, largest: wrong.slice(0, MOST_CONFUSIONS) };
}

function confusionList(confusions, classes) {
  const name = (number) => String(classes[number] ?? number);
  const lines = confusions.largest.map(([truth, predicted, count]) =>
    make("li", {}, `${name(truth)} predicted as ${name(predicted)}: ${count}`));
  const words = `${classes.length} classes. The most frequent of ${confusions.kinds} confusions:`;
  return make("div", {}, make("p", { class: "quiet" }, words), make("ul", {}, ...lines));
}
