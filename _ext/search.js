// Search results in the order a reader wants: what has the number that was asked for, then headings with all words, then
// pages; chapters before the library's pages. Sphinx alone leaves numbers aside and lists pages by title.
{
  const found = Search._performSearch;
  Search._performSearch = (query, ...rest) => {
    const words = splitQuery(query.toLowerCase()).filter((word) => !stopwords.includes(word));
    const numbers = words.filter((word) => /^\d+$/.test(word));
    const phrase = words.join(" ");
    const normal = (text) => ` ${splitQuery(text.toLowerCase()).join(" ")} `;
    const has = (text, word) => text.includes(/^\d+$/.test(word) ? ` ${word} ` : ` ${word}`);
    const { alltitles, docnames, filenames, terms, titles } = Search._index;
    const holds = (number, document) => [terms[number] ?? []].flat().includes(docnames.indexOf(document));
    const results = found(query, ...rest).filter(([document, title, , description]) =>
      numbers.every((number) => (description ? has(normal(title), number) : holds(number, document))));
    const known = new Set(results.map(([document, , anchor]) => document + anchor));
    for (const [heading, places] of Object.entries(alltitles)) {
      if (!words.length || !words.every((word) => has(normal(heading), word))) continue;
      for (const [file, id] of places) {
        const anchor = id === null ? "" : `#${id}`, page = titles[file] === heading;
        if (page || known.has(docnames[file] + anchor)) continue;
        results.unshift([docnames[file], heading, anchor, `in ${titles[file]}`, 0, filenames[file]]);
      }
    }
    const rank = ([document, title, anchor, description]) => {
      const text = normal(title);
      const boxed = /^#(def|lem|prop|thm)-/.test(anchor) && !/ (proof of|after) /.test(text);
      if (numbers.length && boxed && text.startsWith(` ${words[0]} `) && text.includes(` ${phrase} `)) return 6;
      if (description && numbers.length && text.startsWith(` ${phrase} `)) return 5;
      if (description && numbers.length && text.includes(` ${phrase} `)) return title.includes("(in ") ? 3 : 4;
      if (words.every((word) => has(text, word))) return anchor ? 2 : 3;
      return document.includes("/api/") || document.startsWith("_modules") ? 0 : 1;
    };
    const place = new Map(results.map((result, k) => [result, rank(result) + k / (results.length + 1)]));
    results.sort((a, b) => place.get(b) - place.get(a));
    const seen = new Set(); // a row that covers several equations is there once
    const once = ([document, , anchor]) => !seen.has(document + anchor) && seen.add(document + anchor);
    return results.filter(once).reverse(); // the last is shown first
  };
}
