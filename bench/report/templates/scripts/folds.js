/* A fold for each run, filled when it is first opened; and what can be copied. */
const PARITY = {
  shown: "Shown: the adapters compute the same thing in this environment.",
  not_shown: "Not shown in this environment.",
};
const APART = ["schema_version", "run_id", "environment_id", "failure", "knobs",
  "val_top1_by_epoch", "train_loss_by_epoch", "train_images_per_s_windows"];

/** name: value for each leaf, lists on one line. */
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
    // A checksum is known by its beginning; the whole one stands in the data.
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
      button.textContent = "Select and copy by hand";
      say("The browser did not let the page copy.");
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return button;
}

/** Text in a box that scrolls; named, since it can be reached by keyboard. */
function box(text, name) {
  return make("pre", { tabindex: "0", role: "region", "aria-label": name }, text);
}

const percent = (value) => `${(100 * value).toFixed(1)}%`;
const plain = (value) => String(Number(value.toPrecision(3)));

function contents(key, run) {
  const environment = key.slice(key.lastIndexOf("/") + 1);
  const row = report().rows.find((one) => `${one.run_id}/${one.environment_id}` === key);
  const { result } = run;
  const fold = make("div", { class: "fold" });
  if (result.failure) {
    const reason = `${result.status}: ${result.failure.kind}: ${result.failure.message}`;
    fold.append(part("Why it is not ok", make("p", {}, make("strong", { class: "bad" }, reason))));
  }
  if (run.repeat) {
    const both = [box(run.repeat, "Command"), copyButton(run.repeat, "the command")];
    fold.append(part("Command that repeats it", make("div", { class: "command" }, ...both)));
  }
  const curves = [
    curve("validation top-1", result.val_top1_by_epoch ?? [], percent),
    curve("training loss", result.train_loss_by_epoch ?? [], plain),
  ].filter((one) => one !== null);
  if (curves.length > 0) fold.append(part("Learning curve", ...curves));

  const measured = (report().measured ?? []).map((name) => [name, row?.[name] ?? null]);
  const numbers = Object.fromEntries([...measured, ...Object.entries(result)].filter(
    ([name, value]) => value !== null && !APART.includes(name)));
  const own = run.knobs ?? {};
  const knobs = report().knobs.flatMap(({ knob, values }) => {
    const value = Object.hasOwn(own, knob) ? own[knob] : values[environment];
    return value === undefined || value === null ? [] : [[knob, readable(value)]];
  });
  const proof = PARITY[row?.parity] ?? "Nothing was to be shown for this run.";
  const columns = make("div", { class: "columns" },
    part("Result", fields([["run id", key.slice(0, key.lastIndexOf("/"))], ...leaves(numbers)])),
    part("Specification", fields(leaves(run.spec))),
  );
  const right = part("Parity", make("p", { class: "quiet" }, proof));
  if (knobs.length > 0) {
    const where = `In force during this run, in environment ${environment}.`;
    right.append(make("h4", {}, "Knobs"), make("p", { class: "quiet" }, where), fields(knobs));
  }
  columns.append(right);
  fold.append(columns);
  if (run.confusion) {
    const matrix = confusion(run.confusion, run.spec.case.dataset.classes);
    fold.append(part("Confusion matrix, test images", matrix));
  }
  if (run.confusions) {
    const list = confusionList(run.confusions, run.spec.case.dataset.classes);
    fold.append(part("Confusions, test images", list));
  }
  if (run.log_tail) fold.append(part("End of the log", box(run.log_tail, "End of the log")));
  return fold;
}

async function fill(details) {
  if (details.dataset.filled) return;
  details.dataset.filled = "yes";
  await whenRead;
  const key = Object.keys(report().runs)[Number(details.dataset.run)];
  details.append(contents(key, report().runs[key]));
}

/** Opens the fold that the address names. */
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
  // A second click on the same link changes no address.
  if (event.target.closest?.('a[href^="#run-"]')) setTimeout(openNamed);
});
openNamed();
for (const text of document.querySelectorAll("pre.copied")) {
  text.after(copyButton(text.textContent, text.getAttribute("aria-label")));
}
