// The naming page. All steps are made by the server, which answers with how things are then;
// whatever comes from the model is put into the page as text.
"use strict";

const UNLABELLED = 255;
const $ = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 720px)");
let about, state, order, chosen;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const percent = (share) => (share > 0 && share < 0.001 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`);
const hex = (color) => "#" + color.map((part) => part.toString(16).padStart(2, "0")).join("");
const served = (cluster) => state.clusters[cluster].served;
const isUnknown = (cluster) => served(cluster) === UNLABELLED;
const classes = () => state.clusters.map((_, index) => index).filter((index) => served(index) === index);
const nameOf = (cluster) => (isUnknown(cluster) ? "unknown" : state.clusters[served(cluster)].name);
const hasName = (cluster) => isUnknown(cluster) || !/^cluster \d+$/.test(nameOf(cluster));

function chip(cluster) {
  const made = element("span", { className: "chip" });
  if (!isUnknown(cluster)) made.style.backgroundColor = hex(state.clusters[served(cluster)].color);
  return made;
}

function thumb(cluster) {
  const made = element("span", { className: "thumb" });
  const count = about.clusters.length;
  made.style.backgroundImage = "url(thumbs.jpg)";
  made.style.backgroundSize = `100% ${100 * count}%`;
  made.style.backgroundPosition = `0 ${(100 * cluster) / Math.max(count - 1, 1)}%`;
  return made;
}

// --- what the server is asked ------------------------------------------------------------------

function say(text, alarm = false) {
  $("status").textContent = text;
  $("status").classList.toggle("alarm", alarm);
}

async function ask(request, done) {
  let answer;
  try {
    const response = await fetch("edit", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(request),
    });
    answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
  } catch (error) {
    const gone = error instanceof TypeError;
    say(gone ? "The server does not answer: is unim2 name still running?" : error.message, true);
    return false;
  }
  state = answer;
  say(done);
  render();
  return true;
}

const undo = () => ask({ do: "undo" }, "Undone.");
const redo = () => ask({ do: "redo" }, "Done again.");
const markUnknown = () => ask({ do: "unknown", cluster: chosen }, `Cluster ${chosen} is unknown.`);
const part = () => ask({ do: "separate", cluster: chosen }, `Cluster ${chosen} is a class of its own.`);
const save = async () => {
  if (!state.changed) return say("Everything is saved.");
  if (await ask({ do: "save" }, "Saved.")) say(`Saved as version ${state.version}.`);
};

async function nameIt(name) {
  const other = classes().find((index) => state.clusters[index].name === name.trim());
  const merges = other !== undefined && other !== served(chosen);
  const done = merges ? `Cluster ${chosen} is ${name}, as cluster ${other}.` : `Cluster ${chosen} is ${name}.`;
  return ask({ do: "name", cluster: chosen, name }, done);
}

// --- the list and the chosen cluster -----------------------------------------------------------

function render() {
  const named = order.filter(hasName).length;
  const unknown = order.filter(isUnknown).length;
  $("progress").textContent =
    `${named} of ${order.length} clusters named, ${classes().length} classes` +
    (unknown ? `, ${unknown} unknown` : "") + (state.changed ? " · not saved" : "");
  $("undo").disabled = !state.can_undo;
  $("redo").disabled = !state.can_redo;
  $("save").disabled = !state.changed;
  renderList();
  renderChosen();
}

function renderList() {
  for (const [place, cluster] of order.entries()) {
    const button = $("list").children[place].firstChild;
    button.className = isUnknown(cluster) ? "unknown" : "";
    button.setAttribute("aria-current", String(cluster === chosen));
    button.querySelector(".chip").replaceWith(chip(cluster));
    button.querySelector(".text").textContent = nameOf(cluster);
    const away = served(cluster) !== cluster && !isUnknown(cluster);
    const number = hasName(cluster) || away ? `cluster ${cluster}${away ? ` in ${served(cluster)}` : ""}, ` : "";
    button.querySelector(".own").textContent = number + percent(about.clusters[cluster].share);
  }
}

function makeList() {
  $("list").replaceChildren(...order.map((cluster) => {
    const title = element("span", { className: "title" }, chip(cluster), element("span", { className: "text" }));
    const button = element(
      "button", { type: "button", onclick: () => choose(cluster) },
      thumb(cluster), title,
      element("span", { className: "own" }),
    );
    return element("li", {}, button);
  }));
}

function renderChosen() {
  const facts = about.clusters[chosen];
  const members = order.filter((other) => !isUnknown(chosen) && served(other) === served(chosen));
  if (document.activeElement !== $("name")) $("name").value = isUnknown(chosen) ? "" : nameOf(chosen);
  $("name").placeholder = isUnknown(chosen) ? "unknown" : "What is this?";
  $("color").disabled = isUnknown(chosen);
  if (!isUnknown(chosen)) $("color").value = hex(state.clusters[served(chosen)].color);
  $("separate").disabled = members.length === 1;
  $("unknown").disabled = isUnknown(chosen);
  $("names").replaceChildren(...classes().filter(hasName).map((index) =>
    element("option", { value: state.clusters[index].name })));
  const others = members.filter((other) => other !== chosen);
  $("facts").textContent =
    `Cluster ${chosen}: ${percent(facts.share)} of what was seen, in ${facts.pictures} pictures; ` +
    `the model is ${(100 * facts.confidence).toFixed(0)} % sure of it on average.` +
    (others.length ? ` One class with ${others.map((other) => `cluster ${other}`).join(", ")}.` : "");
  renderHint(facts.hint);
  renderRelations(facts);
}

function renderHint(hint) {
  $("hint").hidden = !hint || nameOf(chosen) === hint.name;
  if (!hint) return;
  const why = hint.assigned ? "the labels suggest" : "most of its labels are";
  $("hint-text").textContent = `${why[0].toUpperCase()}${why.slice(1)} ${hint.name} (${percent(hint.share)} of it).`;
}

function relation(title, entries, form) {
  const items = entries.map(({ cluster, value }) => element("li", {}, element(
    "button", { type: "button", onclick: () => choose(cluster), title: `Look at cluster ${cluster}` },
    thumb(cluster), chip(cluster), element("span", { className: "text", textContent: nameOf(cluster) }),
    element("span", { className: "value", textContent: form(value) }),
  )));
  return element("div", {}, element("h3", { textContent: title }), element("ul", {}, ...items));
}

function renderRelations(facts) {
  const focused = document.activeElement.closest("#relations") !== null;
  const parts = [];
  const merges = facts.merges.filter(({ cluster }) => isUnknown(cluster) || served(cluster) !== served(chosen));
  if (merges.length) parts.push(relation("Perhaps one class with", merges.slice(0, 4), (value) => value.toFixed(2)));
  if (facts.alike.length) parts.push(relation("Looks like (cosine)", facts.alike, (value) => value.toFixed(2)));
  if (facts.touching.length) parts.push(relation("Touches (share of its border)", facts.touching, percent));
  $("relations").replaceChildren(...parts);
  if (focused) $("detail").focus();
}

function gallery(kind, title) {
  const columns = about.clusters[chosen].columns[kind];
  if (!columns) return null;
  const rows = about.modalities.length;
  const blank = Array.from({ length: 6 - columns }, () => element("span"));
  const tiles = about.modalities.flatMap((modality, row) => [
    element("span", { className: "row", textContent: modality }),
    ...Array.from({ length: columns }, (_, column) => {
      const tile = element("div", { className: "tile", role: "img" });
      tile.setAttribute("aria-label", `${modality}, crop ${column + 1}`);
      tile.style.backgroundImage = `url(${chosen}-${kind}.jpg)`;
      tile.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
      tile.style.backgroundPosition =
        `${(100 * column) / Math.max(columns - 1, 1)}% ${(100 * row) / Math.max(rows - 1, 1)}%`;
      return tile;
    }),
    ...blank.map((span) => span.cloneNode()),
  ]);
  return element("figure", {},
    element("figcaption", { textContent: title }), element("div", { className: "sheet" }, ...tiles));
}

function choose(cluster) {
  chosen = cluster;
  history.replaceState(null, "", `#${cluster}`);
  const galleries = [gallery("typical", "Most typical"), gallery("unsure", "Least certain")].filter(Boolean);
  $("galleries").replaceChildren(...(galleries.length ? galleries
    : [element("p", { className: "quiet", textContent: "This cluster is nowhere in what was looked at." })]));
  const place = order.indexOf(cluster);
  for (const next of [order[place + 1], order[place - 1]]) {
    if (next === undefined) continue;
    for (const [kind, columns] of Object.entries(about.clusters[next].columns))
      if (columns) new Image().src = `${next}-${kind}.jpg`;
  }
  render();
  $("list").children[place].scrollIntoView({ block: "nearest", inline: "center" });
  if (!narrow.matches) $("detail").scrollTop = 0;
}

function step(by) {
  const place = order.indexOf(chosen) + by;
  if (place >= 0 && place < order.length) choose(order[place]);
}

function editName() {
  $("name").focus();
  $("name").select();
}

// --- merging -----------------------------------------------------------------------------------

function openMerge() {
  $("merge-title").textContent = `Merge cluster ${chosen}${hasName(chosen) ? `, ${nameOf(chosen)},` : ""} into`;
  $("merge-filter").value = "";
  listTargets();
  $("merge-dialog").showModal();
  $("merge-filter").focus();
}

function listTargets() {
  const facts = about.clusters[chosen];
  const why = new Map();
  for (const { cluster, value } of facts.touching) why.set(cluster, `touches, ${percent(value)}`);
  for (const { cluster, value } of facts.alike) why.set(cluster, `looks like it, ${value.toFixed(2)}`);
  for (const { cluster, value } of facts.merges) why.set(cluster, `perhaps one class, ${value.toFixed(2)}`);
  const first = [...facts.merges, ...facts.alike, ...facts.touching].map(({ cluster }) => cluster);
  const every = [...new Set([...first, ...order])];
  const text = $("merge-filter").value.trim().toLowerCase();
  const fits = (cluster) => !text || String(cluster) === text || nameOf(cluster).toLowerCase().includes(text);
  const targets = every.filter((cluster) =>
    classes().includes(cluster) && cluster !== served(chosen) && fits(cluster));
  $("merge-list").replaceChildren(...targets.map((cluster) => element("li", {}, element(
    "button", { type: "button", onclick: () => mergeInto(cluster) },
    thumb(cluster), chip(cluster), element("span", { textContent: nameOf(cluster) }),
    element("span", { className: "why", textContent: why.get(cluster) ?? `cluster ${cluster}` }),
  ))));
}

async function mergeInto(cluster) {
  $("merge-dialog").close();
  await ask({ do: "merge", clusters: [cluster, chosen] }, `Cluster ${chosen} is ${nameOf(cluster)} now.`);
}

function moveInMerge(event) {
  const buttons = [...$("merge-list").querySelectorAll("button")];
  const place = buttons.indexOf(document.activeElement);
  if (event.key === "ArrowDown") (buttons[place + 1] ?? buttons.at(-1))?.focus();
  else if (event.key === "ArrowUp") (place > 0 ? buttons[place - 1] : $("merge-filter")).focus();
  else if (event.key === "Enter" && document.activeElement === $("merge-filter")) buttons[0]?.click();
  else return;
  event.preventDefault();
}

// --- keys --------------------------------------------------------------------------------------

async function finishName() {
  const name = $("name").value.trim();
  if (name && name !== nameOf(chosen) && !(await nameIt(name))) return;
  const place = order.indexOf(chosen);
  const next = [...order.slice(place + 1), ...order.slice(0, place)].find((cluster) => !hasName(cluster));
  $("name").blur();
  if (next === undefined) return say("Every cluster has a name. Press s to save.");
  choose(next);
  if (!narrow.matches) editName();
}

function leaveName() {
  $("name").value = isUnknown(chosen) ? "" : nameOf(chosen);
  $("name").blur();
}

async function keepName() {
  const name = $("name").value.trim();
  if (name && name !== nameOf(chosen)) await nameIt(name);
  renderChosen();
}

function accept() {
  const hint = about.clusters[chosen].hint;
  if (hint && !$("hint").hidden) nameIt(hint.name);
}

const KEYS = {
  ArrowDown: () => step(1), j: () => step(1), ArrowUp: () => step(-1), k: () => step(-1),
  Enter: editName, n: editName, a: accept, m: openMerge,
  u: () => $("unknown").disabled || markUnknown(), p: () => $("separate").disabled || part(),
  c: () => $("color").disabled || $("color").click(),
  z: undo, y: redo, s: save, "?": () => $("keys").showModal(),
};

function onKey(event) {
  if (document.querySelector("dialog[open]") || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    const key = event.key.toLowerCase();
    const action = key === "s" ? save : document.activeElement === $("name") ? null
      : key === "z" ? (event.shiftKey ? redo : undo) : key === "y" ? redo : null;
    if (action) { event.preventDefault(); action(); }
    return;
  }
  if (document.activeElement === $("name")) {
    if (event.key === "Escape") leaveName();
    return;
  }
  const focused = document.activeElement;
  const isChosen = focused.getAttribute("aria-current") === "true";
  if (event.key === "Enter" && focused.matches("button, input") && !isChosen) return;
  const action = KEYS[event.key];
  if (action) { event.preventDefault(); action(); }
}

async function start() {
  const response = await fetch("about.json");
  about = await response.json();
  if (!response.ok) return say(about.error, true);
  state = about.state;
  order = about.clusters.map((_, index) => index)
    .sort((one, other) => about.clusters[other].share - about.clusters[one].share);
  document.title = `Name the classes of ${about.model}`;
  $("model").textContent = `Name the classes of ${about.model}`;
  $("model").title = `${about.path}: ${about.summary}`;
  makeList();
  $("naming").addEventListener("submit", (event) => { event.preventDefault(); finishName(); });
  $("name").addEventListener("blur", keepName);
  $("color").addEventListener("change", () => {
    const color = [1, 3, 5].map((place) => parseInt($("color").value.slice(place, place + 2), 16));
    ask({ do: "color", cluster: chosen, color }, `Cluster ${chosen} has another colour.`);
  });
  const buttons = { undo, redo, save, merge: openMerge, unknown: markUnknown, separate: part, accept };
  for (const [id, action] of Object.entries(buttons)) $(id).addEventListener("click", action);
  $("help").addEventListener("click", () => $("keys").showModal());
  $("merge-filter").addEventListener("input", listTargets);
  $("merge-cancel").addEventListener("click", () => $("merge-dialog").close());
  $("merge-form").addEventListener("submit", (event) => event.preventDefault());
  $("merge-dialog").addEventListener("keydown", moveInMerge);
  document.addEventListener("keydown", onKey);
  addEventListener("beforeunload", (event) => { if (state.changed) event.preventDefault(); });
  const wanted = Number(location.hash.slice(1));
  choose(location.hash && order.includes(wanted) ? wanted : order[0]);
}

start();
