// Opens and closes the menu on small screens, where it holds the focus until it closes; closes flash messages.
(() => {
  const isOpen = () => document.body.classList.contains("menu-open");
  const setOpen = (open) => {
    const toggle = document.querySelector(".topbar [data-menu-toggle]");
    document.body.classList.toggle("menu-open", open);
    document.querySelector(".content").inert = open;
    toggle.setAttribute("aria-expanded", String(open));
    (open ? document.querySelector(".menu a") : toggle).focus();
  };
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-menu-toggle]")) setOpen(!isOpen());
    event.target.closest("[data-dismiss-toast]")?.closest(".toast-note").remove();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && isOpen()) setOpen(false);
  });
  // On a wide screen the menu is always there, and closes nothing.
  matchMedia("(min-width: 992px)").addEventListener("change", (wide) => wide.matches && isOpen() && setOpen(false));
  document.addEventListener("DOMContentLoaded", () => {
    for (const note of document.querySelectorAll(".toast-note.is-success")) setTimeout(() => note.remove(), 8000);
  });
})();
