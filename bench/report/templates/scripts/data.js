/* What all parts of the page's script share: the data, read when first asked for, and elements. */
const byId = (id) => document.getElementById(id);
const whenRead = new Promise((resolve) => {
  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", resolve, { once: true });
  } else {
    resolve();
  }
});

let parsed = null;
/** The report's data; only after `whenRead`, since they stand below this script. */
function report() {
  parsed ??= JSON.parse(byId("thawbench-data").textContent);
  return parsed;
}

/** An element; texts become text nodes, so that no name can become markup. */
function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Tells readers who listen to the page what has changed. */
function say(text) {
  byId("said").textContent = text;
}
