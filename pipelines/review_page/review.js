// The page of a review: its views, what they share, and staying in step with other windows.
import { get, post, tell } from "./api.js";
import { $, button, make, plural } from "./dom.js";
import { find } from "./find.js";
import { pairs } from "./pairs.js";
import { people } from "./people.js";
import { split } from "./split.js";
import { timeline } from "./timeline.js";

const EVERY = 1000;  // milliseconds between looks at what other windows have done

const page = {
  data: null,
  state: null,
  get,
  post,
  refresh,
  async tell(what, details) {
    try {
      await tell(what, details);
      say("");
    } catch (error) {
      say(error.message);
    }
    await refresh();
  },
};
const views = { pairs: pairs(page), people: people(page), search: find(page), timeline: timeline(page), split: split(page) };
let current = "pairs";

function say(text) {
  $("message").hidden = !text;
  $("message").textContent = text;
}

async function refresh() {
  page.state = await get("state");
  const { progress } = page.state;
  const all = progress.confirmed + progress.implied + progress.proposed + progress.left_out;
  $("progress").textContent =
    `${plural(progress.answers, "answer")} · ${plural(progress.people, "person", "people")} · ${progress.confirmed.toLocaleString("en")} confirmed, ` +
    `${progress.implied.toLocaleString("en")} implied, ${progress.proposed.toLocaleString("en")} proposed · ` +
    (progress.to_go ? `about ${plural(progress.to_go, "answer")} to go` : "safe to save");
  $("meter").setAttribute("aria-label", `${progress.confirmed + progress.implied} of ${all} tracklets decided`);
  $("meter").children[0].style.width = `${(100 * progress.confirmed) / all}%`;
  $("meter").children[1].style.width = `${(100 * progress.implied) / all}%`;
  $("undo").disabled = !page.state.can_undo;
  $("save").textContent = page.state.saved ? "Saved" : "Save";
  showConflicts();
  showContradictions();
  await views[current].load();
  document.documentElement.dataset.answers = progress.answers;  // shown whole
}

function showConflicts() {
  const { conflicts } = page.state;
  $("conflicts").replaceChildren(...conflicts.slice(0, 5).map((conflict) => {
    const note = make("div", "note warn conflict");
    note.append(make("p", "", `labels.csv was changed: ${conflict.tracklet} is ${conflict.file || "nobody"} there, ${conflict.review || "nobody"} here.`));
    note.append(
      button("Keep the file's", () => page.tell("settle", { name: conflict.tracklet, keep: "file" })),
      button("Keep the review's", () => page.tell("settle", { name: conflict.tracklet, keep: "review" })),
    );
    return note;
  }));
  if (conflicts.length > 5) $("conflicts").append(make("p", "note warn", `and ${conflicts.length - 5} more`));
}

function showContradictions() {
  const { contradictions } = page.state;
  $("contradictions").replaceChildren(...contradictions.slice(0, 3).map((one) => {
    const note = make("div", "note warn contradiction");
    const names = one.rows.map((row) => page.data.names[row]);
    note.append(make("p", "", `Contradicts other answers and does not count: ${names.join(" and ")}, ${one.answer}. Answer again, or undo.`));
    if (one.compared) {
      for (const answer of ["same", "different"]) {
        const again = button(answer === "same" ? "Same" : "Different", () => page.tell("compare", { a: names[0], b: names[1], answer }));
        again.setAttribute("aria-label", `${answer}: ${names.join(" and ")}`);
        note.append(again);
      }
      // By hand counts more than having been in sight together, and than answers.
      if (one.answer === "same") note.append(button("Merge all the same", () => page.tell("merge", { names })));
    }
    return note;
  }));
}

async function open(view, focus) {
  current = view;
  for (const name of Object.keys(views)) {
    const on = name === view;
    $(name).hidden = !on;
    $(`tab-${name}`).setAttribute("aria-selected", String(on));
    $(`tab-${name}`).tabIndex = on ? 0 : -1;
  }
  if (focus) $(`tab-${view}`).focus();
  await views[view].load();
}

const names = Object.keys(views);
names.forEach((name, place) => {
  $(`tab-${name}`).addEventListener("click", () => open(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) { event.preventDefault(); open(names[(place + step + names.length) % names.length], true); }
  });
});
$("undo").addEventListener("click", () => page.tell("undo", {}));
$("save").addEventListener("click", () => page.tell("save", {}));
$("motion").addEventListener("click", () => moving(!document.documentElement.classList.contains("moving")));
function moving(on) {
  document.documentElement.classList.toggle("moving", on);
  $("motion").setAttribute("aria-pressed", String(on));
}
moving(!matchMedia("(prefers-reduced-motion: reduce)").matches);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest("input:not([type=checkbox]), select, textarea, dialog")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "u") { event.preventDefault(); page.tell("undo", {}); return; }
  if (views[current].key(key)) event.preventDefault();
});

async function watch() {
  try {
    const { version } = await get("version");
    if (page.state && version !== page.state.version) await refresh();
    if (lost) { lost = false; say(""); }
  } catch {
    lost = true;
    say("The server does not answer: start csip review again. Every answer so far is kept.");
  }
  setTimeout(watch, EVERY);
}
let lost = false;

page.data = await get("tracklets");
document.title = `csip review: ${plural(page.data.names.length, "tracklet")}`;
await refresh();
setTimeout(watch, EVERY);
