"use strict";
// Shows /status and asks again every few seconds. Everything from outside is put in as text, never as markup.
(() => {
  const EVERY = 2000; // milliseconds
  const CHART = 300; // seconds
  const MOST = 100; // mailboxes shown at once
  const MOST_PROBLEMS = 20;
  const at = (id) => document.getElementById(id);
  const open = new Map(); // mailbox → its folders, where somebody looks at them
  let history = [];
  let latest = null;
  let answeredAt = 0;

  const el = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  };
  const number = (value) => value.toLocaleString("en");
  const rate = (value) => `${value >= 10 ? number(Math.round(value)) : value.toFixed(1)}/s`;
  const span = (seconds) => {
    if (seconds === null || seconds === undefined) return "–";
    for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]])
      if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
    return `${Math.max(0, Math.floor(seconds))} s`;
  };
  const since = (time) => time ? span((Date.parse(latest.now) - Date.parse(time)) / 1000) : null;
  const ago = (time) => time ? `${since(time)} ago` : "–";

  // --- What is wrong ------------------------------------------------------------------------------------------------
  const told = (where, failure) =>
    ({ where, what: failure.reason, hint: failure.hint, code: failure.code, since: since(failure.since) });
  const problems = (status) => {
    const found = [];
    if (status.failure) found.push(told("Everything stands still", status.failure));
    if (status.config_failure) found.push(told("Config", status.config_failure));
    if (status.source_failure) found.push(told("No mailbox can be read", status.source_failure));
    if (status.sink_failure) found.push(told("No mail can be stored", status.sink_failure));
    for (const what of status.stuck) found.push({ where: "Stuck", what, hint: "/healthz fails, so that Kubernetes restarts this" });
    const same = new Map();
    for (const mailbox of status.mailboxes) {
      if (!mailbox.failure || (status.source_failure && mailbox.failure.reason === status.source_failure.reason)) continue;
      const key = mailbox.failure.reason;
      same.set(key, [...(same.get(key) || []), mailbox]);
    }
    for (const boxes of same.values()) {
      const others = boxes.length > 1 ? ` and ${number(boxes.length - 1)} more` : "";
      found.push(told(boxes[0].mailbox + others, boxes[0].failure));
    }
    const folders = new Map();
    for (const mailbox of status.mailboxes)
      for (const folder of mailbox.folders) {
        const key = folder.failure.reason;
        folders.set(key, [...(folders.get(key) || []), [`${mailbox.mailbox}: ${folder.path.join("/")}`, folder.failure]]);
      }
    for (const alike of folders.values()) {
      const others = alike.length > 1 ? ` and ${number(alike.length - 1)} more` : "";
      found.push(told(alike[0][0] + others, alike[0][1]));
    }
    for (const warning of status.warnings) found.push({ where: "Mind", what: warning, careful: true });
    return found;
  };
  const drawProblems = (found) => {
    at("wrong").hidden = !found.length;
    const left = found.length - MOST_PROBLEMS;
    if (left > 0) found = [...found.slice(0, MOST_PROBLEMS), { where: `and ${number(left)} more`, what: "", hint: "all of them: status?format=text", careful: true }];
    at("problems").replaceChildren(...found.map((one) =>
      el("li", one.careful ? { class: "careful" } : {},
        el("strong", {}, one.where), one.what,
        one.hint ? el("div", {}, `→ ${one.hint}`) : null,
        one.since || one.code ? el("div", { class: "quiet" }, [one.since && `for ${one.since}`, one.code].filter(Boolean).join(" · ")) : null)));
  };

  // --- Figures ------------------------------------------------------------------------------------------------------
  const stateOf = (status) => {
    const boxes = status.mailboxes;
    if (status.stopping) return ["busy", "Stopping"];
    if (status.stuck.length) return ["bad", "Stuck: it has to be restarted"];
    if (status.failure) return ["bad", "Standing still"];
    if (status.source_failure) return ["bad", "The Exchange server is away"];
    if (status.sink_failure) return ["bad", "Mail cannot be stored"];
    const failed = boxes.filter((box) => box.failure).length;
    if (boxes.length && failed === boxes.length) return ["bad", failed === 1 ? "The mailbox fails" : "Every mailbox fails"];
    if (!status.ready) return ["busy", "Not ready yet"];
    if (failed) return ["bad", `${number(failed)} of ${number(boxes.length)} mailboxes failed`];
    const folders = boxes.reduce((count, box) => count + box.folders.length, 0);
    if (folders) return ["bad", folders === 1 ? "A folder failed" : `${number(folders)} folders failed`];
    const waiting = boxes.filter((box) => box.throttled_for_seconds > 0).length;
    if (waiting) return ["busy", `Throttled: the server asks ${number(waiting)} of ${number(boxes.length)} mailboxes to wait`];
    const behind = boxes.filter((box) => box.phase !== "following").length;
    if (behind) return ["busy", `Catching up: ${number(behind)} of ${number(boxes.length)} mailboxes`];
    return ["good", "All is well: following what is new"];
  };
  const sum = (boxes, name) => boxes.reduce((total, box) => total + (box[name] || 0), 0);
  const drawFigures = (status) => {
    const boxes = status.mailboxes;
    const done = sum(boxes, "done"), total = sum(boxes, "total"), pace = sum(boxes, "rate_per_second");
    const lags = boxes.map((box) => box.lag_seconds).filter((lag) => lag !== null);
    const figures = [
      ["Mailboxes", number(boxes.length)],
      ["Caught up", total ? `${Math.floor(100 * done / total)} %` : "–"],
      ["Time left", done < total && pace > 0 ? span((total - done) / pace) : "–"],
      ["Rate", rate(pace)],
      ["Stored", number(sum(boxes, "stored"))],
      ["Newest email", lags.length ? `${span(Math.min(...lags))} ago` : "–"],
      ["Not storable", number(sum(boxes, "dead_letters"))],
    ];
    at("figures").replaceChildren(...figures.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
    history.push([Date.now() / 1000, sum(boxes, "stored")]);
  };
  const drawChart = () => {
    const end = Date.now() / 1000;
    history = history.filter(([time]) => time > end - CHART - 10);
    const rates = history.slice(1).map(([time, stored], index) => {
      const [before, storedBefore] = history[index];
      return [time, Math.max(0, stored - storedBefore) / Math.max(0.5, time - before)];
    });
    const top = Math.max(1, ...rates.map(([, value]) => value));
    const points = rates.map(([time, value]) => `${(300 * (1 - (end - time) / CHART)).toFixed(1)},${(58 - 54 * value / top).toFixed(1)}`);
    const svg = (name, attributes) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      return made;
    };
    at("chart").replaceChildren(svg("line", { x1: 0, x2: 300, y1: 58, y2: 58 }), svg("path", { d: points.length ? `M${points.join("L")}` : "" }));
    const now = rates.length ? rates[rates.length - 1][1] : 0;
    at("chart").setAttribute("aria-label", `Emails stored a second: ${rate(now)} now, at most ${rate(top)} in the last five minutes`);
    at("peak").textContent = rates.length ? `(top line: ${rate(top)})` : "";
  };

  // --- Mailboxes ----------------------------------------------------------------------------------------------------
  const words = (one) => {
    if (one.failure) return ["bad", "failed"];
    if (one.throttled_for_seconds > 0) return ["busy", `throttled for ${span(one.throttled_for_seconds)}`];
    return [one.phase === "following" ? "good" : "busy", one.phase];
  };
  const stateCell = (one) => {
    const [kind, text] = words(one);
    return el("td", { "data-label": "State", class: kind }, text);
  };
  const barCell = (one, name) => {
    const cell = el("td", { "data-label": "Caught up", class: "wide" });
    if (!one.total) return cell.append("–"), cell;
    const share = Math.floor(100 * one.done / one.total);
    const left = one.eta_seconds === null ? "" : `, ${span(one.eta_seconds)} left`;
    cell.append(el("progress", { max: one.total, value: one.done, "aria-label": `${name}: ${share} % caught up` }),
      el("span", { class: "quiet" }, `${number(one.done)} of ${number(one.total)} (${share} %)${left}`));
    return cell;
  };
  const cell = (label, text) => el("td", { "data-label": label, class: "number" }, text);
  const folderTable = (box) => {
    const folders = open.get(box.mailbox);
    const inside = folders === null ? el("p", {}, "loading…") : el("table", {},
      el("thead", {}, el("tr", {}, ...["Folder", "State", "Caught up", "Stored", "Rate", "Synced until"].map((name, index) =>
        el("th", { scope: "col", class: index > 2 ? "number" : null }, name)))),
      el("tbody", {}, ...folders.map((folder) => el("tr", {}, el("th", { scope: "row" }, folder.path.join("/")),
        stateCell(folder), barCell(folder, folder.path.join("/")), cell("Stored", number(folder.stored)),
        cell("Rate", rate(folder.rate_per_second)), cell("Synced until", folder.synced_until || "–")))));
    return el("tr", { class: "folders" }, el("td", { colspan: 7, class: "wide" }, inside));
  };
  const rowsOf = (box) => {
    const isOpen = open.has(box.mailbox);
    const button = el("button", { class: "open", type: "button", "aria-expanded": String(isOpen), "data-mailbox": box.mailbox }, box.mailbox);
    const dead = box.dead_letters ? ` (+${number(box.dead_letters)} not storable)` : "";
    const row = el("tr", {}, el("th", { scope: "row" }, button, el("div", { class: "quiet" }, box.bucket)), stateCell(box),
      barCell(box, box.mailbox), cell("Stored", number(box.stored) + dead), cell("Rate", rate(box.rate_per_second)),
      cell("Newest", box.lag_seconds === null ? "–" : `${span(box.lag_seconds)} ago`), cell("Last look", ago(box.last_success_at)));
    return isOpen ? [row, folderTable(box)] : [row];
  };
  const rank = (box) => (box.failure ? 0 : box.folders.length ? 1 : box.phase === "following" ? 3 : 2);
  const drawMailboxes = (status) => {
    const wanted = at("filter").value.trim().toLowerCase();
    const found = status.mailboxes.filter((box) => `${box.mailbox} ${box.bucket} ${words(box)[1]}`.toLowerCase().includes(wanted));
    found.sort((a, b) => rank(a) - rank(b) || a.mailbox.localeCompare(b.mailbox));
    const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.mailbox : null;
    at("rows").replaceChildren(...found.slice(0, MOST).flatMap(rowsOf));
    if (focused) for (const button of at("rows").querySelectorAll("button")) if (button.dataset.mailbox === focused) button.focus();
    at("more").textContent = !found.length ? (status.mailboxes.length ? "No mailbox is like that." : "There is no mailbox here.")
      : found.length > MOST ? `${number(found.length - MOST)} more: type to filter.` : "";
  };
  const drawLetters = (status) => {
    at("dead").hidden = !status.dead_letters.length;
    at("letters").replaceChildren(...status.dead_letters.map((letter) => el("li", {},
      el("strong", {}, `${letter.mailbox}: ${letter.folder.join("/")}`), ` ${letter.reason}`,
      el("div", { class: "quiet" }, [letter.email_id || letter.item_id, letter.code, `recorded ${ago(letter.recorded_at)}`].filter(Boolean).join(" · ")))));
  };

  // --- Asking -------------------------------------------------------------------------------------------------------
  const drawState = () => {
    const silent = (Date.now() - answeredAt) / 1000;
    let [kind, text] = latest ? stateOf(latest) : ["busy", "loading…"];
    if (silent > 10 && (latest || answeredAt)) [kind, text] = ["bad", `No answer for ${span(silent)}: is it running?`];
    if (at("state").textContent !== text) at("state").textContent = text;
    at("state").className = `state ${kind}`;
    at("fresh").textContent = latest ? `version ${latest.version}, as of ${new Date(latest.now).toLocaleTimeString()}` : "";
    document.title = `${kind === "bad" ? "(!) " : ""}ews-sync: ${text}`;
  };
  const draw = (status) => {
    // Somebody is about to copy something: what is drawn anew is selected no longer.
    if (!getSelection().isCollapsed) return;
    drawProblems(problems(status));
    drawFigures(status);
    drawChart();
    drawMailboxes(status);
    drawLetters(status);
    const shard = status.shard ? `${status.shard.name}, one of ${status.shard.total} shards (number ${status.shard.number}, from 0) · ` : "";
    at("about").textContent = `${shard}${status.config_source} · into ${status.sink} · running for ${since(status.started_at)}`;
  };
  const get = async (what) => {
    const answer = await fetch(`status?${what}`, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    return answer.json();
  };
  const look = async () => {
    try {
      latest = await get("folders=failing");
      answeredAt = Date.now();
      for (const mailbox of open.keys()) {
        const [box] = (await get(`mailbox=${encodeURIComponent(mailbox)}`)).mailboxes;
        if (open.has(mailbox)) open.set(mailbox, box ? box.folders : []);
      }
      draw(latest);
    } catch (error) {
      if (!answeredAt) answeredAt = Date.now();
      if (!(error instanceof TypeError || error instanceof DOMException)) console.error(error);
    }
    drawState();
  };
  at("rows").addEventListener("click", (event) => {
    const mailbox = event.target.dataset.mailbox;
    if (!mailbox) return;
    if (!open.delete(mailbox)) open.set(mailbox, null);
    drawMailboxes(latest);
    if (open.has(mailbox)) look();
  });
  at("filter").addEventListener("input", () => latest && drawMailboxes(latest));
  const turn = async () => {
    if (!document.hidden) await look();
    setTimeout(turn, EVERY);
  };
  document.addEventListener("visibilitychange", () => document.hidden || look());
  turn();
})();
