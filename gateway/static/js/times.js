// Keeps <time data-relative> saying how long ago it was; the exact UTC time is its title.
(() => {
  const steps = [[60, 1, "second"], [3600, 60, "minute"], [86400, 3600, "hour"], [2592000, 86400, "day"], [31536000, 2592000, "month"], [Infinity, 31536000, "year"]];
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "narrow" });
  const tell = (root) => {
    for (const element of root.querySelectorAll("time[data-relative]")) {
      const seconds = (Date.parse(element.dateTime) - Date.now()) / 1000;
      const size = Math.abs(seconds);
      const [, unit, name] = steps.find(([limit]) => size < limit);
      element.textContent = size < 5 ? "just now" : words.format(Math.trunc(seconds / unit), name);
    }
  };
  document.addEventListener("DOMContentLoaded", () => tell(document));
  document.addEventListener("htmx:afterSettle", () => tell(document));
  setInterval(() => document.hidden || tell(document), 10000);
})();
