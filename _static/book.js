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
  // A formula wider than its line scrolls by itself, by finger or by keyboard; the others are no tab stops.
  const fit = () => {
    document.querySelectorAll("mjx-container").forEach((formula) => {
      formula.classList.remove("scrolls");
      formula.removeAttribute("tabindex");
      const svg = formula.querySelector("svg"), line = formula.closest("p, li, td, dd, div");
      if (svg && line && svg.getBoundingClientRect().width > line.clientWidth - 40) {
        formula.classList.add("scrolls");
      }
      if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
    });
  };
  const typeset = () => window.MathJax.startup.promise.then(fit);
  if (window.MathJax && window.MathJax.startup && window.MathJax.startup.promise) typeset();
  else window.addEventListener("load", () => window.MathJax && window.MathJax.startup && typeset());
  window.addEventListener("resize", fit);
  document.querySelectorAll("details").forEach((d) => d.addEventListener("toggle", () => d.open && fit()));
  document.querySelectorAll("summary").forEach((s) => {
    if (!s.textContent.trim()) s.setAttribute("aria-label", "pages of this part");
  });
  document.querySelectorAll(".citation-list > *").forEach((c) => c.setAttribute("role", "listitem"));
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((d) => (d.open = true));
  });
  window.addEventListener("afterprint", () => closed.forEach((d) => (d.open = false)));
});
