// Pauses lists that refresh themselves: by the button, while the page is hidden, while text is selected,
// while a part of it is unfolded, and while the keyboard is inside the list.
(() => {
  const paused = (list) =>
    list.classList.contains("is-paused") || document.hidden ||
    String(getSelection()).length > 0 || list.querySelector("details[open]") || (list.contains(document.activeElement) && document.activeElement !== list);
  document.addEventListener("htmx:beforeRequest", (event) => {
    const list = event.detail.elt;
    if (list.matches?.("[data-live]") && paused(list)) event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-live-toggle]");
    if (!button) return;
    const list = document.querySelector(button.dataset.liveToggle);
    const isPaused = list.classList.toggle("is-paused");
    button.classList.toggle("is-paused", isPaused);
    button.setAttribute("aria-pressed", String(isPaused));
    button.querySelector("[data-live-label]").textContent = isPaused ? "Paused" : "Live";
  });
})();
