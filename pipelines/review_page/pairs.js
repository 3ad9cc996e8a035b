// Two tracklets, and whether they are the same person.
import { about, button, make, plural, strip } from "./dom.js";

const WHY = {
  join: "Are these two groups one person?",
  split: "Are these two of one person?",
  again: "Once more, with other pictures: are these two of one person?",
  contradiction: "Answers contradict each other here: are these two of one person?",
};

export function pairs(page) {
  const root = document.getElementById("pairs");
  let current = null;
  let busy = false;

  async function load() {
    const found = await page.get("questions");
    current = found.questions[0] || null;
    root.replaceChildren(current ? card(current) : done());
    for (const next of found.questions.slice(1)) for (const row of [next.a, next.b]) new Image().src = `strip/${row}.jpg`;
  }

  function done() {
    return make("p", "about", "No pair is left whose answer would change much. Save, or look through the people.");
  }

  function card(question) {
    const { data } = page;
    const box = make("article", "pair panel");
    const title = make("h2", "", "Same person?");
    const hangs = question.together
      ? `${plural(question.pairs, "pair")} of one proposed person`
      : `groups of ${question.sizes[0].toLocaleString("en")} and ${question.sizes[1].toLocaleString("en")}`;
    const once = question.at_once ? " One camera saw both for a moment, which may be an error of the tracker." : "";
    const text = `${WHY[question.kind]}${once} Distance ${question.distance.toFixed(2)}, proposed: ${Math.round(100 * question.same)} % the same; ${hangs}.`;
    box.append(title, make("p", "about", text));
    for (const row of [question.a, question.b]) {
      const side = make("div", "side");
      side.append(strip(data, row, about(data, row)));
      const name = make("p", "name", data.names[row]);
      const when = data.start[row] === null ? "" : `, frames ${data.start[row].toLocaleString("en")} to ${data.end[row].toLocaleString("en")}`;
      name.append(make("span", "", `${data.cameras[data.camera[row]]}${when}`));
      side.append(name);
      box.append(side);
    }
    const answers = make("div", "answers");
    answers.setAttribute("role", "group");
    answers.setAttribute("aria-label", "Answer");
    for (const [key, label, main] of KEYS) {
      const one = button(label, () => answer(key), key);
      if (main) one.className = "main";
      answers.append(one);
    }
    box.append(answers);
    return box;
  }

  const KEYS = [
    ["s", "Same", true], ["d", "Different", true], ["n", "Not sure"],
    ["1", "Left: several people"], ["2", "Right: several people"], ["3", "Left: no person"], ["4", "Right: no person"],
  ];

  async function answer(key) {
    if (!current || busy) return;
    busy = true;
    const { names } = page.data;
    const [a, b] = [names[current.a], names[current.b]];
    const compared = { s: "same", d: "different", n: "unsure" }[key];
    const marks = { 1: [a, "mixed"], 2: [b, "mixed"], 3: [a, "junk"], 4: [b, "junk"] };
    try {
      if (compared) await page.tell("compare", { a, b, answer: compared });
      else await page.tell("mark", { names: [marks[key][0]], as: marks[key][1] });
    } finally {
      busy = false;
    }
  }

  return { load, key: (key) => (KEYS.some(([known]) => known === key) ? (answer(key), true) : false) };
}
