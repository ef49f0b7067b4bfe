/* Sorting tables by a click on a heading, and filtering them. */
const collator = new Intl.Collator("en", { numeric: true });

/** The sort keys of all rows, either all numbers or all texts; null comes last. */
function keysOf(heading, rows) {
  const cells = Array.from(rows, (row) => row.cells[heading.cellIndex]);
  const keys = cells.map((cell) => cell.dataset.sort ?? cell.textContent);
  const numbers = keys.map((key) => (key === "" || !Number.isFinite(+key) ? null : Number(key)));
  const isWord = (key, row) => key !== "" && numbers[row] === null;
  // Words in a column of numbers, such as "not run", mean that there is no number.
  if (heading.classList.contains("r") || !keys.some(isWord)) return numbers;
  return keys.map((key, row) => (key === "" ? null : String(numbers[row] ?? key)));
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
    const order = typeof a === "number" ? a - b : collator.compare(a, b);
    return down ? -order : order;
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

/* The filter of the runs has a menu for these columns, and for others that were not measured, if
   they have several values. */
const ALWAYS_CHOICES = ["backbone", "policy", "backend", "status"];
const MOST_CHOICES = 60;
/* A table with fewer rows gets no filter. */
const FEW_ROWS = 8;

/** A control below its label; a label around a menu would include all its options. */
function labelled(words, control, id) {
  control.id = id;
  return make("div", {}, make("label", { for: id }, words), control);
}

function makeChoices(table, rows) {
  const headings = Array.from(table.tHead.rows[0].cells);
  const isNamed = (name) => (heading) => heading.dataset.name === name;
  const always = ALWAYS_CHOICES.flatMap((name) => headings.find(isNamed(name)) ?? []);
  const others = headings.filter((heading) => !always.includes(heading)
    && heading.dataset.measured === undefined && heading.dataset.name !== "run_id");
  return [...always, ...others].flatMap((heading) => {
    const { cellIndex: column, textContent: words } = heading;
    const texts = rows.map((row) => row.cells[column].textContent);
    const values = [...new Set(texts)].sort(collator.compare);
    const isWanted = values.length > 1 || always.includes(heading);
    if (!isWanted || values.length > MOST_CHOICES) return [];
    // Options are identified by position, since a value may itself be empty or "all".
    const options = values.map((value) => new Option(value === "" ? "(none)" : value, "some"));
    const select = make("select", {}, new Option("all", ""), ...options);
    return { select, values, column, field: labelled(words, select, `filter-${column}`) };
  });
}

/** Adds a form that filters a table by text, and that of the runs by choices too. */
function makeFilter(region) {
  const table = region.querySelector("table");
  const rows = Array.from(table.tBodies[0].rows);
  const isOfRuns = region.id === "runs-table-region";
  if (rows.length < FEW_ROWS && !isOfRuns) return;
  // The text of each row, in lower case.
  const words = new Map(rows.map((row) => [
    row, Array.from(row.cells, (cell) => cell.textContent).join("\n").toLowerCase(),
  ]));
  const box = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const choices = isOfRuns ? makeChoices(table, rows) : [];
  const title = byId(region.getAttribute("aria-labelledby")).textContent;
  const name = isOfRuns ? "Filter the runs" : `Filter the table ${title}`;
  const form = make(
    "form", { class: "filters", role: "search", "aria-label": name },
    labelled(isOfRuns ? "any text" : "rows with", box, `${region.id}-text`),
    ...choices.map(({ field }) => field),
  );
  if (isOfRuns) form.append(make("button", { type: "reset" }, "Show all"));
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
    const found = `${shown} of ${rows.length} ${isOfRuns ? "runs" : "rows"}`;
    count.textContent = isOfRuns || shown < rows.length ? found : "";
  }

  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  region.before(form, count);
  apply();
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll(".scroll:has(table.sortable)").forEach(makeFilter);
performance.mark("thawbench-sortable");
