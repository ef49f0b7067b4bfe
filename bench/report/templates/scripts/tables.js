/* Sorting tables by a click on a heading, and filtering them. */
const collator = new Intl.Collator("en", { numeric: true });

/** The sort key of a cell: a number, a text, or null. */
function sortKey(cell) {
  const key = cell.dataset.sort ?? cell.textContent;
  if (key === "") return null;
  const number = Number(key);
  return Number.isFinite(number) ? number : key;
}

/** The sort keys of all rows, either all numbers or all texts; null comes last. */
function keysOf(heading, rows) {
  const keys = Array.from(rows, (row) => sortKey(row.cells[heading.cellIndex]));
  const isWord = (key) => typeof key === "string";
  // Words in a column of numbers, such as "not run", mean that there is no number.
  if (heading.classList.contains("r")) return keys.map((key) => (isWord(key) ? null : key));
  return keys.some(isWord) ? keys.map((key) => (key === null ? null : String(key))) : keys;
}

function compare(a, b) {
  return typeof a === "number" ? a - b : collator.compare(a, b);
}

function sortBy(heading) {
  const table = heading.closest("table");
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const keys = keysOf(heading, body.rows);
  const keyed = Array.from(body.rows, (row, number) => [keys[number], row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return down ? compare(b, a) : compare(a, b);
  });
  body.append(...keyed.map(([, row]) => row));
  say(`Sorted by ${heading.textContent}, ${down ? "descending" : "ascending"}.`);
}

function makeSortable(table) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = make("button", { type: "button" }, ...heading.childNodes);
    button.addEventListener("click", () => sortBy(heading));
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
  }
}

/* Columns with a menu in the filter: always, or if they have several values. */
const ALWAYS_CHOICES = ["backbone", "policy", "backend", "status"];
const OTHER_CHOICES = [
  "case", "size", "similarity", "dataset", "dataset_label", "mode", "head", "weights", "precision",
  "device", "device_model", "environment_id", "parity", "seed",
];
const MOST_CHOICES = 60;

function choicesOf(heading, rows) {
  const texts = rows.map((row) => row.cells[heading.cellIndex].textContent);
  return [...new Set(texts)].sort(collator.compare);
}

function makeChoice(heading, values) {
  const select = make("select", {}, new Option("all", ""));
  // Options are identified by position, since a value may itself be empty or "all".
  for (const value of values) select.append(new Option(value === "" ? "(none)" : value, "some"));
  const field = labelled(heading.textContent, select, `filter-${heading.cellIndex}`);
  return { select, values, column: heading.cellIndex, field };
}

/** A control below its label; a label around a menu would include all its options. */
function labelled(words, control, id) {
  control.id = id;
  return make("div", {}, make("label", { for: id }, words), control);
}

/** The text of each row, in lower case. */
function wordsOf(rows) {
  return new Map(rows.map((row) => [
    row, Array.from(row.cells, (cell) => cell.textContent).join("\n").toLowerCase(),
  ]));
}

/* A table with fewer rows gets no filter. */
const FEW_ROWS = 8;

function makeTextFilter(table, region) {
  const rows = Array.from(table.tBodies[0].rows);
  if (rows.length < FEW_ROWS) return;
  const words = wordsOf(rows);
  const box = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const title = byId(region.getAttribute("aria-labelledby")).textContent;
  const form = make(
    "form", { class: "filters", role: "search", "aria-label": `Filter the table ${title}` },
    labelled("rows with", box, `${region.id}-text`),
  );
  const count = make("p", { class: "count", "aria-live": "polite" });
  function apply() {
    const text = box.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !words.get(row).includes(text);
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = shown < rows.length ? `${shown} of ${rows.length} rows` : "";
  }
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  region.before(form, count);
}

function makeFilter(table, region) {
  const rows = Array.from(table.tBodies[0].rows);
  const words = wordsOf(rows);
  const headings = Array.from(table.tHead.rows[0].cells);
  const choices = [];
  for (const name of [...ALWAYS_CHOICES, ...OTHER_CHOICES]) {
    const heading = headings.find((one) => one.dataset.name === name);
    if (!heading) continue;
    const values = choicesOf(heading, rows);
    const wanted = ALWAYS_CHOICES.includes(name) || values.length > 1;
    if (wanted && values.length <= MOST_CHOICES) choices.push(makeChoice(heading, values));
  }
  const box = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const reset = make("button", { type: "reset" }, "Show all");
  const form = make(
    "form", { class: "filters", role: "search", "aria-label": "Filter the runs" },
    labelled("any text", box, "filter-text"), ...choices.map(({ field }) => field), reset,
  );
  const count = make("p", { class: "count", "aria-live": "polite" });

  function apply() {
    const text = box.value.trim().toLowerCase();
    const set = choices.filter(({ select }) => select.selectedIndex > 0);
    let shown = 0;
    for (const row of rows) {
      const fits = words.get(row).includes(text) && set.every(({ select, values, column }) =>
        row.cells[column].textContent === values[select.selectedIndex - 1]);
      row.hidden = !fits;
      shown += fits;
      const details = row.dataset.details && byId(`run-${row.dataset.details}`);
      if (details) details.hidden = !fits;
    }
    count.textContent = `${shown} of ${rows.length} runs`;
  }

  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  region.before(form, count);
  apply();
}

for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
const runsRegion = document.querySelector("#runs-table-region");
if (runsRegion) makeFilter(runsRegion.querySelector("table"), runsRegion);
for (const region of document.querySelectorAll(".scroll:not(#runs-table-region, #cases-region)")) {
  const table = region.querySelector("table.sortable");
  if (table) makeTextFilter(table, region);
}
performance.mark("thawbench-sortable");
