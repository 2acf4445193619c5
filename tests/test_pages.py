"""The built pages in headless Chromium, with every request off the site blocked and reported. Run with -m browser."""

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
pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.fail("the browser tests need Chromium on the PATH")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
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


@pytest.fixture
def visit(browser, request):
    """Open a page; collects everything that went wrong in ``faults``."""
    contexts = []

    def go(url, base, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page, faults = context.new_page(), []

        def gate(route):
            if route.request.url.startswith((base, "data:", "blob:")):
                route.continue_()
            else:
                faults.append(f"request off the site: {route.request.url}")
                route.abort()

        page.route("**/*", gate)
        page.on("pageerror", lambda error: faults.append(f"page error: {error}"))
        page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
        page.on("requestfailed", lambda r: faults.append(f"failed: {r.url}"))
        page.on("response", lambda r: faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        page.goto(url, wait_until="load")
        page.wait_for_function("!window.MathJax || (window.MathJax.startup && window.MathJax.startup.promise)")
        page.evaluate(
            "window.MathJax && window.MathJax.startup ? window.MathJax.startup.promise.then(() => true) : true"
        )
        return page, faults

    yield go
    for context in contexts:
        context.close()


def test_there_are_pages():
    assert len(PAGES) >= 8, "build the book first: make book"


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(visit, site, name):
    page, faults = visit(f"{site}/{name}", site)
    assert faults == []
    bare = page.evaluate(
        "[...document.querySelectorAll('.math')].filter(m => !m.querySelector('mjx-container')).length"
    )
    assert bare == 0, "mathematics that was not typeset"
    assert page.evaluate("document.querySelectorAll('[data-mjx-error], mjx-merror').length") == 0
    broken = page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)")
    assert broken == []
    blind = page.evaluate(
        "[...document.querySelectorAll('article figure img')].filter(i => i.alt.split(' ').length < 10).length"
    )
    assert blind == 0, "figures without alternative text"
    text = page.inner_text("article")
    raw = re.findall(r"\{(?:prf:ref|numref|ref|eq|glue:text|cite:t|cite:p)\}`[^`]*`", text)
    assert raw == [], "roles that were not rendered"


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_a_phone(visit, site, name):
    page, faults = visit(f"{site}/{name}", site, viewport={"width": 390, "height": 844})
    assert faults == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 400, "the page scrolls sideways"
    # a formula wider than the screen scrolls by itself; nothing that is cut off stays out of reach
    lost = page.evaluate(
        """() => [...document.querySelectorAll('article mjx-container')].filter(m => {
            if (!m.offsetParent) return false;
            for (let box = m.querySelector('svg').parentElement; box && box.tagName !== 'ARTICLE'; box = box.parentElement) {
                const style = getComputedStyle(box), hidden = box.scrollWidth > box.clientWidth + 2;
                if (['auto', 'scroll'].includes(style.overflowX)) return false;
                if (hidden && ['hidden', 'clip'].includes(style.overflowX)) return true;
            }
            return m.getBoundingClientRect().right > window.innerWidth + 2;
        }).map(m => m.textContent.slice(0, 60))"""
    )
    assert lost == []


DARK = ("index", "two_phases", "ledger")
THEMES = [(name, "light") for name in PAGES if "/api/" not in name] + [
    (f"chapters/{stem}.html", "dark") for stem in DARK
]


@pytest.mark.parametrize(("name", "theme"), THEMES)
def test_axe_finds_nothing_serious(visit, site, name, theme):
    page, _ = visit(f"{site}/{name}", site)
    page.evaluate(f"document.documentElement.dataset.theme = document.documentElement.dataset.mode = '{theme}'")
    page.wait_for_timeout(400)  # colours change in a transition
    found = Axe().run(page, options={"resultTypes": ["violations"], "iframes": False})
    serious = [v for v in found.response["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [n["html"][:150] for n in v["nodes"]][:3]) for v in serious] == []


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
    page.wait_for_function(
        "[...document.querySelectorAll('ul.search li a')].some(a => a.href.includes('#row-'))", timeout=20_000
    )


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


def test_links_and_anchors_resolve(visit, site):
    anchors, wanted = {}, []
    for name in PAGES:
        page, _ = visit(f"{site}/{name}", site)
        url = f"{site}/{name}"
        anchors[url] = set(page.evaluate("[...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name)"))
        for link in page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)"):
            if link.startswith(site):
                wanted.append((name, *urldefrag(link)))
    for source, target, anchor in wanted:
        path = unquote(target.removeprefix(site)).lstrip("/") or "index.html"
        assert (HTML / path).exists(), f"{source} links to {target}"
        if anchor and target in anchors:
            assert unquote(anchor) in anchors[target], f"{source} links to {target}#{anchor}"


def test_the_root_leads_to_the_index(visit, site):
    page, faults = visit(f"{site}/index.html", site)
    page.wait_for_url("**/chapters/index.html")
    assert page.locator("article h1").count() == 1 and faults == []


def test_search_finds_a_chapter(visit, site):
    page, faults = visit(f"{site}/search.html?q=sharpness", site)
    page.wait_for_selector("ul.search li a", timeout=10_000)
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
