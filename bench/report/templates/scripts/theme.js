/* Light or dark: the system's theme until the reader chooses one, for as long as the page is open. */
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const followers = [];
let chosen = null;
let onPaper = false;

function isDark() {
  return !onPaper && (chosen === null ? systemDark.matches : chosen === "dark");
}

/** Calls `follow` after each change of theme. */
function followTheme(follow) {
  followers.push(follow);
}

function showTheme() {
  const root = document.documentElement;
  if (onPaper) root.dataset.theme = "light";
  else if (chosen !== null) root.dataset.theme = chosen;
  else delete root.dataset.theme;
  byId("theme").textContent = isDark() ? "Light theme" : "Dark theme";
  for (const follow of followers) follow();
}

/** Switches to the light theme for printing, and back. */
function setOnPaper(value) {
  onPaper = value;
  showTheme();
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
systemDark.addEventListener("change", showTheme);
showTheme();
