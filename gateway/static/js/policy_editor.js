// What stands in the policy editor, is it saved, is it sound? Asks the server after every pause; the server decides.

import { RuleList, showProblems } from "./policy_rules.js";

const CHECK_AFTER_MS = 400;
const MAX_UNDO = 100;

const data = JSON.parse(document.getElementById("editor-data").textContent);
const root = document.getElementById("policy-editor");
const buttons = { undo: document.getElementById("undo"), save: document.getElementById("save"), publish: document.getElementById("publish") };
const conflict = document.getElementById("conflict");

let form = data.form;
let base = structuredClone(form);
let revision = data.revision;
let isDirty = false;
let before = null; // the form as it was when the field with the focus was entered
let checkNumber = 0;
let timer = 0;
const history = [];

const NOTHING_TO_PUBLISH = "Nothing to publish: the draft is what is live.";

const announce = (text) => { document.getElementById("announcer").textContent = text; };

data.datalist = (field) => {
  const id = `values-${field.name}`;
  if (!document.getElementById(id)) {
    const list = document.createElement("datalist");
    list.id = id;
    list.append(...field.choices.map(([value]) => new Option(value, value)));
    document.body.append(list);
  }
  return id;
};

const remember = (state = JSON.stringify(form)) => {
  history.push(state);
  if (history.length > MAX_UNDO) history.shift();
  before = null;
  buttons.undo.disabled = false;
};

const rules = new RuleList(document.getElementById("rules"), data, { onEdit: () => edited(), onRemember: () => remember(), announce });

function show(next) {
  form = next;
  rules.show(form.rules, rules.openNames());
  for (const input of root.querySelectorAll(":scope [data-field]")) {
    if (input.closest(".rule")) continue;
    if (input.type === "checkbox") input.checked = form[input.dataset.field];
    else input.value = form[input.dataset.field];
  }
}

function edited() {
  if (before !== null && before !== JSON.stringify(form)) remember(before);
  setState(true);
  buttons.publish.disabled = false; // until the server has said what it changes
  clearTimeout(timer);
  timer = setTimeout(check, CHECK_AFTER_MS);
}

function setState(dirty, text) {
  isDirty = dirty;
  const badge = document.getElementById("draft-state");
  badge.textContent = text ?? (dirty ? "unsaved changes" : "saved");
  badge.className = `badge bg-${dirty ? "yellow" : "secondary"}-lt`;
}

async function ask(url, body) {
  const token = root.querySelector("[name=csrfmiddlewaretoken]").value;
  const response = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json", "X-CSRFToken": token, "X-Requested-With": "fetch" }, body: JSON.stringify(body) });
  const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
  if (!isJson) throw new Error(response.redirected || response.status === 403 ? "You are signed out, or may no longer edit. Sign in in another tab; your work stays here." : `The console answered ${response.status}. Your work stays here; try again.`);
  const answer = await response.json();
  if (response.status === 400) throw new Error(answer.error);
  return { status: response.status, answer };
}

function fail(text) {
  const alert = document.getElementById("failure");
  alert.hidden = !text;
  alert.textContent = text ?? "";
}

const reachable = async (act) => {
  try {
    const result = await act();
    fail(null);
    return result;
  } catch (error) {
    fail(error instanceof TypeError ? "The console cannot be reached. Your work stays here; try again." : error.message);
    return null;
  }
};

async function check() {
  const number = ++checkNumber;
  const result = await reachable(() => ask(root.dataset.check, { form }));
  if (!result || number !== checkNumber) return;
  showAnswer(result.answer);
  // What the test panel says is about the rules as they stand.
  if (document.getElementById("try-result")?.childElementCount) document.getElementById("test-form").requestSubmit();
}

function showAnswer(answer) {
  rules.showAnswer(answer);
  const places = [...root.querySelectorAll("[data-place]")].filter((place) => !place.closest(".rule"));
  const outside = answer.problems.filter(({ path }) => !path.startsWith("rules["));
  showProblems({ querySelectorAll: () => places }, outside.map((problem) => ({ ...problem, path: places.some((place) => place.dataset.place === problem.path) ? problem.path : "rules" })));
  const list = document.getElementById("changes");
  list.replaceChildren(...answer.changes.map(describe));
  if (!answer.changes.length) list.append(item(root.dataset.live ? NOTHING_TO_PUBLISH : "Nothing yet."));
  buttons.publish.disabled = Boolean(root.dataset.live) && !answer.changes.length;
  buttons.publish.title = buttons.publish.disabled ? NOTHING_TO_PUBLISH : "";
}

const item = (text, kind = "li") => {
  const element = document.createElement(kind);
  if (kind === "li") element.className = "list-group-item break-word";
  element.textContent = text;
  return element;
};

const describe = ({ rule, sentences }) => {
  const line = item("");
  if (rule) line.append(Object.assign(document.createElement("b"), { className: "d-block", textContent: rule }));
  line.append(...sentences.map((sentence) => Object.assign(document.createElement("div"), { textContent: sentence })));
  return line;
};

async function save() {
  clearTimeout(timer);
  checkNumber += 1;
  buttons.save.disabled = true;
  const sent = JSON.stringify(form);
  const result = await reachable(() => ask(root.dataset.save, { form, base, revision }));
  buttons.save.disabled = false;
  if (!result) return false;
  if (result.status === 409) { showConflict(result.answer); return false; }
  showAnswer(result.answer);
  if (result.status === 422) {
    fail("Not saved: a condition that cannot be compiled cannot be stored. The place is marked.");
    root.querySelector(".problem.text-red")?.scrollIntoView({ block: "center" });
    return false;
  }
  revision = result.answer.revision;
  base = JSON.parse(sent);
  const isSame = sent === JSON.stringify(form);
  setState(!isSame, isSame ? "saved just now" : undefined);
  announce("The draft is saved.");
  return isSame;
}

function showConflict(answer) {
  const part = (name) => conflict.querySelector(`[data-show=${name}]`);
  part("who").textContent = `${answer.edited_by || "Somebody"} saved it ${new Date(answer.edited_at).toLocaleTimeString()}, after you opened it.`;
  part("theirs").replaceChildren(...answer.their_changes.map(describe));
  part("mine").replaceChildren(...answer.my_edits.map((edit) => {
    const line = document.createElement("label");
    line.className = "form-check";
    const box = Object.assign(document.createElement("input"), { type: "checkbox", className: "form-check-input", value: edit.key, checked: true });
    const about = edit.sentences.join(" ") || `The rule is ${edit.kind}.`;
    const text = item(edit.rule ? `${edit.rule}: ${about}` : about, "span");
    text.className = "form-check-label break-word";
    line.append(box, text);
    if (edit.replaces_theirs) {
      const badge = item("would replace what they did", "span");
      badge.className = "badge bg-yellow-lt ms-1";
      text.append(" ", badge);
    }
    return line;
  }));
  conflict.showModal();
}

async function merge(chosen) {
  const result = await reachable(() => ask(root.dataset.merge, { form, base, chosen }));
  conflict.close();
  if (!result) return;
  remember();
  ({ revision, base } = result.answer);
  show(result.answer.form);
  setState(JSON.stringify(form) !== JSON.stringify(base), chosen.length ? "unsaved, on top of theirs" : "theirs");
  showAnswer(result.answer);
  announce("The draft now holds their changes. Undo brings back what you had.");
}

buttons.undo.addEventListener("click", () => {
  show(JSON.parse(history.pop()));
  buttons.undo.disabled = history.length === 0;
  before = null;
  edited();
  announce("Undone.");
});
buttons.save.addEventListener("click", save);
const leave = async (go) => {
  if (isDirty && !(await save())) return;
  isDirty = false;
  go();
};
buttons.publish.addEventListener("click", () => leave(() => location.assign(root.dataset.publish)));
// The draft that is stored is run: what stands here is stored first.
document.getElementById("backtest").addEventListener("submit", (event) => {
  event.preventDefault();
  leave(() => event.target.submit());
});
conflict.addEventListener("click", (event) => {
  const action = event.target.closest("[data-do]")?.dataset.do;
  if (action === "theirs") merge([]);
  if (action === "on-top") merge([...conflict.querySelectorAll("input:checked")].map((box) => box.value));
});
root.addEventListener("click", (event) => { if (event.target.closest("[data-do=add]")) rules.add(); });
root.addEventListener("focusin", () => { before = JSON.stringify(form); });
root.addEventListener("input", (event) => {
  const input = event.target;
  if (!input.dataset.field || input.closest(".rule")) return;
  form[input.dataset.field] = input.type === "checkbox" ? input.checked : input.value;
  edited();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "s" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); save(); }
});
addEventListener("beforeunload", (event) => { if (isDirty) event.preventDefault(); });
// The test panel decides against what stands here, saved or not.
document.addEventListener("htmx:configRequest", (event) => {
  if (event.target.id === "test-form") event.detail.parameters.set("form", JSON.stringify(form));
});

const baseline = root.querySelector("[data-field=baseline]");
baseline.append(new Option("none", ""), ...[...new Set([...data.models, form.baseline].filter(Boolean))].map((name) => new Option(name, name)));
show(form);
showAnswer(data);
fetch(root.dataset.traffic).then((response) => response.json()).then(({ shares }) => rules.showShares(shares), () => { /* it is an extra */ });
