// Opens and closes the menu on small screens, and closes flash messages.
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-menu-toggle]")) {
    const isOpen = document.body.classList.toggle("menu-open");
    document.querySelector(".topbar [data-menu-toggle]")?.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) document.querySelector(".menu a, .menu input")?.focus();
  }
  event.target.closest("[data-dismiss-toast]")?.closest(".toast-note").remove();
});
document.addEventListener("DOMContentLoaded", () => {
  for (const note of document.querySelectorAll(".toast-note.is-success")) setTimeout(() => note.remove(), 8000);
});
