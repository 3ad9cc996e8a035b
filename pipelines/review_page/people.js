// Everybody, the doubtful first: choose tracklets and move, split, merge, name or leave them out.
import { about, button, make, plural, strip } from "./dom.js";

const PAGE = 12;
const STATES = { c: "confirmed", i: "implied", p: "proposed", j: "no person", m: "several people" };

export function people(page) {
  const root = document.getElementById("people");
  const chosen = new Set();
  let found = { people: [], states: [], left_out: [] };
  let from = 0;
  let text = "";

  const list = make("div");
  const count = make("p", "count");
  count.setAttribute("role", "status");
  const search = Object.assign(make("input"), { type: "search", placeholder: "person or tracklet", autocomplete: "off" });
  const label = make("label", "grow", "Find ");
  label.append(search);
  const tools = make("form", "tools panel");
  tools.setAttribute("aria-label", "Find people");
  tools.append(label);
  tools.addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", () => { text = search.value.trim().toLowerCase(); from = 0; show(); });
  const back = button("← Previous", () => turn(-PAGE)), forth = button("Next →", () => turn(PAGE));
  const pager = make("div", "pager");
  pager.append(back, forth);
  const bar = make("div", "chosen-bar panel");
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "Chosen tracklets");
  root.append(tools, count, list, pager, bar);

  function turn(step) {
    from = Math.max(0, from + step);
    show();
    count.scrollIntoView({ block: "start" });
  }

  async function load() {
    found = await page.get("people");
    show();
  }

  const names = () => [...chosen].map((row) => page.data.names[row]);
  const act = (what, details) => { const told = page.tell(what, details); chosen.clear(); return told; };

  function kept() {
    if (!text) return found.people;
    return found.people.filter((one) => one.title.toLowerCase().includes(text) || one.rows.some((row) => page.data.names[row].toLowerCase().includes(text)));
  }

  function show() {
    const here = kept();
    if (from >= here.length) from = Math.max(0, Math.floor((here.length - 1) / PAGE) * PAGE);
    const parts = here.slice(from, from + PAGE).map(person);
    if (found.left_out.length && from + PAGE >= here.length) parts.push(person({ title: "Left out", rows: found.left_out, doubt: 0, none: true }));
    const focus = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.row : undefined;
    list.replaceChildren(...parts);
    if (focus !== undefined) { const again = list.querySelector(`[data-row="${focus}"]`); if (again) again.focus(); }
    count.textContent = `${plural(here.length, "person", "people")}, the doubtful first`;
    back.disabled = from === 0;
    forth.disabled = from + PAGE >= here.length;
    choices();
  }

  function person(one) {
    const { data } = page;
    const box = make("section", "person panel");
    const title = make("h3", "", one.title);
    const cameras = new Set(one.rows.map((row) => data.camera[row])).size;
    const doubt = one.doubt >= 0.5 ? `, about ${plural(Math.round(one.doubt), "pair")} in doubt` : "";
    const head = make("header");
    head.append(title, make("p", "", `${plural(one.rows.length, "tracklet")}, ${plural(cameras, "camera")}${doubt}`));
    box.setAttribute("aria-label", one.title);
    if (!one.none) {
      const buttons = make("div", "buttons");
      buttons.append(
        button("All right", () => page.tell("confirm", { name: data.names[one.rows[0]] })),
        button("Name", () => rename(one)),
        button("Choose all", () => { one.rows.forEach((row) => chosen.add(row)); show(); }),
      );
      for (const item of buttons.children) item.setAttribute("aria-label", `${item.textContent}: ${one.title}`);
      head.append(buttons);
      box.addEventListener("dragover", (event) => { event.preventDefault(); box.classList.add("over"); });
      box.addEventListener("dragleave", () => box.classList.remove("over"));
      box.addEventListener("drop", (event) => {
        event.preventDefault();
        box.classList.remove("over");
        const rows = JSON.parse(event.dataTransfer.getData("text/plain") || "[]").filter((row) => !one.rows.includes(row));
        if (rows.length) { chosen.clear(); page.tell("move", { names: rows.map((row) => data.names[row]), to: data.names[one.rows[0]] }); }
      });
    }
    const cells = make("ul", "cells");
    cells.append(...one.rows.slice(0, 60).map(cell));
    box.append(head, cells);
    if (one.rows.length > 60) box.append(make("p", "hint", `and ${plural(one.rows.length - 60, "tracklet")} more`));
    return box;
  }

  function cell(row) {
    const { data } = page;
    const item = make("li");
    const state = found.states[row];
    const choose = make("button", `cell state-${state}`);
    choose.type = "button";
    choose.draggable = true;
    choose.dataset.row = row;
    choose.setAttribute("aria-pressed", String(chosen.has(row)));
    choose.setAttribute("aria-label", `${about(data, row)}, ${STATES[state]}`);
    choose.append(strip(data, row, ""));
    choose.firstChild.removeAttribute("role");
    choose.firstChild.removeAttribute("aria-label");
    const caption = make("p", "caption");
    caption.append(make("b", "", data.names[row].split("/").pop()), `${data.cameras[data.camera[row]]} · ${STATES[state]}`);
    choose.append(caption);
    choose.addEventListener("click", () => {
      if (!chosen.delete(row)) chosen.add(row);
      choose.setAttribute("aria-pressed", String(chosen.has(row)));
      choices();
    });
    choose.addEventListener("dragstart", (event) => {
      event.dataTransfer.setData("text/plain", JSON.stringify(chosen.has(row) ? [...chosen] : [row]));
    });
    item.append(choose);
    return item;
  }

  const owner = (row) => found.people.findIndex((one) => one.rows.includes(row));

  function choices() {
    bar.hidden = chosen.size === 0;
    if (bar.hidden) return;
    const owners = new Set([...chosen].map(owner));
    const merge = button("Merge their people", () => act("merge", { names: [...owners].map((n) => page.data.names[found.people[n].rows[0]]) }), "m");
    merge.disabled = owners.size < 2 || owners.has(-1);
    bar.replaceChildren(
      make("p", "", `${plural(chosen.size, "tracklet")} chosen`),
      button("Split off", () => act("move", { names: names(), to: null }), "x"),
      merge,
      button("No person", () => act("mark", { names: names(), as: "junk" }), "j"),
      button("Several people", () => act("mark", { names: names(), as: "mixed" })),
      ...(owners.has(-1) ? [button("A person after all", () => act("mark", { names: names(), as: "person" }))] : []),
      button("Clear", () => { chosen.clear(); show(); }, "Escape"),
    );
  }

  function rename(one) {
    const dialog = make("dialog");
    const form = make("form");
    form.method = "dialog";
    const input = Object.assign(make("input"), { type: "text", value: one.title, maxLength: 200, required: true });
    const label = make("label", "", "Name of the person");
    label.append(input);
    const ok = make("button", "", "Rename");
    ok.value = "ok";
    const cancel = button("Cancel", () => dialog.close());
    const buttons = make("div", "buttons");
    buttons.append(ok, cancel);
    form.append(label, buttons);
    dialog.append(form);
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === "ok" && input.value.trim()) page.tell("rename", { name: page.data.names[one.rows[0]], title: input.value });
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
    input.select();
  }

  function key(pressed) {
    if (chosen.size === 0) return false;
    const labels = { x: "Split off", m: "Merge", j: "No person", Escape: "Clear" };
    if (!(pressed in labels)) return false;
    const wanted = [...bar.querySelectorAll("button")].find((one) => one.textContent.startsWith(labels[pressed]));
    if (wanted && !wanted.disabled) wanted.click();
    return true;
  }

  return { load, key };
}
