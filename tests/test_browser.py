"""The pages in a real browser: no request, no console error, light and dark, phone, desk, print."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from factories import make_measures
from pypdf import PdfReader
from test_report import evidence

from pipeline.core.errors import InputError
from pipeline.flow import STAGES
from pipeline.report import Failure, render_failure
from pipeline.report.change import render_change
from pipeline.report.surface import render_surface

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

#: Every name fails to resolve: the network is cut.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
)  # fmt: skip
DARK = "--blink-settings=preferredColorScheme=0"
#: A window is at least 500 px wide, so the page is looked at in a frame of the wanted width.
FRAME = """<body style="margin:0"><iframe src="page.html" width="{width}" height="900"
style="border:0"></iframe><script>
onmessage = (e) => {{ document.body.dataset.probe = e.data; }};</script></body>"""
#: Put at the end of a copy of the page, whose policy would not run it.
PROBE = """<script>
const outside = [...document.querySelectorAll("body *")].filter((e) =>
  e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll,pre"));
parent.postMessage(JSON.stringify({
  width: innerWidth, scroll: document.documentElement.scrollWidth,
  outside: outside.map((e) => e.tagName), sortable: document.querySelectorAll("th button").length,
  shown: [...document.querySelectorAll("svg.chart")].filter((e) => e.clientWidth > 0).length,
  paper: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.body).color}), "*");
</script></body>"""


@dataclass(frozen=True)
class Seen:
    """What the browser made of a page: its answer to the probe, console lines, requested hosts."""

    probe: dict
    console: list[str]
    hosts: frozenset[str]


def browse(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def look(folder: Path, text: str, width: int, *flags: str, probe: str = PROBE) -> Seen:
    """Open a page in a frame of a width with the network cut, and ask it what a script asks."""
    policy = r'<meta http-equiv="Content-Security-Policy"[^>]*>'
    page, log = folder / "page.html", folder / "net.json"
    page.write_text(re.sub(policy, "", text).replace("</body>", probe))
    (folder / "frame.html").write_text(FRAME.format(width=width))
    window = f"--window-size={max(width, 500)},900"
    done = browse(
        folder, window, f"--log-net-log={log}", *flags, "--dump-dom", str(folder / "frame.html")
    )
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert found is not None, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if ":CONSOLE:" in line]
    urls = re.findall(r'"url":"(\w+://[^"/]+)', log.read_text(errors="replace"))
    hosts = frozenset(urlsplit(url).netloc for url in urls)
    return Seen(json.loads(html.unescape(found[1])), console, hosts)


@pytest.fixture(scope="module")
def own_hosts(tmp_path_factory) -> frozenset[str]:
    """Hosts that the browser itself asks for, whatever the page."""
    return look(tmp_path_factory.mktemp("empty"), "<html><body></body></html>", 500).hosts


@pytest.fixture(scope="module")
def pages(processed) -> dict[str, str]:
    from test_compare import CONFIG, scan

    from pipeline.stages.compare import compare

    changes = compare([scan("ses-1"), scan("ses-2", number=2)], config=CONFIG)
    error = InputError("Nothing in it", expected="an image", found="0 bytes", action="copy again")
    failure = Failure("sub-02", None, "separate", STAGES, error, ())
    return {
        "report": (processed / "sub-01/sub-01_report.html").read_text(),
        "change": render_change(changes, largest=5),
        "failure": render_failure(failure),
    }


def brightness(colour: str) -> float:
    """Mean of red, green and blue of "rgb(...)"."""
    return sum(float(v) for v in re.findall(r"[\d.]+", colour)[:3]) / 3.0


def test_the_checks_see_a_request_an_error_and_an_overflow(own_hosts, tmp_path):
    bad = (
        '<html><body><img src="http://example.invalid/x.png">'
        '<div style="width:900px">wide</div><script>console.error("boom")</script></body></html>'
    )
    seen = look(tmp_path, bad, 390)
    assert seen.hosts - own_hosts == {"example.invalid"}
    assert any("boom" in line for line in seen.console)
    assert seen.probe["outside"] == ["DIV"]


@pytest.mark.parametrize(
    ("page", "width", "dark"),
    [
        ("report", 390, False),
        ("report", 1440, True),
        ("change", 390, True),
        pytest.param("failure", 390, False, marks=pytest.mark.slow),
    ],
)
def test_no_request_no_error_nothing_outside_the_window(
    pages, own_hosts, tmp_path, page, width, dark
):
    seen = look(tmp_path, pages[page], width, *([DARK] if dark else []))
    assert seen.hosts - own_hosts == frozenset()
    assert seen.console == []
    probe = seen.probe
    assert probe["width"] == width
    assert probe["scroll"] <= width
    assert probe["outside"] == []
    paper, ink = brightness(probe["paper"]), brightness(probe["ink"])
    assert (paper < 60 and ink > 180) if dark else (paper > 200 and ink < 80)
    if page != "failure":
        # Of every chart one of two sizes is shown, and the script has made tables sortable.
        assert probe["shown"] == pages[page].count('<svg class="chart"') / 2
        assert probe["sortable"] > 10


#: Turn, zoom and click as a hand would, and say what was drawn and shown after each.
HAND = r"""<script>
const canvas_ = document.querySelector("canvas");
canvas_.setPointerCapture = () => {};
const box = canvas_.getBoundingClientRect();
const frame = () => canvas_.toDataURL();
const pointer = (kind, x, y) => canvas_.dispatchEvent(new PointerEvent(
  kind, {clientX: box.left + x, clientY: box.top + y, pointerId: 1, bubbles: true}));
const click = (x, y) => { pointer("pointerdown", x, y); pointer("pointerup", x, y); };
const cards = () => [...document.querySelectorAll(".card")].filter((c) => !c.hidden);
const frames = [frame()];
canvas_.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
frames.push(frame());
pointer("pointerdown", 50, 50); pointer("pointermove", 90, 70); pointer("pointerup", 90, 70);
frames.push(frame());
canvas_.dispatchEvent(new WheelEvent("wheel", {deltaY: -300, cancelable: true}));
frames.push(frame());
canvas_.dispatchEvent(new WheelEvent("wheel", {deltaY: 300, cancelable: true}));
const seen_ = document.createElement("canvas");
[seen_.width, seen_.height] = [canvas_.width, canvas_.height];
const flat = seen_.getContext("2d", {willReadFrequently: true});
flat.drawImage(canvas_, 0, 0);
const hits = {};
for (let x = 4; x < box.width; x += 50) for (let y = 4; y < box.height; y += 90) {
  if (Object.keys(hits).length > 4 || !flat.getImageData(x, y, 1, 1).data[3]) continue;
  click(x, y);
  const said = document.querySelector("#said").textContent;
  const shown = cards().map((c) => c.textContent.replace(/\s+/g, " "));
  if (said) hits[said] = {left: x / box.width, cards: shown};
}
click(1, 1);
parent.postMessage(JSON.stringify({
  distinct: new Set(frames).size, hits, nowhere: document.querySelector("#said").textContent,
  open: cards().length}), "*");
</script></body>"""
SOFTWARE_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def test_legs_turn_and_a_click_tells_the_muscle_and_its_numbers(tmp_path):
    page = render_surface(make_measures(), evidence(), scale_percent=20.0)
    seen = look(tmp_path, page, 500, *SOFTWARE_WEBGL, probe=HAND)
    # The driver remarks that reading pixels is slow.
    assert [line for line in seen.console if "GL Driver" not in line] == []
    assert seen.probe["distinct"] == 4
    hits = seen.probe["hits"]
    assert {"Vastus lateralis, right", "Vastus lateralis, left"} <= set(hits)
    # Seen nearly from the front, the patient's right is on the left.
    right, left = (hits[f"Vastus lateralis, {side}"]["left"] for side in ("right", "left"))
    assert right < left
    for title, hit in hits.items():
        # Bones have no numbers; a muscle's card is its own and the only one.
        assert [title.split(",")[0] in card for card in hit["cards"]] == (
            [] if title.startswith("Femur") else [True]
        )
    assert seen.probe["nowhere"] == ""
    assert seen.probe["open"] == 0


def printed(folder: Path, text: str) -> Path:
    """A page printed to A4 as its own style sheet says."""
    source, target = folder / "page.html", folder / "page.pdf"
    source.write_text(text)
    done = browse(folder, "--no-pdf-header-footer", f"--print-to-pdf={target}", str(source))
    assert target.is_file(), done.stderr[-2000:]
    return target


def sheets_of(pdf: Path) -> list[str]:
    """The text of every sheet without blanks; letters that are cut off are not in it."""
    texts = [sheet.extract_text() for sheet in PdfReader(pdf).pages]
    return ["".join(unicodedata.normalize("NFKC", text).split()) for text in texts]


def texts_of_chart(page: str, prefix: str) -> list[str]:
    """Every text of a chart on a page, without blanks."""
    start = page.index(f'id="{prefix}-')
    chart = page[start : page.index("</svg>", start)]
    texts = [html.unescape(t) for t in re.findall(r"<text[^>]*>([^<]*)</text>", chart)]
    return ["".join(unicodedata.normalize("NFKC", text).split()) for text in texts]


@pytest.mark.parametrize(
    ("page", "chart"),
    [
        ("report", "asymmetry-wide"),
        pytest.param("change", "change-0-wide", marks=pytest.mark.slow),
    ],
)
def test_printed_on_a4_every_chart_is_whole_on_one_sheet(pages, tmp_path, page, chart):
    pdf = printed(tmp_path, pages[page])
    for sheet in PdfReader(pdf).pages:
        assert sorted(float(v) for v in sheet.mediabox[2:]) == pytest.approx([595, 842], abs=1)
    wanted = texts_of_chart(pages[page], chart)
    assert len(wanted) > 50
    missing = [[text for text in wanted if text not in sheet] for sheet in sheets_of(pdf)]
    assert min(missing, key=len) == []


def test_what_is_cut_off_is_not_on_the_sheet(tmp_path):
    text = (
        "<html><style>@page{size:A4;margin:12mm}</style><body><p>inside</p>"
        '<p style="margin-left:-11mm">beside</p></body></html>'
    )
    (sheet,) = sheets_of(printed(tmp_path, text))
    assert "inside" in sheet
    assert "beside" not in sheet
