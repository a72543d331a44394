// Opens <dialog> elements; a form with data-confirm-name stays disabled until that name is typed.
(() => {
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-open-dialog]");
    if (opener) document.querySelector(opener.dataset.openDialog)?.showModal();
    const closer = event.target.closest("[data-close-dialog]");
    if (closer) closer.closest("dialog").close();
    if (event.target.matches("dialog")) event.target.close();
  });
  document.addEventListener("input", (event) => {
    const form = event.target.closest("form[data-confirm-name]");
    if (!form || event.target.name !== "confirm_name") return;
    form.querySelector("[type=submit]").disabled = event.target.value.trim() !== form.dataset.confirmName;
  });
  document.addEventListener("DOMContentLoaded", () => {
    for (const form of document.querySelectorAll("form[data-confirm-name]")) {
      form.querySelector("[type=submit]").disabled = true;
    }
    document.querySelector("dialog[data-open-now]")?.showModal();
  });
})();
