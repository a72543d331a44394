// How is one rule's condition edited: as rows, or as CEL text? Works on `rule.group` (null: as text) and `rule.when`.
// The server compiles and reads; its answers come through `showAnswer`. Rows and groups hold their values as JSON.

const BLANK_ROW = { field: "has_images", operator: "is", value: true };
const VALUELESS = new Set(["has", "has_not"]);
let count = 0;

export const clone = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

export const fillSelect = (select, options, chosen) => {
  select.replaceChildren(...options.map(([value, label]) => new Option(label, value, false, String(value) === String(chosen))));
};

export class ConditionEditor {
  // catalog: {fields, operators, features}; onEdit(): the rule was changed.
  constructor(element, rule, catalog, onEdit) {
    Object.assign(this, { element, rule, catalog, onEdit, readable: rule.group });
    this.text = element.querySelector("textarea");
    this.list = element.querySelector(".completions");
    this.list.id = `completions-${++count}`;
    this.text.setAttribute("aria-controls", this.list.id);
    this.fields = new Map(catalog.fields.map((field) => [field.name, field]));
    element.addEventListener("click", (event) => this.onClick(event));
    this.text.addEventListener("input", () => this.onText());
    this.text.addEventListener("keydown", (event) => this.onKey(event));
    this.text.addEventListener("blur", () => this.complete([]));
    this.list.addEventListener("mousedown", (event) => {
      event.preventDefault(); // the text keeps the focus
      const option = event.target.closest("[role=option]");
      if (option) this.accept(option.textContent);
    });
    this.show();
  }

  part(name) { return this.element.querySelector(`:scope > [data-part=${name}]`); }

  show() {
    const isRows = Boolean(this.rule.group);
    for (const button of this.element.querySelectorAll("[data-mode]")) {
      const isChosen = (button.dataset.mode === "rows") === isRows;
      button.classList.toggle("active", isChosen);
      button.setAttribute("aria-pressed", String(isChosen));
    }
    this.part("rows").hidden = !isRows;
    this.part("text").hidden = isRows;
    this.element.querySelector("[data-show=mode-note]").textContent = "";
    if (isRows) {
      this.part("rows").replaceChildren(this.groupElement(this.rule.group, null, "when"));
    } else if (this.text.value !== this.rule.when) {
      this.text.value = this.rule.when;
    }
    this.showCompiled();
  }

  showCompiled() {
    const compiled = this.part("compiled");
    compiled.replaceChildren();
    if (!this.rule.group) return;
    if (!this.rule.group.rows.length) compiled.textContent = "Without a condition the rule matches always.";
    if (!this.rule.when) return;
    const code = document.createElement("code");
    code.className = "break-word";
    code.textContent = this.rule.when;
    compiled.append("As CEL: ", code);
  }

  showAnswer({ when, group }) {
    if (this.rule.group) {
      this.rule.when = when;
      this.showCompiled();
    } else if (when === this.rule.when.trim()) {
      this.readable = group;
    }
  }

  // A problem with a column points into the text.
  showColumn(column) {
    const mark = this.element.querySelector(".column-mark");
    mark.hidden = !column || Boolean(this.rule.group);
    if (mark.hidden) return;
    const at = column - 1, from = Math.max(0, at - 30), text = this.rule.when;
    const found = document.createElement("mark");
    found.textContent = text.slice(at, at + 1) || " ";
    mark.replaceChildren(`column ${column}: ${from ? "…" : ""}${text.slice(from, at)}`, found, text.slice(at + 1, at + 30));
  }

  onClick(event) {
    const mode = event.target.closest("[data-mode]")?.dataset.mode;
    if (mode === "text" && this.rule.group) {
      this.readable = this.rule.group;
      this.rule.group = null;
      this.show();
      this.text.focus();
      this.onEdit();
    } else if (mode === "rows" && !this.rule.group) {
      if (this.readable) {
        this.rule.group = structuredClone(this.readable);
        this.show();
        this.onEdit();
      } else {
        this.element.querySelector("[data-show=mode-note]").textContent = "This text says more than rows can.";
      }
    }
  }

  // Rows and groups. Each element knows its part of `rule.group` by closure.
  groupElement(group, parent, path) {
    const element = clone("group-template");
    const join = element.querySelector(".condition-join select");
    join.value = group.join;
    join.addEventListener("change", () => { group.join = join.value; this.onEdit(); });
    element.querySelector(".condition-join").hidden = group.rows.length < 2;
    const rows = element.querySelector(".condition-rows");
    group.rows.forEach((row, index) => {
      const place = `${path}.rows[${index}]`;
      rows.append(row.rows ? this.groupElement(row, group, place) : this.rowElement(row, group, place));
    });
    const button = (name) => element.querySelector(`:scope > .btn-list > [data-do=${name}]`);
    button("row-add").addEventListener("click", () => this.change(() => group.rows.push({ ...BLANK_ROW }), group, group.rows.length));
    button("group-add").hidden = Boolean(parent);
    button("group-add").addEventListener("click", () => this.change(() => group.rows.push({ join: group.join === "or" ? "and" : "or", rows: [{ ...BLANK_ROW }, { ...BLANK_ROW, field: "has_files" }] })));
    button("group-remove").hidden = !parent;
    button("group-remove").addEventListener("click", () => this.change(() => parent.rows.splice(parent.rows.indexOf(group), 1)));
    if (parent) element.dataset.place = path;
    element.group = group;
    return element;
  }

  rowElement(row, group, path) {
    const element = clone("row-template");
    element.dataset.row = path;
    element.querySelector(".row-problem").dataset.place = path;
    const part = (name) => element.querySelector(`[data-part=${name}]`);
    const isTag = row.field.startsWith("tags");
    const field = this.fields.get(isTag ? "tags" : row.field);
    fillSelect(part("field"), this.catalog.fields.map(({ name, label }) => [name, label]), isTag ? "tags" : row.field);
    fillSelect(part("operator"), field.operators.map((code) => [code, this.catalog.operators[code]]), row.operator);
    part("tag").hidden = !isTag;
    part("tag").value = isTag ? row.field.slice(5) : "";
    part("operator").hidden = field.operators.length === 1;
    part("field").addEventListener("change", (event) => this.change(() => {
      const chosen = this.fields.get(event.target.value);
      row.field = chosen.name === "tags" ? "tags." : chosen.name;
      row.operator = chosen.operators[0];
      row.value = blankValue(chosen, row.operator);
    }, group, group.rows.indexOf(row), "field"));
    part("operator").addEventListener("change", (event) => this.change(() => {
      row.operator = event.target.value;
      row.value = fitValue(row.value, field, row.operator);
    }, group, group.rows.indexOf(row), "operator"));
    part("tag").addEventListener("input", (event) => { row.field = `tags.${event.target.value.trim()}`; this.onEdit(); });
    element.querySelector("[data-do=row-remove]").addEventListener("click", () => this.change(() => group.rows.splice(group.rows.indexOf(row), 1)));
    part("value").append(...this.valueInputs(row, field));
    return element;
  }

  valueInputs(row, field) {
    if (VALUELESS.has(row.operator)) return [];
    const set = (value) => { row.value = value; this.onEdit(); };
    if (row.operator === "between") {
      return ["From", "To"].map((label, index) => this.oneInput(field, row.value[index], label, (value) => { row.value[index] = value; this.onEdit(); }));
    }
    if (row.operator === "is_one_of") {
      const label = field.kind === "weekday" ? "Weekdays, by number from 1 (Monday)" : "Values, separated by commas";
      const input = textInput(label, writeList(row.value ?? []), (text) => set(readList(text, field.kind === "weekday")));
      input.placeholder = field.kind === "weekday" ? "1, 2, 3" : "one, another";
      return [input];
    }
    return [this.oneInput(field, row.value, "Value", set)];
  }

  oneInput(field, value, label, set) {
    if (field.kind === "yes/no" || field.kind === "choice" || field.kind === "weekday") {
      const choices = field.kind === "yes/no" ? [[true, "yes"], [false, "no"]] : field.choices;
      const select = document.createElement("select");
      select.className = "form-select form-select-sm";
      select.setAttribute("aria-label", label);
      fillSelect(select, choices, value);
      select.addEventListener("change", () => set(choices[select.selectedIndex][0]));
      return select;
    }
    if (field.kind !== "number") {
      const input = textInput(label, value ?? "", set);
      if (field.choices.length) input.setAttribute("list", this.catalog.datalist(field));
      return input;
    }
    const input = textInput(label, value ?? "", (text) => set(text === "" ? null : Number(text)));
    Object.assign(input, { type: "number", min: "0", step: field.is_fraction ? "0.01" : "1" });
    input.classList.add("num");
    return input;
  }

  // Changes the rows, draws them anew and keeps the keyboard where it was.
  change(act, group, index, part = "field") {
    act();
    this.show();
    this.onEdit();
    const element = group && [...this.element.querySelectorAll(".condition-group")].find((one) => one.group === group);
    (element?.querySelectorAll(":scope > .condition-rows > *")[index]?.querySelector(`[data-part=${part}]`) ?? this.element.querySelector("[data-do=row-add]"))?.focus();
  }

  // Text with completion of the features' names.
  onText() {
    this.rule.when = this.text.value;
    this.readable = null;
    const word = this.wordBefore();
    this.complete(word.length ? this.catalog.features.filter((name) => name.startsWith(word) && name !== word).slice(0, 8) : []);
    this.onEdit();
  }

  wordBefore() {
    const text = this.text.value.slice(0, this.text.selectionStart);
    return /(?:^|[^\w."'])([A-Za-z_]\w*)$/.exec(text)?.[1] ?? "";
  }

  complete(names) {
    this.list.hidden = !names.length;
    this.list.replaceChildren(...names.map((name, index) => {
      const option = document.createElement("li");
      option.id = `${this.list.id}-${index}`;
      option.setAttribute("role", "option");
      option.textContent = name;
      return option;
    }));
    this.choose(0);
  }

  choose(index) {
    [...this.list.children].forEach((option, at) => option.setAttribute("aria-selected", String(at === index)));
    if (this.list.children.length) this.text.setAttribute("aria-activedescendant", this.list.children[index].id);
    else this.text.removeAttribute("aria-activedescendant");
  }

  accept(name) {
    const word = this.wordBefore();
    this.text.setRangeText(name.slice(word.length), this.text.selectionStart, this.text.selectionStart, "end");
    this.onText();
  }

  onKey(event) {
    const options = [...this.list.children];
    if (!options.length) return;
    const at = options.findIndex((option) => option.getAttribute("aria-selected") === "true");
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      this.choose((at + step + options.length) % options.length);
    } else if (event.key === "Enter" || event.key === "Tab") {
      this.accept(options[at].textContent);
      this.complete([]);
    } else if (event.key === "Escape") {
      this.complete([]);
    } else {
      return;
    }
    event.preventDefault();
  }
}

const textInput = (label, value, set) => {
  const input = document.createElement("input");
  input.className = "form-control form-control-sm";
  input.value = value;
  input.autocomplete = "off";
  input.setAttribute("aria-label", label);
  input.addEventListener("input", () => set(input.value));
  return input;
};

// Values with a comma are written as a JSON list.
const writeList = (values) => (values.some((value) => /^\[|,/.test(value)) ? JSON.stringify(values) : values.join(", "));

const readList = (text, areNumbers) => {
  let values = null;
  if (text.trim().startsWith("[")) {
    try { values = JSON.parse(text).map(String); } catch { /* not finished yet */ }
  }
  values ??= text.split(",").map((part) => part.trim()).filter(Boolean);
  return areNumbers ? values.map(Number) : values;
};

const blankValue = (field, operator) => {
  if (VALUELESS.has(operator)) return null;
  if (field.kind === "yes/no") return true;
  if (field.kind === "number") return null;
  return field.kind === "weekday" || field.kind === "choice" ? field.choices[0][0] : "";
};

// A value that still fits stays when the comparison changes.
const fitValue = (value, field, operator) => {
  const first = Array.isArray(value) ? value[0] : value;
  const one = first ?? blankValue(field, "is");
  if (VALUELESS.has(operator)) return null;
  if (operator === "between") return Array.isArray(value) && value.length === 2 ? value : [one, one];
  if (operator === "is_one_of") return Array.isArray(value) ? value : [one].filter((item) => item !== "");
  return one;
};
