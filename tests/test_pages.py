"""The built pages in headless Chromium, with the network blocked and every request off the site reported. Run with -m browser.

A page is opened twice, at a desk (1440 × 900) and on a phone (390 × 844). What each visit saw is kept, and the tests ask
of it: MathJax takes a second or more a page, so that a visit for every question would take most of the time.
"""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from eoslib import descent, hessian, network, scalar, transverse

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
PAGES = sorted(str(p.relative_to(HTML)) for p in HTML.glob("chapters/**/*.html")) if HTML.exists() else []
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
HANGS = 180_000  # milliseconds: more than the slowest machine takes for the heaviest page by an order
PAPER = {"width": 680, "height": 1009}  # A4 at 96 dots an inch, within margins of 15 mm
pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.fail("the browser tests need Chromium on the PATH")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    # No name resolves but this machine's: nothing leaves it, and Chromium may keep MathJax compiled between pages,
    # which it does not while playwright intercepts requests.
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as by any web server

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def site():
    handler = functools.partial(Quiet, directory=str(HTML))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def open_page(context, url, base):
    """A page of the book with its formulas typeset and fitted, and the list of everything that went wrong, which grows."""
    context.set_default_timeout(HANGS)
    page, faults = context.new_page(), []

    def asked(request):
        if not request.url.startswith((base, "data:", "blob:")):
            faults.append(f"request off the site: {request.url}")

    page.on("request", asked)
    page.on("pageerror", lambda error: faults.append(f"page error: {error}"))

    def said(message):  # the page at the root that leads to the index names no icon: a browser may ask for one
        if message.type in ("error", "warning") and not message.location["url"].endswith("/favicon.ico"):
            faults.append(f"console: {message.text} ({message.location['url']})")

    page.on("console", said)
    page.on("requestfailed", lambda r: faults.append(f"failed: {r.url}"))
    page.on("response", lambda r: faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    page.goto(url, wait_until="load")
    page.wait_for_function("!window.MathJax || 'fitted' in document.documentElement.dataset")
    return page, faults


@pytest.fixture
def visit(browser):
    """Open a page, for a test that changes it."""
    contexts = []

    def go(url, base, **options):
        contexts.append(browser.new_context(**options))
        return open_page(contexts[-1], url, base)

    yield go
    for context in contexts:
        context.close()


# MathJax, Pygments and the sidebar make most of a page's 10,000 to 40,000 elements, and axe's time grows with them. Before axe
# looks, what it cannot judge apart is joined: the drawing of a formula (hidden from readers of the screen) goes, its MathML
# becomes text, and of the coloured words of code one stays for each colour and ground. AT_THE_DESK counts what would be
# lost by that: anything with a role, a link or a tab stop inside a formula, and formulas in a colour of their own.
JOIN = r"""() => {
    const all = (selector, root = document) => [...root.querySelectorAll(selector)];
    all('mjx-container > svg').forEach(svg => svg.replaceChildren());
    all('mjx-assistive-mml > math').forEach(math => { math.textContent = math.textContent; });
    const seen = new Set();
    all('article .highlight pre').forEach(pre => {
        let ground = '';
        for (let box = pre; box.tagName !== 'ARTICLE'; box = box.parentElement) ground += box.className + '/';
        all('span', pre).filter(word => !word.querySelector('span')).forEach(word => {
            const kind = word.className + ' on ' + ground;
            if (seen.has(kind)) word.replaceWith(word.textContent); else seen.add(kind);
        });
        pre.normalize();
    });
}"""
# Where something breaks the text (a heading or signature, a picture, a displayed formula), from the top of the article, in pixels.
LAYOUT = """
const layout = () => {
    const article = document.querySelector('article'), top = article.getBoundingClientRect().top;
    const breaks = 'h1, h2, h3, h4, dt.sig, img, iframe, div.math';
    const at = [...article.querySelectorAll(breaks)].filter(e => e.checkVisibility()).map(e => {
        const box = e.getBoundingClientRect();
        return [Math.round(box.top - top), Math.round(box.bottom - top), `${e.tagName} ${e.textContent.trim().slice(0, 30)}`];
    }).sort((a, b) => a[0] - b[0]);
    const runs = [];
    let end = 0, name = 'top';
    for (const [from, to, what] of [...at, [article.scrollHeight, 0, 'end']]) {
        if (from - end > 900) runs.push([from - end, `${name} … ${what}`]);
        if (to > end) { end = to; name = what; }
    }
    const picture = [...article.querySelectorAll('figure img')].find(e => e.checkVisibility());
    return {
        runs: runs.sort((a, b) => b[0] - a[0]),
        height: article.scrollHeight,
        picture: picture ? Math.round(picture.getBoundingClientRect().top - top) : null,
    };
};"""
# Signs that begin a line although they belong to the formula before them, and what is wider than its column at a desk.
LINES = r"""
const lines = () => {
    const name = e => `${e.tagName} ${e.className}: ${e.textContent.trim().slice(0, 60)}`;
    const astray = [...document.querySelectorAll('article mjx-container')].filter(m => {
        if (!m.offsetParent || m.closest('pre')) return false;
        let last = m;
        while (last.parentElement.lastChild === last && getComputedStyle(last.parentElement).display === 'inline') last = last.parentElement;
        const next = last.nextSibling;
        if (!next || next.nodeType !== 3 || !/^[,.;:!?)\]”’…]/.test(next.data)) return false;
        const sign = document.createRange();
        sign.setStart(next, 0);
        sign.setEnd(next, 1);
        const at = sign.getBoundingClientRect(), formula = m.getBoundingClientRect();
        return at.width > 0 && at.left < formula.right - 2 && at.top > formula.top + 5;
    }).map(m => name(m.parentElement));
    const wide = [...document.querySelectorAll('article .more-right')].filter(e => e.checkVisibility() && !e.closest('details')).map(name);
    return {astray, wide};
};"""
AT_THE_DESK = """() => {
    const all = (selector, root = document) => [...root.querySelectorAll(selector)];
    return {
        bare: all('.math').filter(m => !m.querySelector('mjx-container')).length,
        errors: all('[data-mjx-error], mjx-merror').length,
        broken: [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src),
        blind: all('article figure img').filter(i => i.alt.split(' ').length < 10).length,
        text: document.querySelector('article').innerText,
        drawn: all('mjx-container svg [tabindex], mjx-container svg a, mjx-container svg text, math [role], math [href],'
            + ' math [tabindex]').length,
        coloured: all('article mjx-container').filter(m => !m.closest('a:not(.symbol)') && getComputedStyle(m).color
            !== getComputedStyle(m.closest('p, li, td, th, dt, dd, h1, h2, h3, h4, summary, div')).color).length,
        symbols: all('article a.symbol').map(a => ({means: a.dataset.means.split(' '), href: a.getAttribute('href')})),
        meanings: all('p', (document.querySelector('template.symbol-meanings') || {content: document.createElement('p')}).content)
            .map(p => p.dataset.symbol),
        ...layout(),
        ...lines(),
        anchors: all('[id], a[name]').map(e => e.id || e.name),
        links: all('a[href]').map(a => a.href),
    };
}"""


@pytest.fixture(scope="session")
def desk(browser, site):
    """What a visit at a desk saw of a page, light and dark."""
    context = browser.new_context(viewport=DESK)

    @functools.cache
    def look(name):
        page, faults = open_page(context, f"{site}/{name}", site)
        # axe reads style sheets itself, and complains of those it does not find: its faults are not the page's
        seen = page.evaluate(AT_THE_DESK.replace("() => {", "() => {" + LAYOUT + LINES, 1)) | {"faults": list(faults)}
        page.add_style_tag(content="* { transition: none !important }")  # colours at once
        page.evaluate(JOIN)
        for theme in ("light", "dark"):
            page.evaluate(f"document.documentElement.dataset.theme = document.documentElement.dataset.mode = '{theme}'")
            found = Axe().run(page, options={"resultTypes": ["violations"], "iframes": False})
            seen[theme] = found.response["violations"]
        page.close()
        return seen

    yield look
    context.close()


# Every fold is opened first. A formula wider than the screen scrolls by itself; nothing that is cut off stays out of reach.
# What scrolls fades at the edge where there is more, is reached by keyboard, and fades no longer at its end.
ON_A_PHONE = """async () => {
    const frames = async () => { for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame); };
    document.querySelectorAll('article details').forEach(fold => { fold.open = true; });
    await frames();
    const name = e => `${e.tagName} ${e.className}: ${e.textContent.trim().slice(0, 60)}`;
    const lost = [...document.querySelectorAll('article mjx-container')].filter(m => {
        if (!m.offsetParent) return false;
        for (let box = m.querySelector('svg').parentElement; box && box.tagName !== 'ARTICLE'; box = box.parentElement) {
            const style = getComputedStyle(box), hidden = box.scrollWidth > box.clientWidth + 2;
            if (['auto', 'scroll'].includes(style.overflowX)) return false;
            if (hidden && ['hidden', 'clip'].includes(style.overflowX)) return true;
        }
        return m.getBoundingClientRect().right > window.innerWidth + 2;
    }).map(name);
    const scrollers = [...document.querySelectorAll('article *')].filter(e =>
        e.scrollWidth > e.clientWidth + 2 && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX));
    const faded = (e, side) => {
        const style = getComputedStyle(e);
        return style.maskImage.startsWith('linear-gradient') && parseFloat(style.getPropertyValue(`--fade-${side}`)) > 0;
    };
    const silent = scrollers.filter(e => !faded(e, 'right') || faded(e, 'left')).map(name);
    const unreachable = scrollers.filter(e => e.tabIndex < 0 && !e.closest('a')).map(name);
    scrollers.forEach(e => { e.scrollLeft = e.scrollWidth; });
    await frames();
    const stuck = scrollers.filter(e => faded(e, 'right') || !faded(e, 'left')).map(name);
    const {astray} = lines();
    return {width: document.documentElement.scrollWidth, scrollers: scrollers.length, lost, silent, unreachable, stuck, astray};
}"""


# Nothing on paper scrolls, fades or lies outside its page; folds were opened before.
ON_PAPER = """async () => {
    for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame);
    const all = (selector) => [...document.querySelectorAll(selector)].filter(e => e.checkVisibility());
    const name = e => `${e.tagName} ${e.className}: ${e.textContent.trim().slice(0, 60)}`;
    const edge = document.querySelector('article').getBoundingClientRect().right + 2, inSvg = e => e.closest('svg, mjx-assistive-mml');
    const height = 267 / 25.4 * 96;  // millimetres of A4 between its margins, in pixels
    return {
        faded: all('article *').filter(e => getComputedStyle(e).maskImage !== 'none').map(name),
        cut: all('article *').filter(e => !inSvg(e) && e.clientWidth > 0 && e.scrollWidth > e.clientWidth + 2
            && getComputedStyle(e).overflowX !== 'visible').map(name),
        outside: all('article *').filter(e => !inSvg(e) && e.getBoundingClientRect().width > 1
            && e.getBoundingClientRect().right > edge).map(name),
        tall: all('article img').filter(e => e.getBoundingClientRect().height > height).map(e => e.src),
        closed: all('article details:not([open])').length,
        explorers: all('iframe').length,
        moving: all('article details > *').filter(e => getComputedStyle(e).animationName !== 'none').map(name),  // drawn at its start
    };
}"""


@pytest.fixture(scope="session")
def phone(browser, site):
    """What a visit on a phone saw of a page, and then what paper shows."""
    context = browser.new_context(viewport=PHONE)

    @functools.cache
    def look(name):
        page, faults = open_page(context, f"{site}/{name}", site)
        seen = page.evaluate(ON_A_PHONE.replace("() => {", "() => {" + LINES, 1)) | {"faults": faults}
        page.set_viewport_size(PAPER)
        page.emulate_media(media="print")
        seen["paper"] = page.evaluate(ON_PAPER)
        page.close()
        return seen

    yield look
    context.close()


def test_there_are_pages():
    assert len(PAGES) >= 8, "build the book first: make book"


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(desk, name):
    seen = desk(name)
    assert seen["faults"] == []
    assert seen["bare"] == 0, "mathematics that was not typeset"
    assert seen["errors"] == 0
    assert seen["drawn"] == 0, "something to reach or to read inside the drawing of a formula"
    assert seen["coloured"] == 0, "formulas in another colour than their text"
    assert seen["broken"] == []
    assert seen["blind"] == 0, "figures without alternative text"
    raw = re.findall(r"\{(?:prf:ref|numref|ref|eq|glue:text|cite:t|cite:p)\}`[^`]*`", seen["text"])
    assert raw == [], "roles that were not rendered"


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_a_phone(phone, name):
    seen = phone(name)
    assert seen["faults"] == []
    assert seen["width"] <= 400, "the page scrolls sideways"
    assert seen["lost"] == []
    assert seen["silent"] == [], "scrolls sideways without a hint"
    assert seen["unreachable"] == [], "scrolls sideways, but not by keyboard"
    assert seen["stuck"] == [], "still fades at its end"
    assert seen["astray"] == [], "a line begins with the sign behind a formula"


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_at_a_desk(desk, name):
    assert desk(name)["wide"] == [], "wider than its column: break the formula, the line or the output"
    assert desk(name)["astray"] == [], "a line begins with the sign behind a formula"


def test_wide_things_were_seen_on_the_phone(phone):
    """Otherwise the hints of the test above were looked for in nothing."""
    assert phone("chapters/two_cycle.html")["scrollers"] > 20


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(desk, name, theme):
    serious = [v for v in desk(name)[theme] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [n["html"][:150] for n in v["nodes"]][:3]) for v in serious] == []


LISTS = ("ledger", "errata", "paper_order", "references", "notation")  # rows, not prose


@pytest.mark.parametrize("name", [n for n in PAGES if not n.endswith(tuple(f"/{stem}.html" for stem in LISTS))])
def test_no_two_screens_without_a_picture_a_display_or_a_heading(desk, name):
    assert [run for run in desk(name)["runs"] if run[0] > 2 * DESK["height"]] == []


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole_on_paper(phone, name):
    assert phone(name)["paper"] == {
        "faded": [],
        "cut": [],
        "outside": [],
        "tall": [],
        "closed": 0,
        "explorers": 0,
        "moving": [],
    }


WITH_SYMBOLS = [
    n for n in PAGES if re.match(r"chapters/(two|hessian|balancing|stationary|symmetry|threshold|route)", n)
]


@pytest.mark.parametrize("name", WITH_SYMBOLS)
def test_first_symbols_have_a_meaning_each(desk, name):
    links, meanings = desk(name)["symbols"], desk(name)["meanings"]
    assert 8 < len(links) <= 40, "each is a tab stop"
    used = [m for link in links for m in link["means"]]
    assert used == meanings and len(set(used)) == len(used)
    assert all(link["href"] == f"notation.html#{link['means'][0]}" for link in links)
    assert set(used) <= set(desk("chapters/notation.html")["anchors"])


def test_a_symbol_shows_its_meaning_under_the_pointer_and_on_focus(visit, site):
    page, faults = visit(f"{site}/chapters/two_phases.html", site, viewport=DESK)
    first, tip = page.locator("article a.symbol").first, page.locator("#symbol-tip")
    assert not tip.is_visible()
    first.hover()
    tip.wait_for(state="visible")
    page.wait_for_function("document.querySelectorAll('#symbol-tip mjx-container').length >= 3")
    assert "loss" in tip.inner_text() and first.get_attribute("aria-describedby") == "symbol-tip"
    box = tip.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 1440
    page.keyboard.press("Escape")
    assert not tip.is_visible() and first.get_attribute("aria-describedby") is None
    second = page.locator("article a.symbol").nth(1)
    second.focus()
    assert tip.is_visible() and "learning rate" in tip.inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url("**/notation.html#symbol-*")
    assert faults == []


def test_a_symbol_shows_its_meaning_at_the_first_tap(visit, site):
    page, faults = visit(f"{site}/chapters/two_cycle.html", site, viewport=PHONE, has_touch=True, is_mobile=True)
    first, tip = page.locator("article a.symbol").first, page.locator("#symbol-tip")
    first.tap()
    assert tip.is_visible() and "width" in tip.inner_text() and "two_cycle" in page.url
    box = tip.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    page.locator("article h1").tap()
    assert not tip.is_visible()
    first.tap()
    first.tap()
    page.wait_for_url("**/notation.html#symbol-*")
    assert faults == []


def test_a_printed_chapter_keeps_its_proofs(visit, site):
    page, _ = visit(f"{site}/chapters/two_phases.html", site)
    assert page.evaluate("document.querySelectorAll('article details:not([open])').length") > 5
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.querySelectorAll('article details:not([open])').length") == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.querySelectorAll('article details:not([open])').length") > 5


@pytest.mark.parametrize("wanted", ["Lemma 4", "Figure 14", "equation 29", "Theorem 2"])
def test_numbers_of_the_paper_are_two_clicks_from_the_index_and_found_by_search(visit, site, wanted):
    page, _ = visit(f"{site}/chapters/index.html", site)
    kind, number = wanted.split()
    link = page.locator(".jump p", has_text=kind.capitalize()).get_by_role("link", name=number, exact=True).first
    link.click()
    page.wait_for_function("location.hash.startsWith('#row-') && document.getElementById(location.hash.slice(1))")
    row = page.evaluate("document.getElementById(location.hash.slice(1)).innerText")
    assert wanted.lower() in row.lower()
    page, _ = visit(f"{site}/search.html?q={wanted.replace(' ', '+')}", site)
    page.wait_for_function("[...document.querySelectorAll('ul.search li a')].some(a => a.href.includes('#row-'))")


# Counts the sizes that the book's script reads, apart before the page has loaded; a picture that comes late holds that up.
READINGS = """(() => {
    const read = window.readings = {early: 0, late: 0}, script = () => new Error().stack.includes('/_static/book.js');
    const count = () => { if (script()) read[document.readyState === 'complete' ? 'late' : 'early']++; };
    const sizes = ['clientWidth', 'clientHeight', 'scrollWidth', 'scrollHeight'].map(name => [Element.prototype, name]);
    sizes.push([HTMLElement.prototype, 'offsetWidth'], [HTMLElement.prototype, 'offsetHeight']);
    sizes.forEach(([kind, name]) => {
        const {get, ...rest} = Object.getOwnPropertyDescriptor(kind, name);
        Object.defineProperty(kind, name, {...rest, get() { count(); return get.call(this); }});
    });
    const box = Element.prototype.getBoundingClientRect;
    Element.prototype.getBoundingClientRect = function () { count(); return box.call(this); };
    document.addEventListener('DOMContentLoaded', () => { document.body.append(Object.assign(new Image(), {src: '/late.svg'})); });
})()"""


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_no_size_is_read_before_the_page_has_loaded(browser, site, size):
    """Each reading scrolls a page that is still loading to its link's target anew: a frozen ledger, for up to half a minute."""
    context = browser.new_context(viewport=size)
    context.add_init_script(READINGS)
    held = []
    context.route("**/late.svg", lambda route: held.append(route))
    context.set_default_timeout(HANGS)
    page = context.new_page()
    page.goto(f"{site}/chapters/ledger.html#row-lem-sum-contracts", wait_until="domcontentloaded")
    page.wait_for_function("window.MathJax && window.MathJax.startup && window.MathJax.startup.promise")
    page.evaluate("MathJax.startup.promise.then(() => true)")
    page.wait_for_timeout(1000)
    assert page.evaluate("[document.readyState, window.readings]") == ["interactive", {"early": 0, "late": 0}]
    held[0].fulfill(body="<svg xmlns='http://www.w3.org/2000/svg'/>", content_type="image/svg+xml")
    page.wait_for_function("'fitted' in document.documentElement.dataset")
    assert page.evaluate("window.readings.early") == 0 and page.evaluate("window.readings.late") > 900
    assert abs(page.evaluate("document.getElementById('row-lem-sum-contracts').getBoundingClientRect().top")) < size["height"]
    context.close()


def test_the_ledger_can_be_filtered(visit, site):
    page, faults = visit(f"{site}/chapters/ledger.html", site)
    shown = "[...document.querySelectorAll('.claim')].filter(r => !r.hidden).length"
    total = page.evaluate(shown)
    page.get_by_role("button", name=re.compile("^corrected")).click()
    assert (
        0 < page.evaluate(shown) < total
        and page.evaluate("document.querySelectorAll('.claim.verdict-holds:not([hidden])').length") == 0
    )
    page.get_by_role("button", name=re.compile("^all")).click()
    assert page.evaluate(shown) == total and faults == []


def test_figures_stay_white_in_dark_mode(visit, site):
    name = next(n for n in PAGES if n.endswith("two_phases.html"))
    page, faults = visit(f"{site}/{name}", site)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    style = "getComputedStyle(document.querySelector('article figure img'))"
    assert (
        page.evaluate(f"{style}.backgroundColor") == "rgb(255, 255, 255)" and page.evaluate(f"{style}.filter") == "none"
    )
    assert faults == []


def test_links_and_anchors_resolve(desk, site):
    anchors = {f"{site}/{name}": set(desk(name)["anchors"]) for name in PAGES}
    wanted = [(n, *urldefrag(link)) for n in PAGES for link in desk(n)["links"] if link.startswith(site)]
    assert len(wanted) > 1000
    for source, target, anchor in wanted:
        path = unquote(target.removeprefix(site)).lstrip("/") or "index.html"
        assert (HTML / path).exists(), f"{source} links to {target}"
        if anchor and target in anchors:
            assert unquote(anchor) in anchors[target], f"{source} links to {target}#{anchor}"


def test_the_root_leads_to_the_index(visit, site):
    page, faults = visit(f"{site}/index.html", site)
    page.wait_for_url("**/chapters/index.html")
    assert page.locator("article h1").count() == 1 and faults == []


@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        ("Theorem 1", "two_cycle.html#thm-rank-one-oscillation"),
        ("Lemma 4", "printed_proofs.html#lem-sum-contracts"),
        ("proposition 1", "stationary_singular_vectors.html#prop-svs"),
        ("Figure 14", "ledger.html#row-"),
        ("equation (29)", "ledger.html#row-"),
        ("momentum", "other_optimisers.html"),
        ("Momentum breaks the symmetry", "other_optimisers.html#momentum-breaks-the-symmetry-sooner"),
    ],
)
def test_search_puts_what_was_asked_for_first(visit, site, wanted, first):
    page, faults = visit(f"{site}/search.html?q={wanted.replace(' ', '+')}", site)
    page.wait_for_function("document.querySelector('p.search-summary').innerText.includes('finished')")
    found = page.evaluate("[...document.querySelectorAll('ul.search li')].map(l => [l.innerText, l.firstChild.href])")
    assert first in found[0][1] and faults == []
    if re.search(r"\d", wanted):  # nothing about another number before the last of this one
        number = re.escape(re.sub(r"[()]", "", wanted))
        about = [bool(re.search(rf"\b{number}\b", text, re.I)) for text, _ in found]
        assert all(about[: sum(about)]) and sum(about) >= 2
    assert len({link for _, link in found}) == len(found)


def test_search_finds_a_chapter(visit, site):
    page, faults = visit(f"{site}/search.html?q=sharpness", site)
    page.wait_for_function("document.querySelector('p.search-summary').innerText.includes('finished')")
    found = page.evaluate("[...document.querySelectorAll('ul.search li a')].map(a => a.href)")
    assert any("two_phases" in link for link in found) and faults == []


def test_proofs_unfold(visit, site):
    name = next(n for n in PAGES if n.endswith("two_phases.html"))
    page, faults = visit(f"{site}/{name}", site)
    proof = page.locator("details.sd-dropdown", has_text="Proof").first
    assert proof.get_attribute("open") is None
    proof.locator("summary").click()
    assert proof.get_attribute("open") is not None and faults == []


def test_the_book_opens_from_a_folder(visit):
    """Without a server: from file:// nothing may be loaded from elsewhere either."""
    page, faults = visit((HTML / "chapters" / "two_phases.html").as_uri(), "file://")
    assert faults == []
    assert page.evaluate("document.querySelectorAll('mjx-container').length") > 20


def test_nothing_in_the_html_loads_from_outside():
    pattern = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=[\"'](?:https?:)?//[^\"']+", re.I)
    for path in HTML.rglob("*.html"):
        found = [tag for tag in pattern.findall(path.read_text(encoding="utf8")) if 'rel="canonical"' not in tag]
        assert found == [], path
    for path in HTML.rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:", path.read_text(encoding="utf8", errors="ignore")), path


def explorer(visit, site, chapter, name):
    """Open an explorer in its page; returns its frame, a reader of what it shows, and the faults."""
    page, faults = visit(f"{site}/chapters/{chapter}.html", site)
    frame = page.locator(f"iframe[title='Explorer: {name}']")
    frame.scroll_into_view_if_needed()
    inner = frame.element_handle().content_frame()
    inner.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].get_model_by_name('state')")
    read = "(() => { const d = Bokeh.documents[0].get_model_by_name('state').data; return [...d.key].map((k, i) => [k, d.value[i]]); })()"
    inner.wait_for_function("Bokeh.documents[0].get_model_by_name('state').data.key.length > 0")

    def show(**controls):
        for key, value in controls.items():
            field = "active" if key == "view" else "value"
            inner.evaluate(f"Bokeh.documents[0].get_model_by_name('{key}').{field} = {value}")
        return dict(inner.evaluate(read))

    return inner, show, faults


EXPLORERS = [("two_cycle", "one mode"), ("symmetry_breaking", "two modes"), ("two_phases", "valley")]


def test_each_explorer_is_known(site):
    found = [n for n in PAGES if 'class="explorer"' in (HTML / n).read_text(encoding="utf8")]
    assert found == sorted(f"chapters/{chapter}.html" for chapter, _ in EXPLORERS)


@pytest.mark.parametrize(("chapter", "name"), EXPLORERS)
def test_paper_has_a_still_of_the_explorer_as_it_starts(visit, site, chapter, name):
    inner, _, faults = explorer(visit, site, chapter, name)
    page = inner.page
    frame, still = page.locator("iframe.explorer"), page.locator("figure.explorer-still")
    assert frame.is_visible() and not still.is_visible()
    said = " ".join(inner.locator("[role=status]").inner_text().split())
    page.emulate_media(media="print")
    assert still.is_visible() and not frame.is_visible()
    picture = still.locator("img")
    assert picture.evaluate("i => i.naturalWidth") > 300 and len(picture.get_attribute("alt").split()) >= 10
    assert len(said.split()) > 5 and " ".join(still.locator("figcaption").inner_text().split()).endswith(said)
    page.emulate_media(media="screen")
    assert frame.is_visible() and not still.is_visible()
    assert faults == []


@pytest.mark.parametrize(("chapter", "name"), EXPLORERS)
@pytest.mark.parametrize("hindrance", ["no scripts", "no Bokeh"])
def test_a_still_stands_for_an_explorer_that_does_not_run(browser, site, chapter, name, hindrance):
    context = browser.new_context(viewport=PHONE, java_script_enabled=hindrance != "no scripts")
    page = context.new_page()
    if hindrance == "no Bokeh":
        context.route("**/bokeh/*.js", lambda route: route.abort())
    page.goto(f"{site}/chapters/{chapter}.html")
    page.evaluate("document.querySelector('iframe.explorer').scrollIntoView()")  # it loads where it is seen
    page.locator("figure.explorer-still img").wait_for(state="visible")
    assert not page.locator(f"iframe[title='Explorer: {name}']").is_visible()
    assert page.locator("figure.explorer-still figcaption").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    context.close()


def test_explorer_of_one_mode_shows_what_the_library_computes(visit, site):
    _, show, faults = explorer(visit, site, "two_cycle", "one mode")
    for depth, q in ((2, 2.2), (3, 2.3), (5, 2.4), (8, 2.05)):
        shown, cycle = show(depth=depth, rate=q), scalar.two_cycle(1.0, depth, q / depth)
        assert abs(shown["low"] - cycle.low) < 1e-9 and abs(shown["high"] - cycle.high) < 1e-9
        u = 0.3
        for _ in range(2000):
            u = float(scalar.step(u, 1.0, depth, q / depth))
        assert abs(shown["last"] - u) < 1e-9  # an attracting orbit forgets its roundings
    rho, factor = show(depth=3, rate=2.3)["printed"], 3
    z = 1 + factor * (2.3 / 3) * (1 - rho**3) * rho
    assert abs(rho**3 * (1 + z**5) / (1 + z**2) - 1) < 1e-9
    assert faults == []


def test_explorer_of_two_modes_shows_what_the_library_computes(visit, site):
    _, show, faults = explorer(visit, site, "symmetry_breaking", "two modes")
    for depth, ratio in ((2, 0.85), (3, 0.93)):
        shown = show(depth=depth, ratio=ratio, rate=2.1, seed=6, view=0)
        W = np.stack([np.diag([1.02, ratio ** (1 / depth)])] * depth)
        W[0, 0, 1] = 1e-6
        P = network.product(descent.descend(W, np.diag([1.0, ratio]), 2.1 / depth, 200).weights)
        seen = np.array([[shown["p00"], shown["p01"]], [shown["p10"], shown["p11"]]])
        assert np.abs(P - seen).max() < 1e-9  # before the threshold nothing amplifies roundings
        assert abs(shown["eta_t"] - depth * transverse.threshold((1.0, ratio), depth)) < 1e-9
        assert abs(shown["second"] - 2 * depth / transverse.pair_eigenvalue((1.0, ratio), depth)) < 1e-9
    still = show(depth=3, ratio=0.9, rate=2.2, view=2)
    assert still["seed"] == 0 and still["p01"] == 0
    assert faults == []


def test_explorer_of_the_valley_works_by_keyboard_and_shows_what_the_library_computes(visit, site):
    inner, show, faults = explorer(visit, site, "two_phases", "valley")
    for rate, a, b in ((0.4, 1.7, 0.4), (0.9, 1.2, 0.7)):
        shown = show(rate=rate, first=a, second=b)
        W = np.array([[[a]], [[b]]])
        W = descent.descend(W, np.eye(1), rate, 300).weights
        assert abs(shown["a"] - W[0, 0, 0]) < 1e-9 and abs(shown["b"] - W[1, 0, 0]) < 1e-9
        assert abs(shown["sharpness"] - hessian.sharpness(W, np.eye(1))) < 1e-8
    before = show()["eta"]
    handle = inner.locator(".noUi-handle").first
    handle.focus()
    handle.press("ArrowRight")
    assert abs(show()["eta"] - before - 0.01) < 1e-9
    assert faults == []
