/* Details of each run, filled when they are first opened; and texts that can be copied. */
const SPEC_PARTS = ["case", "weights", "policy", "recipe"];
const SHOWN_ELSEWHERE = ["schema_version", "run_id", "environment_id", "failure", "knobs",
  "val_top1_by_epoch", "train_loss_by_epoch", "train_images_per_s_windows"];

/** [name, value] of each leaf; a list is one value. */
function leaves(value, path = "") {
  if (value === null || value === "") return [];
  if (typeof value !== "object") return [[path, readable(value)]];
  if (!Array.isArray(value)) {
    return Object.entries(value).flatMap(([key, inner]) =>
      leaves(inner, path ? `${path}: ${key}` : key));
  }
  if (value.some((item) => item !== null && typeof item === "object")) {
    return value.flatMap((item, number) => leaves(item, `${path} ${number + 1}`));
  }
  return value.length === 0 ? [] : [[path, value.map(readable).join(", ")]];
}

function readable(value) {
  if (value === null) return "–";
  if (typeof value !== "number") return String(value);
  if (!Number.isInteger(value)) return String(Number(value.toPrecision(5)));
  return Math.abs(value) < 1e4 ? String(value) : value.toLocaleString("en");
}

function fields(pairs) {
  return make("dl", { class: "fields" }, ...pairs.flatMap(([name, value]) => {
    // The beginning of a checksum is enough; the data hold all of it.
    const shown = /^[0-9a-f]{64}$/.test(value) ? `${value.slice(0, 12)}…` : value;
    return [make("dt", {}, name.replaceAll("_", " ")), make("dd", { title: value }, shown)];
  }));
}

function part(title, ...children) {
  return make("div", {}, make("h4", {}, title), ...children);
}

function copyButton(text, what) {
  const attributes = { type: "button", class: "copy", "aria-label": `Copy ${what}` };
  const button = make("button", attributes, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      say("Copied.");
    } catch {
      button.textContent = "Please select and copy";
      say("The browser does not allow the page to copy.");
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return button;
}

/** A run's spec, whose shared parts the data hold once. */
function specOf(key) {
  const { specs, spec_parts: parts } = report();
  const whole = ([name, value]) => [name, SPEC_PARTS.includes(name) ? parts[value] : value];
  return Object.fromEntries(Object.entries(specs[key]).map(whole));
}

function contents(key, run, number) {
  const row = report().rows.find((one) => `${one.run_id}/${one.environment_id}` === key);
  const [, runId, environment] = /^(.*)\/(.*?)$/s.exec(key);
  const proof = report().pairing[row?.pairing] ?? "This experiment was not run in another backend.";
  const { result } = run;
  const spec = specOf(key);
  const shown = make("div", { class: "fold" });
  const add = (title, ...children) => shown.append(part(title, ...children));
  // Screen readers announce regions by name, so names must differ.
  const named = (name) => `${name}, run ${number + 1}`;
  const box = (text, name) => make("pre", scrolls(named(name)), text);
  if (result.failure) {
    const reason = `${result.status}: ${result.failure.kind}: ${result.failure.message}`;
    add("Why it failed", make("p", {}, make("strong", { class: "bad" }, reason)));
  }
  const copied = (text, name) => make("div", { class: "command" },
    box(text, name), copyButton(text, `the ${name.toLowerCase()}`));
  if (run.repeat) add("Command to repeat it", copied(run.repeat, "Command"));
  if (run.suite) add("Its suite, suite.toml", copied(run.suite, "Suite"));
  const curves = CURVES.flatMap((curve) => curveFigure(curve, result) ?? []);
  if (curves.length > 0) add("Learning curve", ...curves);
  shown.append(make("div", { class: "columns" },
    part("Result", fields([["run id", runId], ...numbers(row, result)])),
    part("Specification", fields(leaves(spec))),
    part("Parity", make("p", { class: "quiet" }, proof), ...settings(environment, run.knobs ?? {})),
  ));
  const { classes } = spec.case.dataset;
  if (run.confusion) {
    const matrix = confusion(run.confusion, classes, named("Confusion matrix"));
    add("Confusion matrix, test images", matrix);
  }
  if (run.confusions) add("Confusions, test images", confusionList(run.confusions, classes));
  if (run.log_tail) add("End of the log", box(run.log_tail, "End of the log"));
  return shown;
}

/** Name and value of what a run measured, from its row and its result. */
function numbers(row, result) {
  const measured = (report().measured ?? []).map((name) => [name, row?.[name] ?? null]);
  const shown = [...measured, ...Object.entries(result)].filter(
    ([name, value]) => value !== null && !SHOWN_ELSEWHERE.includes(name));
  return leaves(Object.fromEntries(shown));
}

/** The settings of the frameworks: a run's own, or else those of its environment. */
function settings(environment, own) {
  const pairs = report().knobs.flatMap(({ knob, values }) => {
    const value = Object.hasOwn(own, knob) ? own[knob] : values[environment];
    return value === undefined || value === null ? [] : [[knob, readable(value)]];
  });
  const where = `Read back during this run, in environment ${environment}.`;
  return pairs.length === 0 ? [] : [
    make("h4", {}, "Framework settings"), make("p", { class: "quiet" }, where), fields(pairs),
  ];
}

async function fill(details) {
  if (details.dataset.filled) return;
  details.dataset.filled = "yes";
  await whenRead;
  const number = Number(details.dataset.run);
  const key = Object.keys(report().runs)[number];
  details.append(contents(key, report().runs[key], number));
  // Once the text is on the screen: the first curve of a page has to wait for Plotly.
  setTimeout(() => details.querySelectorAll(".curve").forEach(drawCurve));
}

/** Opens the details that the address names. */
function openNamed() {
  const named = /^#run-\d+$/.test(location.hash) && byId(location.hash.slice(1));
  if (!named) return;
  Object.assign(named, { hidden: false, open: true });
  named.scrollIntoView();
}

// "toggle" does not bubble.
document.addEventListener("toggle", (event) => {
  if (event.target.open && event.target.dataset.run) fill(event.target);
}, true);
addEventListener("hashchange", openNamed);
document.addEventListener("click", (event) => {
  // A second click on the same link does not change the address.
  if (event.target.closest?.('a[href^="#run-"]')) setTimeout(openNamed);
});
openNamed();
for (const text of document.querySelectorAll("pre.copied")) {
  text.after(copyButton(text.textContent, text.getAttribute("aria-label")));
}
