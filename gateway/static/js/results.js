// Leads the keyboard and screen readers to what an action brought about: a page that a form leads to begins at its top,
// where nothing is said of it. [data-result] names the place, else it is the page's heading, read with its flash message.
(() => {
  const seen = new WeakSet();
  const isFree = () => {
    const at = document.activeElement;
    return (!at || at === document.body || at.matches("h1, [data-result]")) && !document.querySelector("dialog[open]");
  };
  const lead = (place) => {
    place.tabIndex = -1;
    place.setAttribute("aria-describedby", "flash");
    place.focus({ preventScroll: place.matches("h1") });
  };
  document.addEventListener("DOMContentLoaded", () => {
    const places = [...document.querySelectorAll("[data-result]")];
    places.forEach((place) => seen.add(place));
    const isAnswer = document.querySelector(".toast-note") || places.some((place) => place.dataset.result === "now");
    const place = places[0] ?? document.querySelector("h1");
    if (isAnswer && place && isFree() && !location.hash && !document.querySelector("[autofocus]")) lead(place);
  });
  // A part of the page that htmx brought, such as the end of a job: not while somebody is elsewhere on the page.
  document.addEventListener("htmx:afterSettle", () => {
    const fresh = [...document.querySelectorAll("[data-result]")].find((place) => !seen.has(place));
    if (!fresh) return;
    seen.add(fresh);
    if (isFree()) lead(fresh);
  });
})();
