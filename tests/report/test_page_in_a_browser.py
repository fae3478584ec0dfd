"""The page in a headless Chromium, in frames as wide as a laptop and as a phone."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.report.conftest import HOSTILE

from thinkdraw.report import write_report

CHROMIUM = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
    *("--window-size=1400,900", "--virtual-time-budget=4000"),
)

# Runs before the page's own script; tells the frame around it what it saw.
PROBE = """
const errors = [];
addEventListener("error", event => errors.push(String(event.message || event.target)), true);
addEventListener("securitypolicyviolation", event => errors.push("blocked: " + event.violatedDirective));
window.alert = words => errors.push("alert " + words);
addEventListener("load", () => {
  const root = document.documentElement, seen = { errors, width: innerWidth, scrollWidth: root.scrollWidth };
  const read = id => (document.getElementById(id) || {}).textContent;
  const set = (id, value, kind) => {
    const control = document.getElementById(id);
    control.value = value;
    control.dispatchEvent(new Event(kind));
  };
  if (document.getElementById("inspector")) {
    const menu = document.getElementById("prompt");
    seen.first = [read("members"), read("group-note")];
    set("prompt", (Number(menu.value) + 1) % menu.options.length, "change");
    seen.second = [read("members"), read("group-note")];
    set("step", 0, "input");
    seen.earlier = [read("members"), read("step-name")];
    seen.prompts = [...document.getElementById("prompt").options].map(option => option.text);
    seen.pictures = document.querySelectorAll("#members img").length;
    seen.scrollWidth = Math.max(seen.scrollWidth, root.scrollWidth);
  }
  const figure = document.querySelector("figure.chart");
  if (figure) {
    const svg = figure.querySelector("svg"), box = svg.getBoundingClientRect();
    const legend = figure.querySelector(".legend");
    seen.legend = [legend.textContent];
    svg.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2 }));
    seen.legend.push(legend.textContent);
  }
  for (const details of document.querySelectorAll("details")) details.open = true;
  seen.scrollWidth = Math.max(seen.scrollWidth, root.scrollWidth);
  parent.postMessage(JSON.stringify(seen), "*");
});
"""


def look(report: Path, width: int, folder: Path) -> dict:
    """Open a copy of the page with the probe in it in a frame `width` pixels wide; returns what the probe saw."""
    allowed = f"script-src 'sha256-{base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()}' "
    page = report.read_text(encoding="utf-8").replace("script-src ", allowed, 1)
    (folder / "page.html").write_text(page.replace("<title>", f"<script>{PROBE}</script><title>", 1), encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(
        '<body><pre id="seen"></pre><script>onmessage = e => { seen.textContent = e.data; }</script>'
        f'<iframe src="page.html" style="width:{width}px;height:800px;border:0"></iframe>',
        encoding="utf-8",
    )
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", frame.as_uri()]
    reply = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    found = re.search(r'<pre id="seen">(.+?)</pre>', reply.stdout, re.S)
    assert found, f"the page did not load: {reply.stderr[-2000:]}"
    seen = json.loads(html.unescape(found[1]))
    return seen | {"console": [line for line in reply.stderr.splitlines() if "CONSOLE" in line]}


pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on PATH: the page is not opened")


@pytest.fixture(scope="module", params=[1280, 390])
def seen(request, quickstart, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("browser")
    return look(write_report(quickstart, folder / "report.html"), request.param, folder)


def test_nothing_is_logged_blocked_or_run_that_the_page_did_not_write(seen):
    assert seen["errors"] == [] and seen["console"] == []


def test_the_page_never_scrolls_sideways(seen):
    assert seen["scrollWidth"] <= seen["width"]


def test_the_inspector_follows_the_prompt_and_the_step(seen):
    assert "reward" in seen["first"][0] and seen["first"] != seen["second"]
    assert "all rewards are equal" not in seen["first"][1]  # it opens on the group that teaches most
    assert seen["earlier"][0] != seen["second"][0] and seen["earlier"][1] == "10"
    assert seen["pictures"] == 8  # a whole group
    assert seen["prompts"][0] == HOSTILE[0]  # as text


def test_pointing_at_a_chart_reads_out_the_values_there(seen):
    last, pointed = seen["legend"]
    # The middle of 0..420 is 210; steps 1..300 lie on 46..410, so it points at 1 + 164/364 · 299 = 135.7
    assert "step 136" in pointed and last != pointed


def test_a_folder_without_rollouts_opens_without_errors(quickstart, tmp_path):
    report = write_report(quickstart / "sft", tmp_path / "report.html")
    seen = look(report, 390, tmp_path)
    assert seen["errors"] == [] and seen["console"] == [] and seen["scrollWidth"] <= seen["width"]
