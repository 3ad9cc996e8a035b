// Train, query and gallery from the labels, with what the doctor counts in them.
import { make } from "./dom.js";

export function split(page) {
  const root = document.getElementById("split");
  const tools = make("form", "tools panel");
  tools.setAttribute("aria-label", "Split");
  const field = (text, input) => {
    const label = make("label", "", text);
    label.append(input);
    tools.append(label);
    return input;
  };
  const share = field("People who train (%) ", Object.assign(make("input"), { type: "number", min: 1, max: 99, value: 50, required: true }));
  const seed = field("Seed ", Object.assign(make("input"), { type: "number", min: 0, step: 1, value: 0, required: true }));
  const go = Object.assign(make("button", "main", "Save labels and split"), { type: "submit" });
  tools.append(go);
  const rule = make("p", "about", "People seen by two cameras or more train or are tested, at random by the seed, never both. "
    + "People of one camera train. Each tracklet of a tested person is a query, ranked against the other cameras.");
  const note = make("p", "count"), counts = make("div");
  note.setAttribute("role", "status");
  root.append(tools, rule, note, counts);

  tools.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    note.textContent = "Splitting";
    counts.replaceChildren();
    try {
      const made = await page.post("split", { share: Number(share.value) / 100, seed: Number(seed.value) });
      note.textContent = `Written to ${made.out}`;
      counts.replaceChildren(table(made.findings));
      await page.refresh();
    } catch (error) {
      note.textContent = error.message;
    } finally {
      go.disabled = false;
    }
  });

  function table(findings) {
    const box = make("div", "panel"), list = make("dl", "findings");
    for (const { what, text, fix } of findings) {
      list.append(make("dt", "", what));
      const found = make("dd", fix ? "wrong" : "");
      for (const line of [...text.split("\n"), ...(fix ? [`fix: ${fix}`] : [])]) found.append(make("p", "", line));
      list.append(found);
    }
    box.append(list);
    return box;
  }

  return { load: () => {}, key: () => false };
}
