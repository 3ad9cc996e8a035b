"use strict";
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const { tracklets, lists, map } = data;
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";

  // Names come from files and folders: they are only ever set as text.
  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }
  function draw(tag, attributes) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }
  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
  const shortly = (camera) => camera.replace(/^camera (?=\d+$)/, "cam ");
  const about = (t) => [t.person, t.camera, t.length ? plural(t.length, "frame") : ""].filter(Boolean).join(", ");

  // ---- pictures -------------------------------------------------------------------------------------------------

  function skeleton(strip) {
    const wide = 500;  // a frame is half as wide as it is high, and 1000 units high
    const svg = draw("svg", { class: "skeleton", viewBox: `0 0 ${wide * strip.frames} 1000`, preserveAspectRatio: "none", "aria-hidden": "true" });
    const paths = { left: "", right: "", middle: "" };
    strip.skeletons.forEach((points, frame) => {
      data.bones.forEach(([a, b], bone) => {
        const [x, y, u, v] = [points[2 * a], points[2 * a + 1], points[2 * b], points[2 * b + 1]];
        if (x === null || u === null) return;
        paths[data.sides[bone]] += `M${x + wide * frame} ${y}L${u + wide * frame} ${v}`;
      });
    });
    svg.append(draw("path", { class: "under", d: paths.left + paths.right + paths.middle }));
    for (const side of ["middle", "left", "right"]) svg.append(draw("path", { class: side, d: paths[side] }));
    return svg;
  }

  function picture(tracklet, label) {
    const box = make("div", "strip");
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", label);
    const { strip, thumb } = tracklet;
    if (strip) {
      const reel = make("div", strip.frames > 1 ? "reel many" : "reel");
      reel.style.setProperty("--n", strip.frames);
      const film = make("div", "film");
      film.style.backgroundImage = `url("${strip.image}")`;
      reel.append(film);
      if (strip.skeletons.length) reel.append(skeleton(strip));
      box.append(reel);
    } else if (thumb !== null && map) {
      const rows = Math.max(Math.ceil(map.points.length / map.columns), 1);
      const [column, row] = [thumb % map.columns, Math.floor(thumb / map.columns)];
      const tile = make("div", "thumb");
      tile.style.backgroundImage = `url("${map.thumbs}")`;
      tile.style.backgroundSize = `${map.columns * 100}% ${rows * 100}%`;
      tile.style.backgroundPosition = `${(100 * column) / (map.columns - 1)}% ${rows > 1 ? (100 * row) / (rows - 1) : 0}%`;
      box.append(tile);
    } else {
      box.append(make("span", "nothing", "no picture"));
    }
    return box;
  }

  // ---- switches -------------------------------------------------------------------------------------------------

  function toggle(button, className, start) {
    const set = (on) => {
      root.classList.toggle(className, on);
      if (button) button.setAttribute("aria-pressed", String(on));
    };
    set(start);
    if (button) button.addEventListener("click", () => set(!root.classList.contains(className)));
  }
  toggle($("motion"), "moving", !matchMedia("(prefers-reduced-motion: reduce)").matches);
  toggle($("bones"), "bones", false);
  if ($("bones") && !tracklets.some((t) => t.strip && t.strip.skeletons.length)) $("bones").disabled = true;
  if ($("heat")) $("heat").addEventListener("input", () => root.style.setProperty("--heat", $("heat").value / 100));

  // ---- ranked lists ---------------------------------------------------------------------------------------------

  const onMap = new Map(map ? map.points.map(([tracklet], place) => [tracklet, place]) : []);
  let showOnMap = () => {};

  function entry(query, place) {
    const tracklet = tracklets[query.found[place]];
    const right = query.right === null ? null : Boolean(query.right[place]);
    const item = make("li", right === null ? "" : right ? "is-right" : "is-wrong");
    const verdict = right === null ? "" : right ? "right, " : "wrong, ";
    const distance = query.distances[place].toFixed(2);
    item.title = `${tracklet.name}: ${about(tracklet)}`;
    item.append(picture(tracklet, `Rank ${place + 1}, ${verdict}${tracklet.name}, ${about(tracklet)}, distance ${distance}`));
    const caption = make("p", "caption");
    caption.append(make("b", "", `${right === null ? "" : right ? "✓ " : "✗ "}${place + 1}`));
    caption.append(`${distance} · ${shortly(tracklet.camera)}`);
    if (!lists.scored && tracklet.person) caption.append(make("br"), tracklet.person);
    item.append(caption);
    return item;
  }

  function card(query) {
    const tracklet = tracklets[query.tracklet];
    const article = make("article", "query panel");
    const head = make("header");
    head.append(make("h3", "", tracklet.name), make("p", "", about(tracklet)));
    if (query.precision !== null) {
      const first = query.firstHit === 1 ? "✓ right at rank 1" : `✗ first match at rank ${query.firstHit.toLocaleString("en")}`;
      head.append(make("p", `sign ${query.firstHit === 1 ? "right" : "wrong"}`, first));
      head.append(make("p", "", `average precision ${(100 * query.precision).toFixed(1)} %`));
    } else if (lists.scored) {
      head.append(make("p", "", "no match in the gallery: not scored"));
    }
    if (onMap.has(query.tracklet)) {
      const button = make("button", "to-map", "Show on the map");
      button.type = "button";
      button.setAttribute("aria-label", `Show ${tracklet.name} on the map`);
      button.addEventListener("click", () => showOnMap(onMap.get(query.tracklet)));
      head.append(button);
    }
    const asked = make("div", "asked");
    asked.append(picture(tracklet, `Query ${tracklet.name}, ${about(tracklet)}`));
    const caption = make("p", "caption");
    caption.append(make("b", "", lists.scored ? "query" : "tracklet"), shortly(tracklet.camera));
    asked.append(caption);
    const found = make("ol", "found");
    query.found.forEach((_, place) => found.append(entry(query, place)));
    article.append(head, asked, found);
    return article;
  }

  if (lists) {
    let page = 0;
    const cameras = [...new Set(lists.queries.map((q) => tracklets[q.tracklet].camera))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    cameras.forEach((camera) => $("by-camera").append(new Option(camera, camera)));

    const outcome = (query) => {
      if (query.firstHit === null) return "";
      return query.firstHit === 1 ? "right" : query.right.some(Boolean) ? "wrong" : "missed";
    };
    const orders = {
      best: (chosen) => {
        const scored = chosen.filter((q) => q.precision !== null);
        return [...scored.reverse(), ...chosen.filter((q) => q.precision === null)];
      },
      name: (chosen) => chosen.sort((a, b) => tracklets[a.tracklet].name.localeCompare(tracklets[b.tracklet].name, "en", { numeric: true })),
      worst: (chosen) => chosen,
    };
    const value = (id) => ($(id) ? $(id).value : "");

    function chosen() {
      const camera = value("by-camera"), wanted = value("by-outcome"), text = value("by-text").trim().toLowerCase();
      const kept = lists.queries.filter((query) => {
        const tracklet = tracklets[query.tracklet];
        if (camera && tracklet.camera !== camera) return false;
        if (wanted && outcome(query) !== wanted && !(wanted === "wrong" && outcome(query) === "missed")) return false;
        return !text || `${tracklet.name}\n${tracklet.person}`.toLowerCase().includes(text);
      });
      return orders[value("order") || "worst"](kept);
    }

    function show() {
      const kept = chosen(), size = Number($("size").value);
      const pages = Math.max(Math.ceil(kept.length / size), 1);
      page = Math.min(page, pages - 1);
      $("queries").replaceChildren(...kept.slice(page * size, (page + 1) * size).map(card));
      $("page").textContent = `Page ${page + 1} of ${pages}`;
      $("previous").disabled = page === 0;
      $("next").disabled = page === pages - 1;
      const all = lists.queries.length, word = (count) => (lists.scored ? (count === 1 ? "query" : "queries") : count === 1 ? "tracklet" : "tracklets");
      $("count").textContent = kept.length === 0 ? `No ${word(1)} is like that.`
        : `${kept.length === all ? "" : `${kept.length.toLocaleString("en")} of `}${all.toLocaleString("en")} ${word(all)}`;
    }
    function turn(step) {
      page += step;
      show();
      $("count").scrollIntoView({ block: "start" });
    }
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    for (const id of ["by-camera", "by-outcome", "by-text", "order", "size"]) {
      if ($(id)) $(id).addEventListener("input", () => { page = 0; show(); });
    }
    $("previous").addEventListener("click", () => turn(-1));
    $("next").addEventListener("click", () => turn(1));
    show();
  }

  // ---- map ------------------------------------------------------------------------------------------------------

  // Shapes of equal area about the origin, told apart without colour.
  const SHAPES = [
    "M-1 0A1 1 0 1 0 1 0A1 1 0 1 0 -1 0Z", "M-.9-.9H.9V.9H-.9Z", "M0-1.25L1.15.85H-1.15Z", "M0-1.3L1.3 0L0 1.3L-1.3 0Z",
    "M0 1.25L1.15-.85H-1.15Z", "M-.4-1.2H.4V-.4H1.2V.4H.4V1.2H-.4V.4H-1.2V-.4H-.4Z",
  ];
  const WIDE = 1000, HIGH = 620, MARGIN = 30;

  if (map) {
    const plane = $("plane"), seen = $("seen"), help = $("map-help");
    const place = map.points.map(([, x, y]) => [
      MARGIN + (x / 1000) * (WIDE - 2 * MARGIN), MARGIN + (y / 1000) * (HIGH - 2 * MARGIN),
    ]);
    const first = new Map(lists ? lists.queries.map((q) => [q.tracklet, q]) : []);
    const links = draw("g", {});
    const marks = map.points.map(() => draw("path", { class: "point" }));
    plane.append(links, ...marks);
    let current = -1, pinned = false, unit = 7;

    const kinds = {
      camera: (t) => t.camera,
      person: (t) => t.person || "distractor",
      outcome: (t, i) => {
        const query = first.get(i);
        if (!query || query.firstHit === null) return "not a query, or not on this page";
        return query.firstHit === 1 ? "✓ right at rank 1" : "✗ wrong at rank 1";
      },
    };
    const fixed = { "✓ right at rank 1": [3, 0], "✗ wrong at rank 1": [2, 3], "not a query, or not on this page": [0, 0], "distractor": [0, 0] };

    function colour(by) {
      const names = map.points.map(([i]) => kinds[by](tracklets[i], i));
      const kept = [...new Set(names)].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
      const look = new Map(kept.map((name, n) => [name, fixed[name] || [1 + (n % 8), (n + Math.floor(n / 8)) % SHAPES.length]]));
      marks.forEach((mark, n) => {
        const [tone, shape] = look.get(names[n]);
        mark.setAttribute("class", `point tone-${tone}`);
        mark.setAttribute("d", SHAPES[shape]);
      });
      const shown = kept.length > 24 ? [] : kept;
      $("map-legend").replaceChildren(...shown.map((name) => {
        const [tone, shape] = look.get(name);
        const item = make("li"), key = draw("svg", { class: `key mark tone-${tone}`, viewBox: "-1.4 -1.4 2.8 2.8", "aria-hidden": "true" });
        key.append(draw("path", { class: "bar", d: SHAPES[shape] }));
        item.append(key, name);
        return item;
      }));
      if (!shown.length) $("map-legend").append(make("li", "", `${kept.filter((name) => !fixed[name]).length} people: colours and shapes repeat; point at one to see whose it is.`));
      pick(current);
    }

    function scale() {
      // The plane shrinks on a phone, the marks do not.
      unit = 4.6 * (WIDE / Math.max(plane.getBoundingClientRect().width, 1));
      if (marks.length > 600) unit *= 0.8;
      marks.forEach((mark, n) => mark.setAttribute("transform", `translate(${place[n][0].toFixed(1)} ${place[n][1].toFixed(1)}) scale(${(n === current ? 1.35 * unit : unit).toFixed(2)})`));
    }

    function pick(n) {
      current = n;
      plane.classList.toggle("picked", n >= 0);
      links.replaceChildren();
      marks.forEach((mark) => mark.classList.remove("same", "chosen"));
      if (n < 0) {
        seen.replaceChildren(help);
        scale();
        return;
      }
      const [index] = map.points[n], tracklet = tracklets[index];
      let same = 0;
      map.points.forEach(([i], m) => {
        if (m === n || !tracklet.person || tracklets[i].person !== tracklet.person) return;
        same += 1;
        marks[m].classList.add("same");
        links.append(draw("line", { class: "link", x1: place[n][0], y1: place[n][1], x2: place[m][0], y2: place[m][1] }));
      });
      marks[n].classList.add("chosen");
      const text = make("div");
      text.append(make("p", "", tracklet.name), make("p", "hint", about(tracklet)));
      if (tracklet.person) text.append(make("p", "hint", same ? `${plural(same, "other tracklet")} of the same person, linked` : "no other tracklet of this person here"));
      const query = first.get(index);
      if (query && query.firstHit !== null) text.append(make("p", `sign ${query.firstHit === 1 ? "right" : "wrong"}`, query.firstHit === 1 ? "✓ right at rank 1" : `✗ first match at rank ${query.firstHit}`));
      seen.replaceChildren(picture(tracklet, tracklet.name), text);
      scale();
    }

    function nearest(event) {
      const box = plane.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * WIDE, y = ((event.clientY - box.top) / box.height) * HIGH;
      let best = -1, least = (26 * WIDE) / box.width;
      place.forEach(([u, v], n) => {
        const far = Math.hypot(u - x, v - y);
        if (far < least) [best, least] = [n, far];
      });
      return best;
    }
    function step(dx, dy) {
      if (current < 0) return pick(0);
      const [x, y] = place[current];
      let best = -1, least = Infinity;
      place.forEach(([u, v], n) => {
        const along = (u - x) * dx + (v - y) * dy, across = Math.abs((u - x) * dy - (v - y) * dx);
        const cost = along + 2 * across;
        if (n !== current && along > 0 && across <= 2 * along && cost < least) [best, least] = [n, cost];
      });
      if (best >= 0) pick(best);
    }

    plane.addEventListener("pointermove", (event) => { if (!pinned && event.pointerType === "mouse") { const n = nearest(event); if (n !== current) pick(n); } });
    plane.addEventListener("pointerleave", () => { if (!pinned && document.activeElement !== plane) pick(-1); });
    plane.addEventListener("click", (event) => { const n = nearest(event); pinned = n >= 0 && !(pinned && n === current); pick(n); });
    plane.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.key === "Escape") { pinned = false; pick(-1); return; }
      if (!(event.key in steps)) return;
      event.preventDefault();
      pinned = true;
      step(...steps[event.key]);
    });
    for (const radio of document.querySelectorAll('input[name="colour"]')) radio.addEventListener("change", () => colour(radio.value));
    showOnMap = (n) => {
      pinned = true;
      pick(n);
      $("map").scrollIntoView({ block: "start" });
      plane.focus({ preventScroll: true });
    };
    colour("camera");
    new ResizeObserver(scale).observe(plane);
  }
})();
