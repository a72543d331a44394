// How are a policy's rules listed, ordered and edited? Works on the array `form.rules`; every change calls `onEdit`.
// Before a change of structure `onRemember` is called, so that it can be undone.

import { ConditionEditor, clone, fillSelect } from "./condition_editor.js";

// While a rule is dragged so near to the edge of the window, the page scrolls by that at each move.
const EDGE_PX = 70;
const SCROLL_PX = 14;
const NUMBERS = new Set(["quality_floor", "max_attempts", "timeout_s", "slider"]);
const AUTO_DEFAULTS = { slider: 5, quality_floor: null, check_answers: false };

export class RuleList {
  // data: what the server sent; hooks: {onEdit, onRemember, announce}.
  constructor(list, data, hooks) {
    Object.assign(this, { list, data, ...hooks, rules: [], shares: {}, cards: new Map(), open: new WeakSet(), dragged: null });
    this.deployments = new Map(data.deployments.map((deployment) => [deployment.name, deployment]));
    // Pointer events, not the browser's own dragging: that one knows no touch.
    list.addEventListener("pointerdown", (event) => this.onDragStart(event));
    list.addEventListener("pointermove", (event) => this.onDragMove(event));
    list.addEventListener("pointerup", () => this.onDragEnd());
    list.addEventListener("pointercancel", () => this.putBack());
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") this.putBack(); });
  }

  show(rules, openNames = new Set()) {
    this.rules = rules;
    this.cards.clear();
    for (const rule of rules) if (openNames.has(rule.name)) this.open.add(rule);
    this.list.replaceChildren(...rules.map((rule) => this.card(rule)));
    this.refresh();
  }

  openNames() { return new Set(this.rules.filter((rule) => this.open.has(rule)).map((rule) => rule.name)); }

  showShares(shares) {
    this.shares = shares;
    this.refresh();
  }

  refresh() {
    this.rules.forEach((rule, index) => this.showHead(rule, index));
    document.getElementById("no-rules").hidden = this.rules.length > 0;
  }

  card(rule) {
    const element = clone("rule-template");
    const card = { element, rule };
    this.cards.set(rule, card);
    element.rule = rule;
    for (const input of element.querySelectorAll("[data-field]")) this.bind(input, rule);
    card.condition = new ConditionEditor(element.querySelector(".condition"), rule, this.data, () => this.edited(rule));
    for (const name of ["deployments", "fallbacks"]) {
      this.showChoices(rule, name);
      element.querySelector(`[data-add=${name}]`).addEventListener("change", (event) => this.addChoice(rule, name, event.target));
    }
    element.addEventListener("click", (event) => this.onClick(event, rule));
    this.showStrategy(rule);
    this.toggle(rule, this.open.has(rule));
    return element;
  }

  bind(input, rule) {
    const name = input.dataset.field;
    if (name === "strategy") fillSelect(input, Object.entries(this.data.strategies).map(([code, { title }]) => [code, title]), rule.strategy);
    else if (input.type === "checkbox") input.checked = rule[name] ?? false;
    else input.value = rule[name] ?? (name === "slider" ? AUTO_DEFAULTS.slider : "");
    input.addEventListener("input", () => {
      if (input.type === "checkbox") rule[name] = input.checked;
      else if (NUMBERS.has(name)) rule[name] = input.value === "" ? null : Number(input.value);
      else rule[name] = input.value;
      if (name === "strategy" || name === "slider") this.showStrategy(rule);
      this.edited(rule);
    });
  }

  edited(rule) {
    this.showHead(rule, this.rules.indexOf(rule));
    this.onEdit();
  }

  showHead(rule, index) {
    const { element } = this.cards.get(rule);
    const show = (name) => element.querySelector(`.rule-head [data-show=${name}]`);
    const title = rule.name || "a rule without a name";
    show("number").textContent = index + 1;
    show("name").textContent = title;
    show("off").hidden = rule.is_enabled;
    show("when").textContent = rule.when || "always";
    show("strategy").textContent = this.data.strategies[rule.strategy]?.title.toLowerCase() + (rule.strategy === "auto" ? ` · ${rule.slider ?? 5}` : "");
    show("targets").textContent = this.targets(rule);
    const share = this.shares[rule.name];
    show("traffic").textContent = share === undefined ? "" : `${(100 * share).toFixed(1)} %`;
    show("traffic").title = share === undefined ? "" : "of the requests of the last 24 hours, by the rules that were live";
    for (const button of element.querySelectorAll(".rule-head [data-do]")) {
      const action = button.dataset.do;
      if (action === "up") button.disabled = index === 0;
      if (action === "down") button.disabled = index === this.rules.length - 1;
      if (action !== "toggle") button.setAttribute("aria-label", `${button.title}: ${title}`);
    }
  }

  targets(rule) {
    const names = rule.deployments.map(({ name }) => name).filter(Boolean);
    if (!names.length) return "no deployment";
    const listed = names.length > 3 ? `${names.slice(0, 2).join(", ")} and ${names.length - 2} more` : names.join(rule.strategy === "priority" ? " → " : ", ");
    return rule.fallbacks.length ? `${listed}, then ${rule.fallbacks.length} fallback${rule.fallbacks.length > 1 ? "s" : ""}` : listed;
  }

  showStrategy(rule) {
    const { element } = this.cards.get(rule);
    const isAuto = rule.strategy === "auto";
    if (isAuto) for (const [name, value] of Object.entries(AUTO_DEFAULTS)) rule[name] ??= value;
    element.querySelector("[data-part=auto]").hidden = !isAuto;
    element.querySelector("[data-show=about]").textContent = this.data.strategies[rule.strategy]?.about ?? "";
    element.querySelector("[data-show=slider]").textContent = rule.slider ?? "";
    element.querySelector("[data-field=slider]").setAttribute("aria-valuetext", `${rule.slider} of 10 towards cost`);
    element.querySelector("[data-show=deployments-label]").textContent = rule.strategy === "priority" ? "Deployments, in this order" : "Deployments";
    this.showChoices(rule, "deployments");
  }

  // The ordered lists of deployments and fallbacks.
  showChoices(rule, name) {
    const { element } = this.cards.get(rule);
    const isWeighted = name === "deployments" && rule.strategy === "weighted";
    const total = rule.deployments.reduce((sum, { weight }) => sum + (Number(weight) || 0), 0);
    const list = element.querySelector(`[data-list=${name}]`);
    list.replaceChildren(...rule[name].map((entry, index) => {
      const item = clone("choice-template");
      const chosen = name === "deployments" ? entry.name : entry;
      item.querySelector(".choice-problem").dataset.place = `${name}[${index}]`;
      const select = item.querySelector("select");
      fillSelect(select, this.options(chosen), chosen);
      select.addEventListener("change", () => {
        if (name === "deployments") entry.name = select.value; else rule[name][index] = select.value;
        this.edited(rule);
      });
      const weight = item.querySelector(".choice-weight");
      weight.hidden = !isWeighted;
      item.querySelector(".choice-share").textContent = isWeighted && total ? `${Math.round((100 * (Number(entry.weight) || 0)) / total)} %` : "";
      weight.value = entry.weight ?? 1;
      weight.addEventListener("input", () => { entry.weight = weight.value === "" ? null : Number(weight.value); this.showWeightShares(rule); this.edited(rule); });
      const move = (action, to) => item.querySelector(`[data-do=choice-${action}]`).addEventListener("click", () => this.moveChoice(rule, name, index, to));
      move("up", index - 1);
      move("down", index + 1);
      move("remove", null);
      item.querySelector("[data-do=choice-up]").disabled = index === 0;
      item.querySelector("[data-do=choice-down]").disabled = index === rule[name].length - 1;
      for (const button of item.querySelectorAll("button")) button.setAttribute("aria-label", `${button.title}: ${chosen}`);
      return item;
    }));
    const used = new Set([...rule.deployments.map((entry) => entry.name), ...rule.fallbacks]);
    const free = this.data.deployments.filter((deployment) => !used.has(deployment.name));
    fillSelect(element.querySelector(`[data-add=${name}]`), [["", free.length ? `Add a ${name === "deployments" ? "deployment" : "fallback"}…` : "All deployments are in use here"], ...free.map((deployment) => [deployment.name, label(deployment)])], "");
  }

  showWeightShares(rule) {
    const total = rule.deployments.reduce((sum, { weight }) => sum + (Number(weight) || 0), 0);
    this.cards.get(rule).element.querySelectorAll("[data-list=deployments] .choice-share").forEach((share, index) => {
      share.textContent = total ? `${Math.round((100 * (Number(rule.deployments[index].weight) || 0)) / total)} %` : "";
    });
  }

  options(chosen) {
    const listed = this.data.deployments.map((deployment) => [deployment.name, label(deployment)]);
    return this.deployments.has(chosen) ? listed : [[chosen, `${chosen || "none"} (missing)`], ...listed];
  }

  addChoice(rule, name, select) {
    if (!select.value) return;
    this.onRemember();
    rule[name].push(name === "deployments" ? { name: select.value, weight: 1 } : select.value);
    this.showBothChoices(rule);
    select.focus();
    this.edited(rule);
  }

  moveChoice(rule, name, from, to) {
    this.onRemember();
    const [entry] = rule[name].splice(from, 1);
    if (to !== null) rule[name].splice(to, 0, entry);
    this.showBothChoices(rule);
    const { element } = this.cards.get(rule);
    const items = element.querySelectorAll(`[data-list=${name}] > li`);
    const button = to === null ? null : items[to].querySelector(`[data-do=choice-${to < from ? "up" : "down"}]:enabled`) ?? items[to].querySelector("button:enabled");
    (button ?? element.querySelector(`[data-add=${name}]`)).focus();
    this.edited(rule);
  }

  showBothChoices(rule) {
    this.showChoices(rule, "deployments");
    this.showChoices(rule, "fallbacks");
  }

  // Order, copies, removal.
  onClick(event, rule) {
    const action = event.target.closest("[data-do]")?.dataset.do;
    const index = this.rules.indexOf(rule);
    if (action === "toggle") this.toggle(rule, !this.open.has(rule));
    else if (action === "up") this.move(rule, index - 1, "up");
    else if (action === "down") this.move(rule, index + 1, "down");
    else if (action === "duplicate") this.insert({ ...structuredClone(rule), name: this.freeName(rule.name) }, index + 1);
    else if (action === "remove") this.remove(rule);
  }

  toggle(rule, isOpen) {
    const { element } = this.cards.get(rule);
    if (isOpen) this.open.add(rule); else this.open.delete(rule);
    element.querySelector(".rule-body").hidden = !isOpen;
    element.classList.toggle("is-open", isOpen);
    element.querySelector("[data-do=toggle]").setAttribute("aria-expanded", String(isOpen));
  }

  add() {
    this.insert({ ...structuredClone(this.data.blank), name: this.freeName("New rule") }, this.rules.length);
  }

  insert(rule, index) {
    this.onRemember();
    this.rules.splice(index, 0, rule);
    this.open.add(rule);
    const element = this.card(rule);
    this.list.insertBefore(element, this.list.children[index] ?? null);
    this.refresh();
    const name = element.querySelector("[data-field=name]");
    name.focus();
    name.select();
    this.onEdit();
  }

  remove(rule) {
    this.onRemember();
    const index = this.rules.indexOf(rule);
    this.rules.splice(index, 1);
    this.cards.get(rule).element.remove();
    this.cards.delete(rule);
    this.refresh();
    this.announce(`${rule.name} is removed. Undo brings it back.`);
    (this.list.children[Math.min(index, this.rules.length - 1)]?.querySelector("[data-do=toggle]") ?? document.querySelector("[data-do=add]")).focus();
    this.onEdit();
  }

  move(rule, to, action) {
    this.onRemember();
    this.rules.splice(this.rules.indexOf(rule), 1);
    this.rules.splice(to, 0, rule);
    const { element } = this.cards.get(rule);
    element.remove();
    this.list.insertBefore(element, this.list.children[to] ?? null);
    this.refresh();
    if (action) (element.querySelector(`.rule-head [data-do=${action}]:enabled`) ?? element.querySelector("[data-do=toggle]")).focus();
    this.announce(`${rule.name} is rule ${to + 1} of ${this.rules.length}.`);
    this.onEdit();
  }

  freeName(name) {
    const taken = new Set(this.rules.map((rule) => rule.name));
    const stem = name.replace(/ \d+$/, "");
    for (let number = 2, found = name; ; number += 1) {
      if (!taken.has(found)) return found;
      found = `${stem} ${number}`;
    }
  }

  onDragStart(event) {
    if (event.button !== 0 || !event.isPrimary || !event.target.closest(".rule-grip")) return;
    event.preventDefault(); // no text is selected meanwhile
    this.dragged = event.target.closest(".rule");
    this.list.setPointerCapture(event.pointerId); // the list stays where it is, the rule does not
    this.dragged.classList.add("is-dragged");
  }

  onDragMove(event) {
    if (!this.dragged) return;
    if (event.clientY < EDGE_PX) scrollBy(0, -SCROLL_PX);
    else if (event.clientY > innerHeight - EDGE_PX) scrollBy(0, SCROLL_PX);
    // Only the height counts: above the list is its beginning, below it its end.
    const box = this.list.getBoundingClientRect();
    const y = Math.min(Math.max(event.clientY, box.top + 2), box.bottom - 2);
    const over = document.elementFromPoint(box.left + box.width / 2, y)?.closest(".rule");
    if (!over || over === this.dragged) return;
    const { top, height } = over.getBoundingClientRect();
    this.list.insertBefore(this.dragged, y > top + height / 2 ? over.nextElementSibling : over);
  }

  letGo() {
    const element = this.dragged;
    this.dragged = null;
    element?.classList.remove("is-dragged");
    return element;
  }

  putBack() {
    if (this.letGo()) this.list.append(...this.rules.map((rule) => this.cards.get(rule).element));
  }

  onDragEnd() {
    const element = this.letGo();
    if (!element) return;
    const to = [...this.list.children].indexOf(element);
    if (to !== this.rules.indexOf(element.rule)) this.move(element.rule, to, "");
  }

  // What the server found, at its place; what has no place of its own stands at the nearest around it.
  showAnswer({ problems, conditions }) {
    conditions.forEach((condition, index) => {
      const card = this.cards.get(this.rules[index]);
      card?.condition.showAnswer(condition);
      if (card) this.showHead(card.rule, index);
    });
    this.rules.forEach((rule, index) => {
      const { element, condition } = this.cards.get(rule);
      const own = problems.filter(({ path }) => path === `rules[${index}]` || path.startsWith(`rules[${index}].`));
      showProblems(element, own.map((problem) => ({ ...problem, path: problem.path.replace(/^rules\[\d+\]\.?/, "") })));
      condition.showColumn(own.find(({ path, column }) => path.endsWith(".when") && column)?.column);
      const errors = own.filter(({ severity }) => severity === "error").length;
      const count = element.querySelector("[data-show=count]");
      count.hidden = !own.length;
      count.className = `badge bg-${errors ? "red" : "yellow"}-lt`;
      count.textContent = errors ? `${errors} error${errors > 1 ? "s" : ""}` : `${own.length} warning${own.length > 1 ? "s" : ""}`;
    });
  }
}

export const showProblems = (root, problems) => {
  const places = new Map([...root.querySelectorAll("[data-place]")].map((place) => [place.dataset.place, place]));
  for (const place of places.values()) {
    if (place.matches(".condition-group")) continue;
    place.replaceChildren();
    place.hidden = true;
  }
  for (const { path, message, severity } of problems) {
    let at = path;
    while (at && (!places.has(at) || places.get(at).matches(".condition-group"))) at = at.replace(/(^|\.)[^.[\]]+$|\[\d+\]$/, "");
    const place = places.get(at);
    if (!place) continue;
    const line = document.createElement("span");
    line.className = `problem text-${severity === "error" ? "red" : "yellow"} small`;
    line.textContent = `${severity === "error" ? "Error" : "Warning"}: ${message}`;
    place.append(line);
    place.hidden = false;
  }
};

const label = ({ name, model, provider, is_enabled }) => `${name} (${model} at ${provider}${is_enabled ? "" : ", disabled"})`;
