// The tracklets nearest to one, to one of its crops, or to a picture.
import { about, button, make, strip } from "./dom.js";

const LARGEST = 512;  // pixels of a side that are sent: models look at smaller pictures still

// A picture file as a small JPEG in base64.
async function small(file) {
  const image = await createImageBitmap(file);
  const scale = Math.min(1, LARGEST / Math.max(image.width, image.height));
  const canvas = make("canvas");
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.92);
}

export function find(page) {
  const root = document.getElementById("search");
  let row = null;
  let frame = null;  // of the crop that is searched for
  let picture = null;  // that is searched for, as a data address
  let turn = 0;

  const tools = make("form", "tools panel");
  tools.setAttribute("aria-label", "Search");
  tools.addEventListener("submit", (event) => { event.preventDefault(); load(); });
  const field = (text, input, grow, changed = load) => {
    const label = make("label", grow ? "grow" : "", text);
    label.append(input);
    input.addEventListener("change", () => changed());
    tools.append(label);
    return input;
  };
  const names = make("datalist");
  names.id = "known-tracklets";
  const query = field("Tracklet ", Object.assign(make("input"), { type: "search", autocomplete: "off" }), true, () => { frame = picture = null; upload.value = ""; load(); });
  query.setAttribute("list", names.id);
  const camera = field("Camera ", make("select"));
  const state = field("State ", make("select"));
  const since = field("From frame ", Object.assign(make("input"), { type: "number" }));
  const until = field("To frame ", Object.assign(make("input"), { type: "number" }));
  const others = field("Own person ", make("select"));
  const upload = field("Picture ", Object.assign(make("input"), { type: "file", accept: "image/*" }), false, async () => {
    if (!upload.files.length) return;
    try {
      picture = await small(upload.files[0]);
    } catch {
      note.textContent = "This file is no picture that the browser can show.";
      return;
    }
    query.value = "";
    load();
  });
  const asked = make("div", "asked"), list = make("ul", "cells"), note = make("p", "count");
  note.setAttribute("role", "status");
  root.append(tools, names, note, asked, list);

  function prepare() {
    const { data } = page;
    camera.replaceChildren(new Option("all", ""), ...data.cameras.map((name, number) => new Option(name, number)));
    state.replaceChildren(new Option("all", ""), new Option("confirmed", "c"), new Option("implied", "i"), new Option("proposed", "p"));
    others.replaceChildren(new Option("shown", ""), new Option("hidden", "1"));
    names.replaceChildren(...data.names.slice(0, 2000).map((name) => new Option(name)));
  }

  function failed(error) {
    note.textContent = error.message;
    list.replaceChildren();
  }

  // What is searched for: a strip and its crops, or the picture.
  function show(crops) {
    if (picture) {
      const image = make("img", "picture");
      image.src = picture;
      image.alt = "The picture that is searched for";
      asked.replaceChildren(image);
      return;
    }
    const { data } = page;
    const choices = make("div", "crops");
    choices.setAttribute("role", "group");
    choices.setAttribute("aria-label", "Search with one frame");
    for (const number of crops) {
      const choose = make("button", "crop");
      choose.type = "button";
      choose.setAttribute("aria-label", `Frame ${number + 1}`);
      choose.setAttribute("aria-pressed", String(number === frame));
      const image = make("img");
      image.src = `frame/${row}/${number}.jpg`;
      image.alt = "";
      image.loading = "lazy";
      choose.append(image);
      choose.addEventListener("click", () => { frame = number === frame ? null : number; load(); });
      choices.append(choose);
    }
    const whole = make("div", "whole");
    whole.append(strip(data, row, `Query ${about(data, row)}`), make("p", "caption", data.names[row]));
    asked.replaceChildren(whole, choices);
  }

  async function load() {
    if (!camera.options.length) prepare();
    const { data } = page;
    const mine = (turn += 1);
    const typed = query.value.trim();
    if (typed) picture = null;
    row = typed ? data.names.indexOf(typed) : -1;
    if (row < 0 && !picture) {
      note.textContent = typed ? `There is no tracklet ${typed}.` : "Give a tracklet or a picture, or choose one below any picture.";
      asked.replaceChildren();
      list.replaceChildren();
      return;
    }
    const wanted = { camera: camera.value, state: state.value, from: since.value, to: until.value, others: others.value };
    let found;
    try {
      if (picture) {
        note.textContent = "Searching";
        show([]);
        ({ found } = await page.post("find", { picture: picture.split(",")[1], ...wanted }));
      } else {
        const near = await page.get(`near/${row}?${new URLSearchParams(wanted)}`);
        if (mine === turn) show(near.crops);
        ({ found } = frame === null ? near : await page.post("find", { row, frame, ...wanted }));
      }
    } catch (error) {
      if (mine === turn) failed(error);
      return;
    }
    if (mine !== turn) return;  // somebody has asked for something else meanwhile
    list.replaceChildren(...found.map(({ row: other, distance }) => {
      const item = make("li");
      item.append(strip(data, other, `${about(data, other)}, distance ${distance.toFixed(2)}`));
      const caption = make("p", "caption");
      caption.append(make("b", "", data.names[other].split("/").pop()), `${distance.toFixed(2)} · ${data.cameras[data.camera[other]]}`);
      item.append(caption);
      for (const answer of row < 0 ? [] : ["Same", "Different"]) {
        const said = { a: data.names[row], b: data.names[other], answer: answer.toLowerCase() };
        const tell = button(answer, () => page.tell("compare", said));
        tell.setAttribute("aria-label", `${answer} person: ${data.names[other]}`);
        item.append(tell);
      }
      const next = button("Search", () => { query.value = data.names[other]; frame = picture = null; upload.value = ""; load(); });
      next.setAttribute("aria-label", `Search for ${data.names[other]}`);
      item.append(next);
      return item;
    }));
    note.textContent = found.length ? `The ${found.length} nearest tracklets` : "No tracklet is left by these filters.";
  }

  return { load, key: () => false };
}
