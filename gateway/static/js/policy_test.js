// The test panel: a logged request needs no pasted one.
document.addEventListener("change", (event) => {
  const part = event.target.dataset.switches;
  if (part) document.querySelector(part).hidden = event.target.value !== "";
});
