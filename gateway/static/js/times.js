// Keeps <time data-relative> saying how long ago it was, or after a month the UTC day; the exact UTC time is its title.
(() => {
  const steps = [[60, 1, "second"], [3600, 60, "minute"], [86400, 3600, "hour"], [2592000, 86400, "day"]];
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "narrow" });
  const tell = (root) => {
    for (const element of root.querySelectorAll("time[data-relative]")) {
      const seconds = (Date.parse(element.dateTime) - Date.now()) / 1000;
      const size = Math.abs(seconds);
      const step = steps.find(([limit]) => size < limit);
      if (size < 5) element.textContent = "just now";
      else if (step) element.textContent = words.format(Math.trunc(seconds / step[1]), step[2]);
      else element.textContent = element.dateTime.slice(0, 10);
    }
  };
  document.addEventListener("DOMContentLoaded", () => tell(document));
  document.addEventListener("htmx:afterSettle", () => tell(document));
  setInterval(() => document.hidden || tell(document), 10000);
})();
