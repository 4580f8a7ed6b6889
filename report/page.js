"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const root = document.documentElement;
  const narrow = () => window.innerWidth < 700;
  const coarse = window.matchMedia("(pointer: coarse)").matches;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let printing = false;

  // Text goes into the page as text nodes only: an id may be anything.
  function make(tag, text, className) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  }
  function named(text, className) {
    return make("bdi", text, className);
  }

  // ---- theme ----------------------------------------------------------------------------------------------------
  function isDark() {
    if (printing) return false;
    return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  }
  function ink() {
    return isDark()
      ? { text: "#e6eaf0", soft: "#a3adbb", grid: "#2b3340", line: "#566172", paper: "#171c24", mute: "#4d5866" }
      : { text: "#1b2430", soft: "#566172", grid: "#e6e9ee", line: "#9aa4b2", paper: "#ffffff", mute: "#c3cad4" };
  }
  function themed(layout) {
    const c = ink();
    const out = { ...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
    out.font = { ...layout.font, color: c.text };
    out.hoverlabel = { ...layout.hoverlabel, bgcolor: c.paper, bordercolor: c.line, font: { color: c.text, size: 13 } };
    out.modebar = { bgcolor: "rgba(0,0,0,0)", color: c.soft, activecolor: c.text };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) {
        out[key] = { ...layout[key], gridcolor: c.grid, linecolor: c.line, zerolinecolor: c.grid, tickcolor: c.line };
      }
    }
    return out;
  }
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    // A report sends nothing to anybody.
    showSendToCloud: false,
    plotlyServerURL: "",
    doubleClick: "reset",
  };

  // ---- plots made beforehand -------------------------------------------------------------------------------------
  // On a phone the panels of a figure are below one another.
  function stacked({ data: traces, layout }) {
    // The last panel of a grid may be empty: it has axes, but nothing is drawn on them.
    const used = new Set(traces.map((trace) => (trace.xaxis || "x").replace("x", "xaxis")));
    const axes = Object.keys(layout).filter((k) => used.has(k));
    // Already below one another: only what is next to them has to move.
    if (axes.every((k) => (layout[k].domain || [0, 1]).join() === "0,1")) return beneath(layout);
    const out = { ...layout, height: 300 * axes.length + 130, margin: { ...layout.margin, l: 52, r: 10, b: 130 } };
    const part = 1 / axes.length;
    const where = new Map();
    axes.forEach((key, i) => {
      const y = key.replace("x", "y");
      const high = 1 - i * part;
      const spot = [high - part * 0.72, high - part * 0.02];
      where.set((layout[key].domain || [0, 1]).join() + (layout[y].domain || [0, 1]).join(), spot);
      out[key] = { ...layout[key], domain: [0, 1] };
      out[y] = { ...layout[y], domain: spot };
    });
    const spots = [...where.values()];
    out.annotations = (layout.annotations || []).map((a, i) => (spots[i] ? { ...a, x: 0.5, y: spots[i][1] } : a));
    return out;
  }
  function beneath(layout) {
    const scale = layout.coloraxis && layout.coloraxis.colorbar;
    if (!scale) return layout;
    const bar = { ...scale, orientation: "h", thickness: 10, len: 1, x: 0.5, y: 0, yref: "container", yanchor: "bottom" };
    return {
      ...layout,
      height: layout.height + 110,
      margin: { ...layout.margin, b: layout.margin.b + 110 },
      coloraxis: { ...layout.coloraxis, colorbar: { ...bar, tickvals: [0, 0.5, 1] } },
      legend: { ...layout.legend, y: 72 / (layout.height + 110) },
      annotations: (layout.annotations || []).map((a) => ({ ...a, x: 1, xanchor: "right", font: { ...a.font, size: 12 } })),
    };
  }
  // Long names leave no space for the bars there. An escaped character counts as one.
  function shortened(layout) {
    const named = Object.keys(layout).filter((k) => /^yaxis\d*$/.test(k) && layout[k].ticktext);
    if (!named.length) return layout;
    const cut = (text) => {
      const letters = text.trim().match(/&\w+;|./gsu) || [];
      return letters.length > 18 ? `${letters.slice(0, 17).join("")}… ` : text;
    };
    const out = { ...layout };
    for (const y of named) {
      const x = y.replace("y", "x");
      out[y] = { ...layout[y], ticktext: [...layout[y].ticktext].map(cut) };
      out[x] = { nticks: 4, ...layout[x] };
    }
    return out;
  }
  // On a phone each entry of a legend has a line of its own, below the axis.
  function roomy(figure, layout) {
    const named = figure.data.filter((trace) => trace.showlegend !== false && trace.name);
    const entries = new Set(named.map((trace) => trace.name)).size;
    const more = 26 * entries + 40 - layout.margin.b;
    if (layout.coloraxis || entries < 2 || more <= 0) return layout;
    return { ...layout, height: layout.height + more, margin: { ...layout.margin, b: layout.margin.b + more } };
  }
  function drawFigure(name) {
    const box = $(`plot-${name}`);
    const figure = data.figures[name];
    if (!box || !figure) return;
    const layout = themed(narrow() ? roomy(figure, shortened(stacked(figure))) : figure.layout);
    if (coarse) layout.dragmode = false;
    Plotly.react(box, figure.data, layout, config);
  }
  function drawFigures() {
    for (const name of Object.keys(data.figures)) drawFigure(name);
  }

  // ---- sortable tables -------------------------------------------------------------------------------------------
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const number = head.classList.contains("num");
        const before = head.getAttribute("aria-sort");
        const down = before ? before === "ascending" : number;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => {
          const cell = row.cells[column];
          return cell.dataset.value !== undefined ? cell.dataset.value : cell.textContent.trim();
        };
        const rows = [...table.tBodies[0].rows];
        const empty = rows.filter((row) => key(row) === "");
        const full = rows.filter((row) => key(row) !== "");
        full.sort((a, b) => (number ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, { numeric: true })));
        if (down) full.reverse();
        table.tBodies[0].append(...full, ...empty);
      });
    });
  }

  // ---- the map ---------------------------------------------------------------------------------------------------
  function numbers(text, Kind) {
    const raw = atob(text);
    const bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new Kind(bytes.buffer);
  }
  const NONE = 65535;
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1"];
  // Both ramps run in one direction of lightness, so they survive any colour vision and a grey printer.
  const RAMPS = {
    light: [[0, "#f2b134"], [0.35, "#d8576b"], [0.7, "#7a2a8c"], [1, "#1f0c48"]],
    dark: [[0, "#4662d7"], [0.35, "#3aa2b8"], [0.7, "#9bd770"], [1, "#fdf3a0"]],
  };
  let map = null;

  function prepare(m) {
    map = { ...m, n: m.ids.length, starts: numbers(m.starts, Int32Array), members: numbers(m.members, Int32Array) };
    map.group = numbers(m.group, Uint8Array);
    map.degree = numbers(m.degree, Uint16Array);
    map.responses = m.responses && numbers(m.responses, Int32Array);
    map.wrong = m.wrong && numbers(m.wrong, Uint16Array);
    map.maps = m.maps.map((one) => ({
      ...one,
      pca: split(numbers(one.pca, Int16Array)),
      tsne: one.tsne && split(numbers(one.tsne, Int16Array)),
      twins: numbers(one.twins, Uint16Array),
      nearest: numbers(one.nearest, Uint16Array),
      cosine: numbers(one.cosine, Int8Array),
      together: one.together && numbers(one.together, Uint16Array),
    }));
    map.low = map.ids.map((id, i) => (map.names.length ? `${id} ${map.names[i]}` : id).toLowerCase());
  }
  function split(both) {
    const n = both.length / 2;
    const x = new Float32Array(n), y = new Float32Array(n);
    for (let i = 0; i < n; i++) { x[i] = both[2 * i]; y[i] = both[2 * i + 1]; }
    return { x, y };
  }
  const conceptsOf = (i) => map.members.subarray(map.starts[i], map.starts[i + 1]);
  const rightOf = (i) => (map.wrong && map.wrong[i] !== NONE ? 1 - map.wrong[i] / 10000 : null);
  // The empirical logit: half a response is added to either side, so a question without wrong answers has one too.
  function difficultyOf(i) {
    const right = rightOf(i);
    if (right === null) return null;
    const n = map.responses[i];
    return Math.log(((1 - right) * n + 0.5) / (right * n + 0.5));
  }
  const state = { way: "pca", colour: "concept", concept: -1, question: -1 };

  function colouring() {
    const c = ink();
    if (state.colour === "concept") {
      const scale = [];
      for (let g = 0; g <= map.groups; g++) {
        const colour = g < map.groups ? COLOURS[g] : c.mute;
        scale.push([g / (map.groups + 1), colour], [(g + 1) / (map.groups + 1), colour]);
      }
      return { color: Float32Array.from(map.group), colorscale: scale, cmin: -0.5, cmax: map.groups + 0.5 };
    }
    const read = { difficulty: difficultyOf, rate: rightOf, degree: (i) => map.degree[i] }[state.colour];
    const color = new Float32Array(map.n);
    const known = [];
    for (let i = 0; i < map.n; i++) {
      const v = read(i);
      color[i] = v === null ? NaN : v;
      if (v !== null) known.push(v);
    }
    known.sort((a, b) => a - b);
    const at = (share) => known[Math.min(known.length - 1, Math.floor(share * known.length))];
    let low = known.length ? at(0.02) : 0, high = known.length ? at(0.98) : 1;
    if (state.colour === "rate") { low = 0; high = 1; }
    if (low === high) high = low + 1;
    return { color, colorscale: RAMPS[isDark() ? "dark" : "light"], cmin: low, cmax: high };
  }

  function columns() {
    const wide = Math.max(1, Math.floor($("plot-map").clientWidth / 330));
    return Math.max(1, Math.min(map.maps.length, narrow() ? 1 : Math.min(3, wide)));
  }
  function placesOf(one) {
    return one[state.way] || one.pca;
  }
  // Two layers: below, in grey, the smaller concepts or the questions without a figure; above, the others.
  function layers() {
    const look = colouring();
    const below = [], above = [];
    for (let i = 0; i < map.n; i++) {
      const grey = state.colour === "concept" ? map.group[i] === map.groups : Number.isNaN(look.color[i]);
      (grey ? below : above).push(i);
    }
    look.color = Float32Array.from(above, (i) => look.color[i]);
    state.layers = [below, above];
    return look;
  }
  function members(concept) {
    const out = [];
    for (let i = 0; i < map.n; i++) if (conceptsOf(i).includes(concept)) out.push(i);
    return out;
  }
  function ringed(one) {
    if (state.question < 0) return { x: [], y: [], size: [] };
    const at = placesOf(one), m = map.maps.indexOf(one);
    const who = [state.question, ...neighboursOf(m, state.question).map((n) => n.who)];
    return { x: who.map((i) => at.x[i]), y: who.map((i) => at.y[i]), size: who.map((_, j) => (j ? 11 : 20)) };
  }
  function drawMap() {
    const c = ink();
    const box = $("plot-map");
    const cols = columns(), rows = Math.ceil(map.maps.length / cols);
    const width = box.clientWidth;
    const cell = Math.min(width / cols, 430);
    const look = layers();
    const size = map.n > 8000 ? 3 : map.n > 1500 ? 4.5 : 7;
    const only = state.concept < 0 ? null : new Set(members(state.concept));
    const traces = [];
    const layout = themed({
      height: Math.round(rows * (cell + 26)) + 8,
      margin: { l: 4, r: 4, t: 4, b: 4 },
      font: { family: "system-ui, sans-serif", size: 13 },
      showlegend: false,
      hovermode: "closest",
      hoverdistance: 12,
      dragmode: coarse ? false : "pan",
      annotations: [],
    });
    map.maps.forEach((one, m) => {
      const col = m % cols, row = Math.floor(m / cols);
      const tag = m ? String(m + 1) : "";
      const left = col / cols, top = 1 - row / rows;
      const head = 26 / layout.height;
      const spot = { showgrid: false, zeroline: false, showticklabels: false, showline: true, mirror: true, linecolor: c.grid, fixedrange: false };
      layout[`xaxis${tag}`] = { ...spot, domain: [left + 0.006, left + 1 / cols - 0.006], anchor: `y${tag}`, range: [-33000, 33000] };
      layout[`yaxis${tag}`] = { ...spot, domain: [top - 1 / rows + 0.006, top - head], anchor: `x${tag}`, range: [-33000, 33000] };
      layout.annotations.push({
        text: escaped(one.label), xref: "paper", yref: "paper", x: left + 0.008, y: top, xanchor: "left", yanchor: "top",
        showarrow: false, font: { size: 14 },
      });
      const at = placesOf(one);
      const axes = { xaxis: `x${tag}`, yaxis: `y${tag}`, hoverinfo: "none", type: "scattergl", mode: "markers" };
      state.layers.forEach((who, layer) => traces.push({
        ...axes, x: who.map((i) => at.x[i]), y: who.map((i) => at.y[i]),
        marker: layer ? { size, opacity: 0.85, ...look } : { size, opacity: 0.8, color: c.mute },
        selectedpoints: only && [...who.keys()].filter((j) => only.has(who[j])),
        selected: { marker: { opacity: 0.95, size: size + 1, ...(layer ? {} : { color: c.soft }) } },
        unselected: { marker: { opacity: 0.05 } },
      }));
      const ring = ringed(one);
      traces.push({
        ...axes, x: ring.x, y: ring.y, hoverinfo: "skip",
        marker: { size: ring.size, symbol: "circle-open", color: c.text, line: { width: 2, color: c.text } },
      });
    });
    const drawn = Plotly.react(box, traces, layout, { ...config, scrollZoom: false });
    legend(look, state.layers[0].length);
    note();
    return drawn;
  }
  function escaped(text) {
    return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }
  // Choosing a question moves only the rings; everything else stays on the graphics card.
  function ring() {
    const rings = map.maps.map(ringed);
    const which = map.maps.map((_, m) => 3 * m + 2);
    Plotly.restyle($("plot-map"), { x: rings.map((r) => r.x), y: rings.map((r) => r.y), "marker.size": rings.map((r) => r.size) }, which);
  }
  function legend(look, unknown) {
    const box = $("legend");
    box.replaceChildren();
    const entry = (colour, node) => {
      const span = make("span"), dot = make("i");
      dot.style.background = colour;
      span.append(dot, node);
      box.append(span);
    };
    if (state.colour === "concept") {
      box.append(make("span", "Largest concepts:"));
      map.order.slice(0, map.groups).forEach((c, g) => entry(COLOURS[g], named(short(map.concepts[c], 40))));
      if (map.order.length > map.groups) entry(ink().mute, make("span", `${map.order.length - map.groups} smaller concepts`));
      return;
    }
    const span = make("span"), ramp = make("i", undefined, "ramp");
    const words = { difficulty: ["difficulty (log-odds of a wrong answer)", 1], rate: ["share of right answers", 2], degree: ["concepts in the training graph", 0] }[state.colour];
    ramp.style.background = `linear-gradient(90deg, ${look.colorscale.map(([p, c]) => `${c} ${p * 100}%`).join(", ")})`;
    ramp.style.borderRadius = "3px";
    span.append(make("span", look.cmin.toFixed(words[1])), ramp, make("span", look.cmax.toFixed(words[1])), make("span", words[0]));
    box.append(span);
    if (unknown) entry(ink().mute, make("span", `${unknown.toLocaleString("en")} without training responses`));
  }
  function note() {
    const parts = map.maps.map((one) => {
      if (state.way === "pca") {
        return `${one.label}: the two axes hold ${((one.explained[0] + one.explained[1]) * 100).toFixed(0)} % of the variance`;
      }
      if (!one.tsne) return `${one.label}: too few distinct vectors for t-SNE, PCA is shown`;
      return `${one.label}: ${one.landmarks.toLocaleString("en")} distinct vectors arranged`;
    });
    const about = state.way === "pca" ? "" : " In t-SNE, neighbourhoods have a meaning; distances between clusters and their sizes don’t. Vectors that t-SNE did not place are put between their nearest placed ones.";
    $("map-note").textContent = parts.join("; ") + "." + about;
  }
  const short = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

  // ---- one question ----------------------------------------------------------------------------------------------
  function neighboursOf(m, i) {
    const one = map.maps[m], k = map.neighbours, out = [];
    for (let j = 0; j < k; j++) {
      const who = one.nearest[i * k + j];
      out.push({ who, cosine: one.cosine[i * k + j] / 100, together: one.together ? one.together[i * k + j] : null });
    }
    return out;
  }
  function why(i, near) {
    const own = new Set(conceptsOf(i));
    const shared = [...conceptsOf(near.who)].filter((c) => own.has(c)).map((c) => short(map.concepts[c], 40));
    const said = [shared.length ? `shares ${shared.slice(0, 3).join(", ")}${shared.length > 3 ? ` and ${shared.length - 3} more` : ""}` : "shares no concept"];
    if (near.together !== null) said.push(near.together ? `${near.together} training student${near.together > 1 ? "s" : ""} answered both` : "no training student answered both");
    return said.join("; ");
  }
  function title(i) {
    return map.names.length && map.names[i] ? `${map.ids[i]} · ${map.names[i]}` : map.ids[i];
  }
  function facts(i) {
    const names = [...conceptsOf(i)].map((c) => map.concepts[c]);
    const out = [names.length ? `Concepts: ${names.join(", ")}` : "No concept"];
    const right = rightOf(i);
    if (map.wrong) {
      out.push(right === null ? "No training response" : `Difficulty ${difficultyOf(i).toFixed(2)} log-odds; ${(right * 100).toFixed(0)} % right of ${map.responses[i].toLocaleString("en")} training responses`);
    }
    out.push(`${map.degree[i]} concept${map.degree[i] === 1 ? "" : "s"} in the training graph`);
    return out;
  }
  function twins(m, i) {
    const n = map.maps[m].twins[i];
    return n ? `${n.toLocaleString("en")} other question${n > 1 ? "s have" : " has"} the very same vector` : "";
  }
  function tip(event, m, i) {
    const box = $("tip");
    box.replaceChildren(named(short(title(i), 160), "id"));
    for (const line of facts(i)) { const p = make("p"); p.append(named(short(line, 220))); box.append(p); }
    box.append(make("p", `Nearest by ${map.maps[m].label}:`, "small"));
    for (const near of neighboursOf(m, i)) {
      const p = make("p");
      p.append(named(short(map.ids[near.who], 60)), ` ${near.cosine.toFixed(2)} – `, named(why(i, near)));
      box.append(p);
    }
    if (twins(m, i)) box.append(make("p", twins(m, i), "small"));
    box.hidden = false;
    const x = event.clientX, y = event.clientY, w = box.offsetWidth, h = box.offsetHeight;
    box.style.left = `${Math.max(4, x + 16 + w > window.innerWidth ? x - w - 16 : x + 16)}px`;
    box.style.top = `${Math.max(4, Math.min(y + 12, window.innerHeight - h - 6))}px`;
  }
  function choose(i, focus) {
    state.question = i;
    const card = $("question");
    card.replaceChildren();
    const head = make("h3");
    head.append(named(title(i)));
    card.append(head);
    for (const line of facts(i)) { const p = make("p"); p.append(named(line)); card.append(p); }
    const grid = make("div", undefined, "near");
    map.maps.forEach((one, m) => {
      const part = make("div"), list = make("ol");
      part.append(make("h4", `Nearest by ${one.label}`));
      for (const near of neighboursOf(m, i)) {
        const item = make("li"), button = make("button");
        button.type = "button";
        button.append(named(short(title(near.who), 90)));
        button.addEventListener("click", () => choose(near.who, true));
        const reason = make("span");
        reason.append(named(`cosine ${near.cosine.toFixed(2)}; ${why(i, near)}`));
        item.append(button, reason);
        list.append(item);
      }
      part.append(list);
      if (twins(m, i)) part.append(make("p", twins(m, i), "small"));
      grid.append(part);
    });
    card.append(grid);
    ring();
    if (focus) card.focus({ preventScroll: false });
  }

  function search(text) {
    const wanted = text.trim().toLowerCase();
    const list = $("search-results"), status = $("search-status");
    list.replaceChildren();
    list.hidden = !wanted;
    if (!wanted) { status.textContent = ""; return; }
    const exact = [], starting = [], inside = [];
    const concepts = new Set(map.concepts.flatMap((c, k) => (c.toLowerCase().includes(wanted) ? [k] : [])));
    for (let i = 0; i < map.n; i++) {
      if (map.ids[i].toLowerCase() === wanted) exact.push(i);
      else if (map.low[i].startsWith(wanted)) starting.push(i);
      else if (map.low[i].includes(wanted) || conceptsOf(i).some((c) => concepts.has(c))) inside.push(i);
    }
    const found = [...exact, ...starting, ...inside];
    status.textContent = found.length ? `${found.length.toLocaleString("en")} questions found` : "No question found";
    if (!found.length) list.append(make("li", map.n < map.total ? "No such question on the map (it is a sample)" : "No such question", "small"));
    for (const i of found.slice(0, 30)) {
      const item = make("li"), button = make("button");
      button.type = "button";
      button.append(named(short(title(i), 120)), make("br"), named(short([...conceptsOf(i)].map((c) => map.concepts[c]).join(", "), 120), "small"));
      button.addEventListener("click", () => { list.hidden = true; choose(i, true); });
      item.append(button);
      list.append(item);
    }
  }

  function wire() {
    const box = $("plot-map");
    for (const c of map.order) {
      const option = make("option", `${short(map.concepts[c], 60)} (${map.sizes[c].toLocaleString("en")})`);
      option.value = c;
      $("concept").append(option);
    }
    if (!map.wrong) for (const option of [...$("colour").options]) if (["difficulty", "rate"].includes(option.value)) { option.disabled = true; option.textContent += " (no students)"; }
    if (map.maps.every((one) => !one.tsne)) document.querySelector("input[value=tsne]").disabled = true;
    for (const radio of document.querySelectorAll("input[name=way]")) radio.addEventListener("change", () => { state.way = radio.value; drawMap(); });
    $("colour").addEventListener("change", (e) => { state.colour = e.target.value; drawMap(); });
    $("concept").addEventListener("change", (e) => { state.concept = e.target.value === "" ? -1 : +e.target.value; drawMap(); });
    let waiting = 0;
    $("search").addEventListener("input", (e) => { clearTimeout(waiting); waiting = setTimeout(() => search(e.target.value), 90); });
    const first = () => $("search-results").querySelector("button");
    $("search").addEventListener("keydown", (e) => {
      if (e.key === "Escape") { e.target.value = ""; search(""); }
      if (e.key === "ArrowDown" && first()) { e.preventDefault(); first().focus(); }
      if (e.key === "Enter") { clearTimeout(waiting); search(e.target.value); if (first()) first().click(); }
    });
    $("search-results").addEventListener("keydown", (e) => {
      const item = e.target.closest("li");
      if (e.key === "Escape") { $("search-results").hidden = true; $("search").focus(); }
      if (e.key === "ArrowDown" && item && item.nextSibling) { e.preventDefault(); item.nextSibling.firstChild.focus(); }
      if (e.key === "ArrowUp" && item) { e.preventDefault(); (item.previousSibling ? item.previousSibling.firstChild : $("search")).focus(); }
    });
    document.addEventListener("click", (e) => { if (!e.target.closest(".search")) $("search-results").hidden = true; });
    // Every map is three traces: two layers of questions, and the rings.
    const hit = (event) => {
      const point = event.points && event.points[0];
      if (!point || point.curveNumber % 3 === 2) return null;
      return { m: Math.floor(point.curveNumber / 3), i: state.layers[point.curveNumber % 3][point.pointNumber] };
    };
    box.on("plotly_hover", (event) => { const at = hit(event); if (at) tip(event.event, at.m, at.i); });
    box.on("plotly_unhover", () => { $("tip").hidden = true; });
    box.on("plotly_click", (event) => { const at = hit(event); if (at) choose(at.i, false); });
  }

  // ---- start -----------------------------------------------------------------------------------------------------
  function drawAll() {
    drawFigures();
    return map ? drawMap() : null;
  }
  const button = $("theme");
  function label() {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
    button.removeAttribute("aria-pressed");
  }
  button.hidden = false;
  label();
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); drawAll(); });
  dark.addEventListener("change", () => { label(); drawAll(); });
  window.addEventListener("beforeprint", () => { printing = true; drawAll(); });
  window.addEventListener("afterprint", () => { printing = false; drawAll(); });

  let was = window.innerWidth;
  let resizing = 0;
  window.addEventListener("resize", () => {
    if (window.innerWidth === was) return;
    was = window.innerWidth;
    clearTimeout(resizing);
    resizing = setTimeout(drawAll, 120);
  });
  drawFigures();
  if (data.map) {
    prepare(data.map);
    const began = performance.now();
    Promise.resolve(drawMap()).then(() => {
      wire();
      root.dataset.mapSeconds = ((performance.now() - began) / 1000).toFixed(3);
      root.dataset.ready = "yes";
    });
  } else {
    root.dataset.ready = "yes";
  }
})();
