// The tracklets nearest to one.
import { about, button, make, strip } from "./dom.js";

export function find(page) {
  const root = document.getElementById("search");
  let row = null;

  const tools = make("form", "tools panel");
  tools.setAttribute("aria-label", "Search");
  tools.addEventListener("submit", (event) => { event.preventDefault(); load(); });
  const field = (text, input, grow) => {
    const label = make("label", grow ? "grow" : "", text);
    label.append(input);
    input.addEventListener("change", () => load());
    tools.append(label);
    return input;
  };
  const names = make("datalist");
  names.id = "known-tracklets";
  const query = field("Tracklet ", Object.assign(make("input"), { type: "search", autocomplete: "off" }), true);
  query.setAttribute("list", names.id);
  const camera = field("Camera ", make("select"));
  const state = field("State ", make("select"));
  const since = field("From frame ", Object.assign(make("input"), { type: "number" }));
  const until = field("To frame ", Object.assign(make("input"), { type: "number" }));
  const others = field("Own person ", make("select"));
  const asked = make("div", "asked"), list = make("ul", "cells"), note = make("p", "count");
  note.setAttribute("role", "status");
  root.append(tools, names, note, asked, list);
  asked.style.width = "116px";

  function prepare() {
    const { data } = page;
    camera.replaceChildren(new Option("all", ""), ...data.cameras.map((name, number) => new Option(name, number)));
    state.replaceChildren(new Option("all", ""), new Option("confirmed", "c"), new Option("implied", "i"), new Option("proposed", "p"));
    others.replaceChildren(new Option("shown", ""), new Option("hidden", "1"));
    names.replaceChildren(...data.names.slice(0, 2000).map((name) => new Option(name)));
  }

  async function load() {
    if (!camera.options.length) prepare();
    const { data } = page;
    const typed = query.value.trim();
    row = typed ? data.names.indexOf(typed) : -1;
    if (row < 0) {
      note.textContent = typed ? `There is no tracklet ${typed}.` : "Give a tracklet, or choose one below any picture.";
      asked.replaceChildren();
      list.replaceChildren();
      return;
    }
    const wanted = new URLSearchParams({ camera: camera.value, state: state.value, from: since.value, to: until.value, others: others.value });
    const { found } = await page.get(`near/${row}?${wanted}`);
    asked.replaceChildren(strip(data, row, `Query ${about(data, row)}`), make("p", "caption", data.names[row]));
    list.replaceChildren(...found.map(({ row: other, distance }) => {
      const item = make("li");
      item.append(strip(data, other, `${about(data, other)}, distance ${distance.toFixed(2)}`));
      const caption = make("p", "caption");
      caption.append(make("b", "", data.names[other].split("/").pop()), `${distance.toFixed(2)} · ${data.cameras[data.camera[other]]}`);
      const same = button("Same", () => page.tell("compare", { a: data.names[row], b: data.names[other], answer: "same" }));
      const different = button("Different", () => page.tell("compare", { a: data.names[row], b: data.names[other], answer: "different" }));
      same.setAttribute("aria-label", `Same person: ${data.names[other]}`);
      different.setAttribute("aria-label", `Different person: ${data.names[other]}`);
      const next = button("Search", () => { query.value = data.names[other]; load(); });
      next.setAttribute("aria-label", `Search for ${data.names[other]}`);
      item.append(caption, same, different, next);
      return item;
    }));
    note.textContent = found.length ? `The ${found.length} nearest tracklets` : "No tracklet is left by these filters.";
  }

  return { load, key: () => false };
}
