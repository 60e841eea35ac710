// Theme of the page. Runs before the first paint, so that a chosen theme does not flash.
(() => {
  const THEMES = ["automatic", "light", "dark"];
  const STORED = "lightning-xt.theme";

  function read() {
    try {
      const stored = localStorage.getItem(STORED);
      return THEMES.includes(stored) ? stored : "automatic";
    } catch {
      return "automatic"; // storage may be blocked
    }
  }

  function apply(theme) {
    const root = document.documentElement;
    if (theme === "automatic") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme);
  }

  function describe(button, theme) {
    button.dataset.shows = theme;
    button.title = `Theme: ${theme}`;
    button.setAttribute("aria-label", button.title);
  }

  apply(read());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    describe(button, read());
    button.addEventListener("click", () => {
      const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "automatic") + 1) % THEMES.length];
      apply(theme);
      describe(button, theme);
      try {
        localStorage.setItem(STORED, theme);
      } catch {
        // The choice lasts until the page is closed.
      }
    });
  });
})();
