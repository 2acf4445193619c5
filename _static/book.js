// Filters of the ledger, what is wider than the screen, meanings of symbols, folds opened for print. Without this script
// everything is shown, and a symbol's meaning is its link's title.
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
  // Rows of many cells with sentences in them: their cells know their column's name, for the cards that a phone shows.
  document.querySelectorAll("article table").forEach((table) => {
    const names = [...table.querySelectorAll("thead th")].map((th) => th.textContent.trim());
    const cells = [...table.querySelectorAll("tbody td")];
    if (names.length < 6 || !cells.some((td) => td.textContent.length > 60)) return;
    table.classList.add("cards");
    cells.forEach((td) => ((td.querySelector("p") || td).dataset.label = names[td.cellIndex]));
  });
  // What is wider than its column (formulas, code, tables) scrolls by itself, by finger or by keyboard, and fades at the
  // edge where there is more. The others are no tab stops.
  const boxes = "article a.figure-link, article .pst-scrollable-table-container, article table.module-table, article div.highlight pre, article mjx-container";
  const fade = (box) => {
    const more = box.scrollWidth - box.clientWidth, wide = more > 2 && getComputedStyle(box).overflowX !== "visible";
    box.classList.toggle("more-left", wide && box.scrollLeft > 2);
    box.classList.toggle("more-right", wide && box.scrollLeft < more - 2);
    return wide;
  };
  const fit = () => {
    const formulas = [...document.querySelectorAll("article mjx-container")];
    formulas.forEach((formula) => {
      formula.classList.remove("scrolls");
      formula.removeAttribute("tabindex");
      formula.style.fontSize = "";
    });
    const width = (formula) => formula.querySelector("svg").getBoundingClientRect().width;
    const wide = formulas.map((formula) => {
      const line = formula.closest("p, li, td, dd, div"), beside = formula.getAttribute("display") ? formula.clientWidth : line.clientWidth - 40;
      return width(formula) > beside;
    });
    formulas.forEach((formula, i) => formula.classList.toggle("scrolls", wide[i]));
    // What seven tenths of its size make fit is written smaller; only what is wider still scrolls. In a few steps, as a font
    // may have whole pixels only.
    const sizes = formulas.map(() => 1);
    for (let step = 0; step < 4; step++) {
      const fits = formulas.map((formula, i) => (wide[i] ? (sizes[i] * (formula.clientWidth - 1 - step)) / width(formula) : 1));
      formulas.forEach((formula, i) => {
        if (fits[i] >= sizes[i] || fits[i] < 0.7 - step / 50) return;
        sizes[i] = fits[i] - step / 100;
        formula.style.fontSize = `${100 * sizes[i]}%`;
      });
    }
    const narrow = formulas.map((formula, i) => wide[i] && formula.scrollWidth > formula.clientWidth + 2);
    formulas.forEach((formula, i) => narrow[i] && (formula.style.fontSize = ""));
    document.querySelectorAll(boxes).forEach((box) => {
      const scrolls = fade(box);
      if (scrolls && !box.closest("a")) box.tabIndex = 0;
      if (scrolls && !box.dataset.fades) box.addEventListener("scroll", () => fade(box), { passive: true });
      if (scrolls) box.dataset.fades = "1";
    });
  };
  // On a phone the parts of a displayed formula that \qquad sets apart stand below one another.
  const paired = (tex, one, other) => (tex.match(one) || []).length === (tex.match(other) || []).length;
  const whole = (tex) => paired(tex, /(?<!\\)\{/g, /(?<!\\)\}/g) && paired(tex, /\\left\b/g, /\\right\b/g) && paired(tex, /\\begin\b/g, /\\end\b/g);
  const inRows = (item) => {
    const tex = item.math.replace(/^\s*\\begin\{split\}|\\end\{split\}\s*$/g, ""), parts = tex.split(/\\qquad\b/);
    const outside = tex.replace(/\\begin\{(\w+)\}[^]*?\\end\{\1\}/g, ""); // matrices and cases apart
    if (!item.display || parts.length < 2 || /\\\\|&/.test(outside) || !parts.every(whole)) return null;
    return MathJax.tex2svgPromise(`\\begin{gathered}${parts.join("\\\\")}\\end{gathered}`, { display: true }).then((box) => item.typesetRoot.replaceWith(box));
  };
  const rows = () => matchMedia("(max-width: 600px)").matches && Promise.all([...MathJax.startup.document.math].map(inRows));
  // Sizes are read when the page has loaded: until then each reading of one scrolls to the link's target anew (Chromium),
  // half a minute where there are a thousand formulas.
  const loaded = new Promise((done) => {
    if (document.readyState === "complete") done();
    else window.addEventListener("load", () => requestAnimationFrame(done));
  });
  let asked = 0;
  const refit = () => loaded.then(() => {
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(fit);
  });
  const typeset = () => window.MathJax.startup.promise.then(rows).then(() => loaded).then(fit).then(() => (document.documentElement.dataset.fitted = ""));
  if (window.MathJax && window.MathJax.startup && window.MathJax.startup.promise) typeset();
  else loaded.then(() => (window.MathJax && window.MathJax.startup ? typeset() : fit()));
  const article = document.querySelector("article");
  if (article) new ResizeObserver(refit).observe(article); // the window, a sidebar, or a fold that opens
  document.querySelectorAll("summary").forEach((s) => {
    if (!s.textContent.trim()) s.setAttribute("aria-label", "pages of this part");
  });
  // An explorer whose frame loads without Bokeh does not run; book.css then shows its still.
  document.querySelectorAll("iframe.explorer").forEach((frame) => {
    const look = () => {
      let page = null;
      try { page = frame.contentDocument; } catch { /* not a page of ours */ }
      if (page && page.URL === "about:blank") return; // not loaded yet
      frame.classList.toggle("failed", !page || !frame.contentWindow.Bokeh);
    };
    frame.addEventListener("load", look);
    if (frame.contentDocument && frame.contentDocument.readyState === "complete") look();
  });
  document.querySelectorAll(".citation-list > *").forEach((c) => c.setAttribute("role", "listitem"));
  // The first use of a symbol shows its meaning: under the pointer, on focus, and on a phone at the first tap.
  const meanings = document.querySelector("template.symbol-meanings");
  if (meanings) {
    const tip = document.createElement("div");
    tip.id = "symbol-tip";
    tip.setAttribute("role", "tooltip");
    tip.hidden = true;
    document.body.append(tip);
    let shown = null, before = null, timer = 0;
    const hide = () => {
      clearTimeout(timer);
      if (shown) shown.removeAttribute("aria-describedby");
      tip.hidden = true;
      shown = null;
    };
    const place = (link) => {
      const at = link.getBoundingClientRect();
      tip.style.left = `${Math.max(8, Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8)) + scrollX}px`;
      const above = at.bottom + tip.offsetHeight + 12 > innerHeight && at.top > tip.offsetHeight + 12;
      tip.style.top = `${scrollY + (above ? at.top - tip.offsetHeight - 6 : at.bottom + 6)}px`;
    };
    const show = (link, touch) => {
      clearTimeout(timer);
      if (shown === link) return;
      hide();
      shown = link;
      const wanted = link.dataset.means.split(" ");
      tip.replaceChildren(...[...meanings.content.children].filter((row) => wanted.includes(row.dataset.symbol)).map((row) => row.cloneNode(true)));
      if (touch) tip.append(Object.assign(document.createElement("p"), { className: "again", textContent: "Tap again for all symbols." }));
      tip.hidden = false;
      link.setAttribute("aria-describedby", tip.id);
      place(link);
      if (window.MathJax && MathJax.typesetPromise) MathJax.typesetPromise([tip]).then(() => shown === link && place(link));
    };
    document.querySelectorAll("a.symbol").forEach((link) => {
      link.setAttribute("aria-description", link.title);
      link.removeAttribute("title");
      link.addEventListener("pointerdown", () => (before = shown));
      link.addEventListener("pointerenter", (e) => e.pointerType === "mouse" && show(link));
      link.addEventListener("pointerleave", (e) => e.pointerType === "mouse" && (timer = setTimeout(hide, 200)));
      link.addEventListener("focus", () => show(link, matchMedia("(hover: none)").matches));
      link.addEventListener("blur", hide);
      link.addEventListener("click", (e) => {
        if (e.pointerType !== "touch" || before === link) return;
        e.preventDefault();
        show(link, true);
      });
    });
    tip.addEventListener("pointerenter", () => clearTimeout(timer));
    tip.addEventListener("pointerleave", hide);
    document.addEventListener("keydown", (e) => e.key === "Escape" && hide());
    document.addEventListener("pointerdown", (e) => shown && !tip.contains(e.target) && !shown.contains(e.target) && hide());
  }
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((d) => (d.open = true));
  });
  window.addEventListener("afterprint", () => closed.forEach((d) => (d.open = false)));
});
