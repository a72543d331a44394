// Keyboard: / focuses the search field, ? shows the list of shortcuts, g + letter opens a page.
(() => {
  let waitsForPage = false;
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, textarea, select, [contenteditable], dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (waitsForPage) {
      waitsForPage = false;
      const link = document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
      if (link) { event.preventDefault(); link.click(); }
    } else if (event.key === "/") {
      const field = [...document.querySelectorAll("[data-search]")].find((f) => f.offsetParent) ?? null;
      if (field) { event.preventDefault(); field.focus(); field.select(); }
    } else if (event.key === "?") {
      event.preventDefault();
      document.getElementById("shortcuts")?.showModal();
    } else if (event.key === "g") {
      waitsForPage = true;
      setTimeout(() => { waitsForPage = false; }, 1200);
    }
  });
})();
