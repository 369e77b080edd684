"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const { rows, classes } = data;
  const memory = `jaxnlt.review.${data.identity}`;
  // Row -> { action, label }; label is the number of a class.
  const decisions = new Map();
  const past = []; // [row, what was decided before]
  let at = 0;
  let remembers = true;

  // Names may hold what a screen obeys, such as marks that turn its direction.
  const shown = (text) =>
    String(text).replace(
      /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu,
      (c) => `\\u{${c.codePointAt(0).toString(16)}}`,
    );
  const named = (row) =>
    data.column === "index" ? `row ${row.id}` : shown(row.id);
  const className = (k) => shown(classes[k]);
  const percent = (share, words) =>
    share === null ? "" : `${Math.round(100 * share)} %${words}`;

  // Progress ----------------------------------------------------------------

  // An image that nobody can see goes unless somebody decides otherwise.
  rows.forEach((row, k) => {
    if (row.unreadable) decisions.set(k, { action: "drop", label: row.given });
  });

  function recall() {
    const places = new Map(rows.map((row, k) => [String(row.id), k]));
    try {
      const kept = JSON.parse(localStorage.getItem(memory) || "[]");
      for (const [id, action, name] of kept) {
        const k = places.get(id);
        const label = classes.indexOf(name);
        if (k === undefined || label < 0) continue;
        if (["keep", "relabel", "drop"].includes(action)) {
          decisions.set(k, { action, label });
        }
      }
    } catch {
      remembers = false;
    }
  }

  function remember() {
    const kept = [...decisions].map(([k, { action, label }]) => [
      String(rows[k].id), action, classes[label],
    ]);
    try {
      localStorage.setItem(memory, JSON.stringify(kept));
    } catch {
      remembers = false;
    }
  }

  // Deciding ----------------------------------------------------------------

  function decide(action, label) {
    past.push([at, decisions.get(at)]);
    decisions.set(at, { action, label });
    remember();
    const decided = at;
    at = nextUndecided();
    say(`${named(rows[decided])}: ${inWords(decided)}`);
    drawTile(decided);
    draw();
  }

  function relabel(label) {
    decide(label === rows[at].given ? "keep" : "relabel", label);
  }

  const accept = () => relabel(rows[at].suggested);
  const keep = () => relabel(rows[at].given);
  const drop = () => decide("drop", rows[at].given);

  function undo() {
    const last = past.pop();
    if (!last) return say("nothing to undo");
    const [row, before] = last;
    if (before) decisions.set(row, before);
    else decisions.delete(row);
    remember();
    at = row;
    say(`${named(rows[row])}: undone`);
    drawTile(row);
    draw();
  }

  // After the row at hand, else from the start; the row itself if all are done.
  function nextUndecided() {
    for (let step = 1; step <= rows.length; step += 1) {
      const k = (at + step) % rows.length;
      if (!decisions.has(k)) return k;
    }
    return at;
  }

  function move(to) {
    at = Math.min(Math.max(to, 0), rows.length - 1);
    say("");
    draw();
  }

  function inWords(k) {
    const { action, label } = decisions.get(k);
    if (action === "drop") return "drop";
    return action === "keep" ? `keep ${className(label)}` : className(label);
  }

  // Drawing -----------------------------------------------------------------

  function onClick(button, command) {
    button.addEventListener("click", (event) => {
      // Of a mouse: else Enter would press the same button again.
      if (event.detail) button.blur();
      command();
    });
  }

  const say = (text) => { byId("note").textContent = text; };

  function fill(frame, row) {
    frame.replaceChildren();
    if (!row.picture) {
      frame.textContent = row.unreadable ? "cannot be read"
        : data.column === "index" ? named(row) : "no picture";
      return;
    }
    const image = document.createElement("img");
    image.alt = "";
    image.src = row.picture;
    image.addEventListener("load", () => {
      image.classList.toggle("tiny", image.naturalWidth < 96);
    });
    frame.append(image);
  }

  const tiles = rows.map((row, k) => {
    const tile = document.createElement("button");
    tile.type = "button";
    const frame = document.createElement("div");
    frame.className = "frame";
    fill(frame, row);
    tile.append(frame, document.createElement("span"));
    onClick(tile, () => move(k));
    return tile;
  });

  function drawTile(k) {
    const row = rows[k];
    const decision = decisions.get(k);
    const text = decision ? inWords(k) : className(row.given);
    tiles[k].className = decision ? decision.action : "";
    tiles[k].lastChild.textContent = text;
    tiles[k].title = `${named(row)}: ${text}`;
  }

  function label(button, text, key) {
    const hint = document.createElement("kbd");
    hint.textContent = key;
    button.replaceChildren(`${text} `, hint);
  }

  function draw() {
    const row = rows[at];
    fill(byId("frame"), row);
    byId("name").textContent = named(row);
    byId("place").textContent = `${at + 1} of ${rows.length}`;
    byId("kind").textContent = row.kind || (row.flagged ? "flagged" : "");
    byId("given").textContent = className(row.given);
    byId("clean").textContent = percent(row.clean, " likely right");
    byId("suggested").textContent = className(row.suggested);
    byId("probability").textContent = row.suggested === row.predicted
      ? percent(row.predictedProbability, " by the vote") : "";
    const agreed = row.suggested === row.given;
    byId("accept").hidden = agreed;
    label(byId("accept"), `Accept ${className(row.suggested)}`, "A");
    label(byId("keep"), `Keep ${className(row.given)}`, "K");
    byId("keep").classList.toggle("main", agreed);
    const decision = decisions.get(at);
    byId("decided").textContent = decision ? inWords(at) : "not yet";
    byId("decided").className = decision ? decision.action : "";
    byId("undo").disabled = !past.length;
    byId("before").disabled = at === 0;
    byId("after").disabled = at === rows.length - 1;
    const done = decisions.size;
    byId("count").textContent = `${done} of ${rows.length} decided`;
    byId("filled").style.width = `${(100 * done) / rows.length}%`;
    byId("bar").setAttribute("aria-valuemax", rows.length);
    byId("bar").setAttribute("aria-valuenow", done);
    byId("download").disabled = !done;
    tiles.forEach((tile, k) => {
      if (k === at) tile.setAttribute("aria-current", "true");
      else tile.removeAttribute("aria-current");
    });
    if (byId("sheet").scrollHeight > byId("sheet").clientHeight) {
      tiles[at].scrollIntoView({ block: "nearest" });
    }
    if (!remembers) {
      say("This browser keeps no progress: download before you leave.");
    }
  }

  // Choosing another class --------------------------------------------------

  const chooser = byId("chooser");
  let offered = [];
  let chosen = 0;

  function offer() {
    const part = byId("filter").value.toLowerCase();
    offered = classes
      .map((name, k) => k)
      .filter((k) => classes[k].toLowerCase().includes(part));
    chosen = 0;
    byId("options").replaceChildren(...offered.map((k, place) => {
      const option = document.createElement("li");
      option.setAttribute("role", "option");
      option.textContent = className(k);
      option.addEventListener("click", () => { chosen = place; choose(); });
      return option;
    }));
    if (!offered.length) {
      const none = document.createElement("p");
      none.textContent = "no class has this in its name";
      byId("options").append(none);
    }
    mark();
  }

  function mark() {
    [...byId("options").children].forEach((option, place) => {
      option.setAttribute("aria-selected", String(place === chosen));
      if (place === chosen) option.scrollIntoView({ block: "nearest" });
    });
  }

  function choose() {
    if (!offered.length) return;
    chooser.close();
    relabel(offered[chosen]);
  }

  function openChooser() {
    byId("filter").value = "";
    chooser.showModal();
    offer();
  }

  byId("filter").addEventListener("input", offer);
  chooser.addEventListener("keydown", (event) => {
    // Until the next frame the focus may stay in a dialog that is closed.
    if (!chooser.open) return;
    event.stopPropagation();
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && offered.length) {
      chosen = (chosen + step + offered.length) % offered.length;
      mark();
    } else if (event.key === "Enter") {
      choose();
    } else {
      return;
    }
    event.preventDefault();
  });

  // Downloading -------------------------------------------------------------

  // As cells.py: no spreadsheet takes a name for a formula.
  const guarded = (text) => (/^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text);

  function cell(value) {
    const text = typeof value === "string" ? guarded(value) : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function table() {
    const lines = [[data.column, "label", "action", "given_label"]];
    for (const k of [...decisions.keys()].sort((a, b) => a - b)) {
      const { action, label: name } = decisions.get(k);
      lines.push([
        rows[k].id, action === "drop" ? "" : classes[name], action,
        classes[rows[k].given],
      ]);
    }
    // The mark and the line ends that spreadsheets on Windows expect.
    const text = lines.map((line) => `${line.map(cell).join(",")}\r\n`);
    return `\uFEFF${text.join("")}`;
  }

  function download() {
    const link = document.createElement("a");
    const file = new Blob([table()], { type: "text/csv;charset=utf-8" });
    link.href = URL.createObjectURL(file);
    link.download = "review.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    say(`review.csv holds ${decisions.size} decisions; python -m jaxnlt.clean `
      + "--review=review.csv applies them.");
  }

  // Keys and buttons --------------------------------------------------------

  const commands = {
    accept, keep, drop, undo, download,
    change: openChooser,
    before: () => move(at - 1),
    after: () => move(at + 1),
    next: () => move(nextUndecided()),
  };
  const keys = {
    a: "accept", enter: "accept", k: "keep", c: "change", d: "drop",
    u: "undo", n: "next", arrowleft: "before", arrowright: "after",
  };

  for (const [id, command] of Object.entries(commands)) {
    onClick(byId(id), command);
  }
  document.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    const undoing = (event.ctrlKey || event.metaKey) && key === "z";
    const plain = !(event.ctrlKey || event.metaKey || event.altKey);
    const name = undoing ? "undo" : plain ? keys[key] : undefined;
    // A button that has the focus answers to Enter by itself.
    if (!name || (key === "enter" && event.target !== document.body)) return;
    event.preventDefault();
    commands[name]();
  });
  window.addEventListener("beforeunload", (event) => {
    if (!remembers && past.length) event.preventDefault();
  });

  recall();
  byId("title").textContent = shown(data.title);
  const all = rows.length === data.total;
  byId("about").textContent =
    (all ? `${data.total} labels` : `${rows.length} of ${data.total} labels`) +
    `, the least trusted first; ${data.flagged} of all are flagged`;
  rows.forEach((row, k) => drawTile(k));
  byId("sheet").append(...tiles);
  if (decisions.has(at)) at = nextUndecided();
  draw();
})();
