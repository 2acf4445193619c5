// Filters of the ledger, and folded proofs opened for print. Without this script everything is shown.
document.addEventListener("DOMContentLoaded", () => {
  const bar = document.querySelector(".claim-filters");
  if (bar) {
    const rows = [...document.querySelectorAll(".claim")];
    const kind = (row) => [...row.classList].find((c) => c.startsWith("verdict-"));
    const count = {};
    rows.forEach((row) => (count[kind(row)] = (count[kind(row)] || 0) + 1));
    const show = (chosen) => {
      rows.forEach((row) => (row.hidden = Boolean(chosen) && kind(row) !== chosen));
      bar.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.verdict === chosen)));
    };
    ["", ...Object.keys(count)].forEach((verdict) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.verdict = verdict;
      const word = verdict ? verdict.slice(8).replace(/-/g, " ") : "all";
      button.textContent = `${word} (${verdict ? count[verdict] : rows.length})`;
      button.addEventListener("click", () => show(verdict));
      bar.append(button);
    });
    show("");
    // A link to a row that the filter hides shows it again.
    window.addEventListener("hashchange", () => {
      const row = document.getElementById(location.hash.slice(1));
      if (row && row.hidden) { show(""); row.scrollIntoView(); }
    });
  }
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((d) => (d.open = true));
  });
  window.addEventListener("afterprint", () => closed.forEach((d) => (d.open = false)));
});
