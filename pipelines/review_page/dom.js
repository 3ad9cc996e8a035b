// Small helpers. Names come from files and people: they are only ever set as text.

export const $ = (id) => document.getElementById(id);

export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

export function draw(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

export function button(text, action, key) {
  const element = make("button", "", text);
  element.type = "button";
  if (key) {
    element.setAttribute("aria-keyshortcuts", key.toUpperCase());
    const sign = make("kbd", "", key.toUpperCase());
    sign.setAttribute("aria-hidden", "true");
    element.append(sign);
  }
  element.addEventListener("click", action);
  return element;
}

export const plural = (count, word, many) => `${count.toLocaleString("en")} ${count === 1 ? word : many || `${word}s`}`;

export function moment(value) {
  return value === null ? "" : `at ${value.toLocaleString("en")}`;
}

// A tracklet's frames one after the other, as the report shows them; the picture is asked for when it comes into view.
export function strip(data, row, label) {
  const box = make("div", "strip");
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", label);
  const frames = data.frames[row];
  const reel = make("div", frames > 1 ? "reel many" : "reel");
  reel.style.setProperty("--n", frames);
  const film = make("img", "film");
  film.src = `strip/${row}.jpg`;
  film.alt = "";
  film.loading = "lazy";
  film.draggable = false;
  film.style.width = "100%";
  film.style.height = "100%";
  reel.append(film);
  box.append(reel);
  return box;
}

export function about(data, row) {
  const when = data.start[row] === null ? "" : `, frames ${data.start[row].toLocaleString("en")} to ${data.end[row].toLocaleString("en")}`;
  return `${data.names[row]}, ${data.cameras[data.camera[row]]}${when}`;
}
