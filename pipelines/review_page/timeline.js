// Cameras as rows, people as colours; the same person twice at once at one camera is marked.
import { about, draw, make, plural } from "./dom.js";

const MOST = 2500;
const WIDE = 1200, LEFT = 130, HIGH = 46;

export function timeline(page) {
  const root = document.getElementById("timeline");
  const choose = make("select");
  const label = make("label", "grow", "Person ");
  label.append(choose);
  const tools = make("form", "tools panel");
  tools.setAttribute("aria-label", "Timeline");
  tools.append(label);
  tools.addEventListener("submit", (event) => event.preventDefault());
  const note = make("p", "count");
  note.setAttribute("role", "status");
  const lanes = make("div", "lanes panel");
  lanes.tabIndex = 0;
  lanes.setAttribute("role", "region");
  lanes.setAttribute("aria-label", "Timeline of cameras");
  const seen = make("p", "hint");
  seen.setAttribute("aria-live", "polite");
  root.append(tools, note, lanes, seen);
  let found = { people: [] };
  let overlaps = [];
  choose.addEventListener("change", show);

  async function load() {
    found = await page.get("people");
    overlaps = page.state.overlaps;
    const before = choose.value;
    const people = [...found.people].sort((a, b) => b.rows.length - a.rows.length);
    choose.replaceChildren(new Option("everybody", ""), ...people.slice(0, 1000).map((one) => new Option(one.title, one.title)));
    if ([...choose.options].some((option) => option.value === before)) choose.value = before;
    show();
  }

  function show() {
    const { data } = page;
    const one = found.people.find((person) => person.title === choose.value);
    const people = one ? [one] : found.people;
    const rows = people.flatMap((person, n) => person.rows.map((row) => [row, person, n])).filter(([row]) => data.start[row] !== null);
    const shown = rows.slice(0, MOST);
    if (!shown.length) {
      lanes.replaceChildren(make("p", "hint", "The table does not tell when tracklets were seen."));
      note.textContent = "";
      return;
    }
    const low = Math.min(...shown.map(([row]) => data.start[row])), high = Math.max(...shown.map(([row]) => data.end[row]));
    const x = (value) => LEFT + ((value - low) / Math.max(high - low, 1)) * (WIDE - LEFT - 10);
    const tall = data.sources.length * HIGH + 24;
    const svg = draw("svg", { viewBox: `0 0 ${WIDE} ${tall}`, width: WIDE, height: tall, role: "img", "aria-label": `${plural(shown.length, "tracklet")} at ${plural(data.sources.length, "camera")}` });
    data.sources.forEach((source, n) => {
      svg.append(draw("line", { class: "row-line", x1: 0, x2: WIDE, y1: (n + 1) * HIGH, y2: (n + 1) * HIGH }));
      const text = draw("text", { x: 2, y: n * HIGH + HIGH / 2 + 4 });
      text.textContent = source.length > 18 ? `${source.slice(0, 17)}…` : source;
      svg.append(text);
    });
    if (one) {
      const ordered = shown.map(([row]) => row).sort((a, b) => data.start[a] - data.start[b]);
      ordered.slice(1).forEach((row, n) => {
        const before = ordered[n];
        svg.append(draw("line", { class: "gap", x1: x(data.end[before]), x2: x(data.start[row]), y1: data.source[before] * HIGH + HIGH / 2, y2: data.source[row] * HIGH + HIGH / 2 }));
      });
    }
    const clash = new Set(overlaps.flat());
    // Bars of one camera that overlap in time are set below each other, three deep.
    const ends = data.sources.map(() => [0, 0, 0].map(() => -Infinity));
    for (const [row, person, n] of [...shown].sort((a, b) => data.start[a[0]] - data.start[b[0]])) {
      const depth = Math.max(ends[data.source[row]].findIndex((end) => end < data.start[row]), 0);
      ends[data.source[row]][depth] = data.end[row];
      const bar = draw("rect", {
        class: `bar-of tone-${1 + (n % 8)}${clash.has(row) ? " clash" : ""}`, x: x(data.start[row]).toFixed(1), y: data.source[row] * HIGH + 4 + depth * 13,
        width: Math.max(x(data.end[row]) - x(data.start[row]), 3).toFixed(1), height: 11, rx: 3,
      });
      const title = draw("title", {});
      title.textContent = `${person.title}: ${about(data, row)}`;
      bar.append(title);
      bar.addEventListener("click", () => { seen.textContent = title.textContent; });
      svg.append(bar);
    }
    lanes.replaceChildren(svg);
    const here = overlaps.filter(([a, b]) => !one || (one.rows.includes(a) && one.rows.includes(b)));
    const impossible = here.length ? `; ${plural(here.length, "impossible overlap")}: ${here.slice(0, 5).map(([a, b]) => `${data.names[a]} and ${data.names[b]}`).join("; ")}` : "; no impossible overlaps";
    note.textContent = `${plural(shown.length, "tracklet")}${rows.length > shown.length ? ` of ${rows.length.toLocaleString("en")}; choose a person to see all` : ""}${impossible}`;
  }

  return { load, key: () => false };
}
