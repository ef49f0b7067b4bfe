/* Light or dark: the system's theme until the reader chooses one, while the page is open; light on
   paper. Each change sends the document the event "theme". */
const systemDark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
let onPaper = false;

function isDark() {
  return !onPaper && (chosen === null ? systemDark.matches : chosen === "dark");
}

function showTheme(isPrinting = onPaper) {
  onPaper = isPrinting;
  const theme = onPaper ? "light" : chosen;
  if (theme === null) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").textContent = isDark() ? "Light theme" : "Dark theme";
  document.dispatchEvent(new Event("theme"));
}

/** The current colours of page.css: name without dashes → rgb(…). */
function colours() {
  const names = ["page", "raised", "ink", "quiet", "rule", "strong-rule",
    "c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
  const probe = make("span", { hidden: "" });
  document.body.append(probe);
  const found = names.map((name) => {
    probe.style.color = `var(--${name})`;
    return [name, getComputedStyle(probe).color];
  });
  probe.remove();
  return Object.fromEntries(found);
}

byId("theme").hidden = false;
byId("theme").addEventListener("click", () => {
  chosen = isDark() ? "light" : "dark";
  showTheme();
});
addEventListener("beforeprint", () => showTheme(true));
addEventListener("afterprint", () => showTheme(false));
systemDark.addEventListener("change", () => showTheme());
showTheme();
