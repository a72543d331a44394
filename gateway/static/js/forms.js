// Sends a form once, however often its button is pressed, and leads to the first field that was refused.
(() => {
  const sent = new WeakMap();
  document.addEventListener("submit", (event) => {
    const form = event.target;
    // What htmx sends stays on the page; what opens in another window, or looks for something, may be asked again.
    if (form.getAttribute("method") !== "post" || form.target || event.defaultPrevented) return;
    const button = event.submitter;
    if (sent.has(form) && sent.get(form) === button) return event.preventDefault();
    sent.set(form, button);
    button?.setAttribute("aria-busy", "true");
    button?.classList.add("is-sending");
    // A file that is handed over leaves the page as it is: after a while the form can be sent again.
    setTimeout(() => release(form, button), 10_000);
  });
  const release = (form, button) => {
    sent.delete(form);
    button?.removeAttribute("aria-busy");
    button?.classList.remove("is-sending");
  };
  // The back button brings the page back as it was left.
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    for (const form of document.forms) release(form, form.querySelector(".is-sending"));
  });
  document.addEventListener("DOMContentLoaded", () => {
    const refused = document.querySelector("main form [aria-invalid='true']:not([type=hidden])");
    if (refused && !document.querySelector("dialog[open]")) refused.focus();
  });
})();
