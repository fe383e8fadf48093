"""The page: one file, no script, no request, its style by hash, everything escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from purpleteam.core.errors import RunError
from purpleteam.core.ledger import Ledger
from purpleteam.core.records import Note
from purpleteam.core.statistics import Rate
from purpleteam.report import CHAPTERS, render
from purpleteam.report.chapters.evasion import soundness
from purpleteam.report.png import encode_png
from report_records import measured

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


def page_of(run: Path) -> str:
    return render(run).html.read_text(encoding="utf-8")


def test_rendering_twice_gives_the_same_bytes(own_run: Path) -> None:
    first = render(own_run)
    before = first.html.read_bytes(), first.markdown.read_bytes()
    again = render(own_run)
    assert (again.html.read_bytes(), again.markdown.read_bytes()) == before


def test_a_moved_run_gives_the_same_page(own_run: Path, tmp_path: Path) -> None:
    before = page_of(own_run)
    assert page_of(own_run.rename(tmp_path / "elsewhere")) == before


def test_rendering_is_quick_and_the_page_light(own_run: Path) -> None:
    started = time.process_time()
    page = page_of(own_run)
    assert time.process_time() - started < 2
    assert len(page.encode()) < 3_000_000


def test_a_drawing_is_written_as_ever_or_no_earlier_page_verifies(html: str) -> None:
    before = r'<figure class="plot" data-record="(n-\w+)"><div class="scroll paper" [^>]+><svg '
    after = r"</svg></div><figcaption><strong>[^<]+</strong> <button [^>]+>\1</button></figcaption>"
    assert re.search(f"\n{before}.+?{after}</figure>\n", html, re.DOTALL)


def test_the_page_has_no_script_and_asks_for_nothing(html: str) -> None:
    page = html
    assert not re.search(r"<(script|link|iframe|object|embed|base|form)\b", page)
    assert not re.search(r"\s(on\w+|style)\s*=\s*[\"']", page)
    assert {uri[:5] for uri in re.findall(r'src="([^"]*)"', page)} == {"data:"}
    assert not re.search(r'(href|src)="(https?:)?//', page)
    assert not re.search(r"@import|url\(", page.split("</style>")[0])


def test_the_policy_allows_the_one_style_by_its_hash(html: str) -> None:
    page = html
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(styles[0].encode()).digest()).decode()
    assert len(styles) == 1
    assert f"&#39;sha256-{digest}&#39;" in page
    assert "unsafe" not in page.split("</head>")[0].split("Security-Policy")[1].split(">")[0]


def test_a_model_named_like_a_script_is_harmless(make_run: Callable[..., Path]) -> None:
    how = {"attack": HOSTILE, "epsilon": 0.3, "norm": HOSTILE}
    run = make_run(
        measured("clean_accuracy", Rate.of(9, 10), HOSTILE),
        measured("robust_accuracy", Rate.of(3, 10), HOSTILE, how),
        Note(name="training", facts={"model_name": HOSTILE, "epochs": [{"epoch": 1, "loss": 2.0}]}),
        Note(
            name="gallery",
            facts={
                "title": HOSTILE,
                "kind": "digits",
                "images": [{"path": HOSTILE, "caption": HOSTILE}],
            },
        ),
        Note(name=HOSTILE, facts={HOSTILE: HOSTILE}),
    )
    page = page_of(run)
    assert "<script" not in page
    assert not re.search(r"<img[^>]*onerror", page)
    assert "&lt;script&gt;" in page


def test_markdown_escapes_markup_too(make_run: Callable[..., Path]) -> None:
    run = make_run(measured("clean_accuracy", Rate.of(9, 10), HOSTILE + "|[x](y)"))
    text = render(run).markdown.read_text(encoding="utf-8")
    assert "<script" not in re.sub(r"`[^`]*`", "", text)
    assert "\\|\\[x\\](y)" in text


def test_an_empty_run_says_of_every_chapter_that_it_was_not_run(
    make_run: Callable[..., Path],
) -> None:
    page = unescape(page_of(make_run()))
    gaps = [chapter.gap for chapter in CHAPTERS.values() if chapter.gap]
    assert len(gaps) >= 8
    assert all(gap in page for gap in gaps)
    assert "Nothing has been measured yet" in page


def test_what_no_chapter_tells_is_shown_all_the_same(html: str) -> None:
    page = html
    table = page.split("Measurements that no chapter tells of</caption>")[1].split("</table>")[0]
    assert "cross check difference" in table
    assert "clean accuracy" not in table


def test_an_unsound_evaluation_is_never_a_number_in_bold(html: str) -> None:
    page = html
    unsure = re.findall(r'value="0.811"[^>]*><span class="badge bad">', page)
    sure = re.findall(r'value="0.811"[^>]*><button', page)
    assert len(unsure) >= 2
    assert sure == []


def test_what_the_judge_took_from_a_sound_number_is_told_beside_it(html: str) -> None:
    assert "a few more attacks break 2 more in 100 images" in html


@pytest.mark.parametrize(("curve", "told"), [(False, True), (True, False)])
def test_a_number_that_is_wholly_taken_says_so_unless_it_is_one_of_a_curve(
    curve: bool, told: bool
) -> None:
    detail = {"soundness": {"verdict": "weak", "reasons": [], "checks": {"overstated_by": 1.0}}}
    one = measured("robust_accuracy", Rate.of(9, 9), "baseline", {"curve": curve}, detail)
    assert ("break 100 more in 100 images" in str(soundness(one))) == told


def test_a_selection_is_flagged(html: str) -> None:
    assert 'class="flag">first 1000: no random sample</span>' in html


def test_a_picture_outside_the_run_is_never_read(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "secret.png").write_bytes(encode_png(np.zeros((4, 4), np.uint8)))
    image = {"path": "../secret.png", "caption": "outside"}
    run = make_run(Note(name="gallery", facts={"title": "t", "kind": "digits", "images": [image]}))
    assert "not in this page: ../secret.png" in page_of(run)


def test_an_edited_run_is_shown_under_a_banner_that_says_so(own_run: Path) -> None:
    records = own_run / "records.jsonl"
    records.write_bytes(records.read_bytes().replace(b"0.9889", b"0.9989", 1))
    page = page_of(own_run)
    assert page.index("This run fails its verification") < page.index("<h1>")
    assert 'role="alert"' in page and "the hash chain breaks at line" in page
    markdown = (own_run / "report.md").read_text("utf-8")
    assert "> **This run fails its verification.**" in markdown.split("##")[0]


def test_a_run_that_was_cut_off_and_one_without_an_end_are_not_shown_as_whole(
    own_run: Path, html: str
) -> None:
    assert "alarm" not in html.partition("<body>")[2]
    info = json.loads((own_run / "run.json").read_text("utf-8"))
    end = info.pop("records")
    (own_run / "run.json").write_text(json.dumps(info), "utf-8")
    assert "This run cannot be verified" in page_of(own_run)
    (own_run / "run.json").write_text(json.dumps(info | {"records": end}), "utf-8")
    Ledger(own_run / "records.jsonl").keep(end["lines"] - 5)
    assert f"run.json tells of {end['lines']} lines" in page_of(own_run)


def test_a_run_of_which_no_line_can_be_read_has_no_page(own_run: Path) -> None:
    (own_run / "records.jsonl").write_text('{"kind": "note"}\n', "utf-8")
    with pytest.raises(RunError, match="line 1 is damaged"):
        render(own_run)


def test_no_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        render(tmp_path)
