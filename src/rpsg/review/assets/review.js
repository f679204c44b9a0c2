"use strict";
// Texts enter the page as text, never as markup. Nothing is kept in the browser.
const REASONS = [
  "repeats a private text",
  "names a person, place or organisation",
  "rare detail that points to somebody",
  "not usable: meta text, cut off, off topic",
  "harmful or offensive",
];
const at = (id) => document.getElementById(id);
let texts = [];
let found = [];
let place = 0;
let showsPrivate = false;

// --- asking the command ---------------------------------------------------------------------------

async function ask(name, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const answer = await fetch(name, { cache: "no-store", ...options });
  if (answer.status === 204) return null;
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error);
  return value;
}

function close() {
  // The command ended: nothing of a private text stays on screen.
  clearInterval(watch);
  const note = document.createElement("p");
  note.className = "closed";
  note.textContent = "The review was closed. What you decided is kept.";
  document.body.replaceChildren(note);
  document.title = "Review closed";
  texts = found = [];
}

const watch = setInterval(() => fetch("alive", { cache: "no-store" }).then((answer) => {
  if (!answer.ok) close();
}, close), 1500);

// --- showing --------------------------------------------------------------------------------------

function marked(text, marks) {
  const parts = [];
  let end = 0;
  const signs = Array.from(text);
  for (const mark of marks) {
    parts.push(signs.slice(end, mark.start).join(""));
    const piece = document.createElement("mark");
    piece.className = mark.kind;
    piece.textContent = signs.slice(mark.start, mark.end).join("");
    parts.push(piece);
    end = mark.end;
  }
  return [...parts, signs.slice(end).join("")];
}

function together(lists) {
  // What any of the private texts shown shares with the text: pieces that touch become one, runs win.
  const marks = lists.flat().sort((a, b) => a.start - b.start || b.end - a.end);
  const joined = [];
  for (const mark of marks) {
    const last = joined[joined.length - 1];
    if (last && mark.start < last.end) {
      last.end = Math.max(last.end, mark.end);
      if (mark.kind === "run") last.kind = "run";
    } else joined.push({ ...mark });
  }
  return joined;
}

function refilter(keep) {
  const wanted = at("search").value.toLowerCase();
  const kind = at("filter").value;
  found = texts.filter((item) => (kind === "all" || item.verdict === kind)
    && `${item.text}\n${item.labels.join("\n")}`.toLowerCase().includes(wanted));
  const again = found.indexOf(keep);
  place = again >= 0 ? again : Math.min(place, Math.max(0, found.length - 1));
  show();
}

function show() {
  const item = found[place];
  const decided = texts.filter((other) => other.verdict !== "undecided");
  const rejected = decided.filter((other) => other.verdict === "reject").length;
  at("progress").max = texts.length || 1;
  at("progress").value = decided.length;
  at("done").textContent = `${decided.length} of ${texts.length} decided, ${rejected} rejected`;
  at("where").textContent = item ? `${place + 1} of ${found.length}` : "";
  at("text").textContent = item ? item.text : "No text here. Change the filter or the search.";
  at("labels").textContent = item ? item.labels.join(" · ") : "";
  const state = item ? item.verdict : "undecided";
  at("state").className = `state ${state}`;
  at("state").textContent = !item ? "" : { accept: "✓ Accepted", reject: `✕ Rejected: ${item.reason}`, undecided: "Not decided" }[state];
  at("accept").disabled = at("reject").disabled = !item;
  at("back").disabled = place === 0;
  at("next").disabled = place >= found.length - 1;
  at("why").hidden = true;
  at("message").textContent = "";
  if (showsPrivate) showNearest(item);
}

async function showNearest(item) {
  at("near").replaceChildren();
  if (!item) return;
  let near;
  try {
    near = await ask(`nearest?id=${encodeURIComponent(item.id)}`);
  } catch (error) {
    if (item === found[place]) at("message").textContent = "The nearest private texts could not be read.";
    return;
  }
  if (item !== found[place]) return;
  at("text").replaceChildren(...marked(item.text, together(near.map((one) => one.marks_synthetic))));
  at("near").replaceChildren(...near.map((one, i) => {
    const entry = document.createElement("li");
    const head = document.createElement("p");
    head.className = "labels";
    head.textContent = `${i + 1}. ${one.record_id} · similarity ${one.similarity.toFixed(2)}`;
    const text = document.createElement("p");
    text.className = "text";
    text.dir = "auto";
    text.append(...marked(one.text, one.marks));
    entry.append(head, text);
    return entry;
  }));
}

// --- deciding -------------------------------------------------------------------------------------

// One at a time: a second key before the answer would decide a text that was not yet on screen.
let busy = false;

async function settle(request) {
  if (busy) return null;
  busy = true;
  at("message").textContent = "";
  try {
    const now = await request();
    if (!now) { at("message").textContent = "There is nothing to undo."; return null; }
    const item = texts.find((other) => other.id === now.id);
    Object.assign(item, now);
    return item;
  } catch (error) {
    at("message").textContent = error.message === "Failed to fetch" ? "The command does not answer." : error.message;
    return null;
  } finally {
    busy = false;
  }
}

async function decide(verdict, reason) {
  const item = found[place];
  if (!item || !(await settle(() => ask("decide", { id: item.id, verdict, reason })))) return;
  // On to the next one; where the filter hides this one now, the next takes its place.
  const following = found[found.indexOf(item) + 1];
  refilter(following || item);
  at("synthetic").focus({ preventScroll: true });
}

async function undo() {
  const item = await settle(() => ask("undo", {}));
  if (!item) return;
  if (at("filter").value !== "all" && at("filter").value !== item.verdict) at("filter").value = "all";
  refilter(item);
}

function askWhy() {
  if (!found[place]) return;
  at("why").hidden = false;
  at("reason").value = "";
  at("reason").focus();
}

function move(step) {
  place = Math.max(0, Math.min(found.length - 1, place + step));
  show();
}

// --- hands ----------------------------------------------------------------------------------------

at("reasons").append(...REASONS.map((reason, i) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = `${i + 1}. ${reason}`;
  button.addEventListener("click", () => decide("reject", reason));
  return button;
}));
at("why").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = at("reason").value.trim();
  const reason = REASONS[Number(given) - 1] || given;
  if (/\p{L}/u.test(reason)) decide("reject", reason);
  else at("message").textContent = `A rejection needs a reason: words, or a number from 1 to ${REASONS.length}.`;
});
at("accept").addEventListener("click", () => decide("accept", ""));
at("reject").addEventListener("click", askWhy);
at("undo").addEventListener("click", undo);
at("cancel").addEventListener("click", show);
at("back").addEventListener("click", () => move(-1));
at("next").addEventListener("click", () => move(1));
at("filter").addEventListener("change", () => refilter(found[place]));
at("search").addEventListener("input", () => refilter(found[place]));

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    // The browser empties the box of a search, which is then no filter any more.
    if (event.target === at("search")) { at("search").value = ""; refilter(found[place]); } else show();
    document.activeElement.blur();
    return;
  }
  const typing = event.target.matches("input:not([type=checkbox]), select");
  if (typing || !at("keys").checked) return;
  // Held down, a key would decide texts that nobody has read.
  if (event.repeat && "aru".includes(event.key)) return;
  const actions = {
    j: () => move(1), ArrowRight: () => move(1), k: () => move(-1), ArrowLeft: () => move(-1),
    a: () => decide("accept", ""), r: askWhy, u: undo, "/": () => at("search").focus(),
    f: () => {
      const list = at("filter");
      list.selectedIndex = (list.selectedIndex + 1) % list.length;
      refilter(found[place]);
    },
  };
  if (!(event.key in actions)) return;
  event.preventDefault();
  actions[event.key]();
});

// --- start ----------------------------------------------------------------------------------------

ask("texts").then((all) => {
  texts = all.texts;
  showsPrivate = all.shows_private;
  at("private").hidden = !showsPrivate;
  const banner = at("banner");
  banner.hidden = false;
  banner.classList.toggle("danger", showsPrivate);
  const depends = all.has_guarantee
    ? "Applying decisions on this run ends its guarantee: the card will say “No end-to-end differential privacy”. It stays only if no decision is applied."
    : "Decisions on this run depend on them.";
  if (showsPrivate) banner.textContent = `Private texts are on screen. ${depends}`;
  else if (all.saw_private) banner.textContent = `Synthetic texts only, but private texts were on screen in an earlier review of this run. ${depends}`;
  else banner.textContent = "Synthetic texts only. Decisions that are taken here depend on released texts alone.";
  refilter();
  document.documentElement.dataset.ready = "yes";
}).catch(close);
