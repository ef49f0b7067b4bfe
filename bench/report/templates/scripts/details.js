/* Details of each run, filled when they are first opened; and texts that can be copied. */
const PARITY = {
  shown: "Shown: the backends compute the same in this environment.",
  not_shown: "Not shown in this environment.",
};
const SHOWN_ELSEWHERE = ["schema_version", "run_id", "environment_id", "failure", "knobs",
  "val_top1_by_epoch", "train_loss_by_epoch", "train_images_per_s_windows"];

/** [name, value] of each leaf; a list is one value. */
function leaves(value, path = "") {
  if (value === null || value === "") return [];
  if (Array.isArray(value)) {
    const flat = value.every((item) => item === null || typeof item !== "object");
    if (value.length === 0) return [];
    if (flat) return [[path, value.map(readable).join(", ")]];
    return value.flatMap((item, number) => leaves(item, `${path} ${number + 1}`));
  }
  if (typeof value === "object") {
    return Object.entries(value).flatMap(([key, inner]) =>
      leaves(inner, path ? `${path}: ${key}` : key));
  }
  return [[path, readable(value)]];
}

function readable(value) {
  if (value === null) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) {
    return Math.abs(value) < 1e4 ? String(value) : value.toLocaleString("en");
  }
  return String(Number(value.toPrecision(5)));
}

function fields(pairs) {
  const list = make("dl", { class: "fields" });
  for (const [name, value] of pairs) {
    // The beginning of a checksum is enough; the data hold all of it.
    const shown = /^[0-9a-f]{64}$/.test(value) ? `${value.slice(0, 12)}…` : value;
    list.append(make("dt", {}, name.replaceAll("_", " ")), make("dd", { title: value }, shown));
  }
  return list;
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

/** Text in a box that scrolls; it has a name, since it can be reached by keyboard. */
function box(text, name) {
  return make("pre", { tabindex: "0", role: "region", "aria-label": name }, text);
}

function contents(key, run) {
  const environment = key.slice(key.lastIndexOf("/") + 1);
  const row = report().rows.find((one) => `${one.run_id}/${one.environment_id}` === key);
  const { result } = run;
  const shown = make("div", { class: "fold" });
  if (result.failure) {
    const reason = `${result.status}: ${result.failure.kind}: ${result.failure.message}`;
    shown.append(part("Why it failed", make("p", {}, make("strong", { class: "bad" }, reason))));
  }
  if (run.repeat) {
    const both = [box(run.repeat, "Command"), copyButton(run.repeat, "the command")];
    shown.append(part("Command to repeat it", make("div", { class: "command" }, ...both)));
  }
  const curves = CURVES.flatMap((curve) => curveFigure(curve, result) ?? []);
  if (curves.length > 0) shown.append(part("Learning curve", ...curves));

  const measured = (report().measured ?? []).map((name) => [name, row?.[name] ?? null]);
  const numbers = Object.fromEntries([...measured, ...Object.entries(result)].filter(
    ([name, value]) => value !== null && !SHOWN_ELSEWHERE.includes(name)));
  const own = run.knobs ?? {};
  const knobs = report().knobs.flatMap(({ knob, values }) => {
    const value = Object.hasOwn(own, knob) ? own[knob] : values[environment];
    return value === undefined || value === null ? [] : [[knob, readable(value)]];
  });
  const proof = PARITY[row?.parity] ?? "Not applicable to this run.";
  const columns = make("div", { class: "columns" },
    part("Result", fields([["run id", key.slice(0, key.lastIndexOf("/"))], ...leaves(numbers)])),
    part("Specification", fields(leaves(run.spec))),
  );
  const right = part("Parity", make("p", { class: "quiet" }, proof));
  if (knobs.length > 0) {
    const where = `Read back during this run, in environment ${environment}.`;
    right.append(make("h4", {}, "Framework settings"), make("p", { class: "quiet" }, where), fields(knobs));
  }
  columns.append(right);
  shown.append(columns);
  if (run.confusion) {
    const matrix = confusion(run.confusion, run.spec.case.dataset.classes);
    shown.append(part("Confusion matrix, test images", matrix));
  }
  if (run.confusions) {
    const list = confusionList(run.confusions, run.spec.case.dataset.classes);
    shown.append(part("Confusions, test images", list));
  }
  if (run.log_tail) shown.append(part("End of the log", box(run.log_tail, "End of the log")));
  return shown;
}

async function fill(details) {
  if (details.dataset.filled) return;
  details.dataset.filled = "yes";
  await whenRead;
  const key = Object.keys(report().runs)[Number(details.dataset.run)];
  details.append(contents(key, report().runs[key]));
  // Once the text is on the screen: the first curve of a page has to wait for Plotly.
  setTimeout(() => details.querySelectorAll(".curve").forEach(drawCurve));
}

/** Opens the details that the address names. */
function openNamed() {
  const named = /^#run-\d+$/.test(location.hash) && byId(location.hash.slice(1));
  if (!named) return;
  named.hidden = false;
  named.open = true;
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
