// Copies the text of data-copy (or of the element that data-copy-from names) when its button is pressed.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy], [data-copy-from]");
  if (!button) return;
  event.preventDefault();
  const text = button.dataset.copy ?? document.querySelector(button.dataset.copyFrom).textContent.trim();
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Plain http on another host: browsers hide the clipboard there.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.classList.add("is-copied");
  const label = button.querySelector("[data-copy-label]");
  const before = label?.textContent;
  if (label) label.textContent = "Copied";
  document.getElementById("announcer").textContent = "Copied";
  setTimeout(() => {
    button.classList.remove("is-copied");
    if (label) label.textContent = before;
  }, 1500);
});
