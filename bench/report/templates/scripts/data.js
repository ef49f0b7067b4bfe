/* Shared by all scripts of the page: its data, parsed on first use, and helpers for elements. */
const byId = (id) => document.getElementById(id);
const whenRead = new Promise((resolve) => {
  document.addEventListener("DOMContentLoaded", resolve, { once: true });
});

let parsed = null;
/** The report's data; available after `whenRead`, since they follow this script. */
function report() {
  parsed ??= JSON.parse(byId("thawbench-data").textContent);
  return parsed;
}

/** Makes an element; texts become text nodes, so that no name becomes markup. */
function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Attributes of a box that scrolls; it has a name, since it can be reached by keyboard. */
const scrolls = (name) => ({ tabindex: "0", role: "region", "aria-label": name });

/** Announces a change to screen readers. */
function say(text) {
  byId("said").textContent = text;
}
