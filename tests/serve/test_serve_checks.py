"""The executed checks: ours pass, the app without a part fails, and each fault alone is seen."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from serve_tiny_model import halves, write_linear_model

import purpleteam.serve.checks
from purpleteam.core.cards import find_stored
from purpleteam.core.checks import CHECKS, Target, run_check
from purpleteam.core.digest import sha256_file
from purpleteam.serve.checks._web import ask
from purpleteam.serve.checks.connections import RUDE
from purpleteam.serve.checks.requests import LEAK, PATHS
from purpleteam.serve.engine import Engine
from purpleteam.serve.feedback import Wrong
from purpleteam.serve.guards.visit import SECURITY_HEADERS
from purpleteam.serve.main import running_app

HEADERS, NO_INLINE = CHECKS["web.headers"](), CHECKS["web.no-inline"]()
WEB = sorted(name for name in CHECKS if name.startswith("web.") and name != "web.audit")


@contextmanager
def page_server(page: bytes, headers: dict[str, str]) -> Iterator[str]:
    """A server that answers everything with one page and some headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response_only(200)
            for name, value in {"Content-Type": "text/html", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(page)

        do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_there_are_at_least_nineteen_checks() -> None:
    assert purpleteam.serve.checks and len(WEB) >= 19


@pytest.fixture(scope="module")
def as_served(engine: Engine) -> Iterator[str]:
    """The app as it is by default, limits included."""
    with running_app(engine) as address:
        yield address


@pytest.mark.parametrize("name", [name for name in WEB if name != "web.tls"])  # this is loopback
def test_our_app_passes_and_the_control_fails(name: str, as_served: str, model: Path) -> None:
    identity = find_stored(str(model)).card.identity
    target = Target(url=as_served, served_digest=identity, model=model)
    result = run_check(CHECKS[name](), target)
    assert result.verdict == "pass", (result.measured, result.message)
    assert result.negative_control == {"ran": True, "failed_as_required": True}


@pytest.mark.parametrize("name", WEB)
def test_without_an_address_a_check_is_skipped(name: str) -> None:
    assert run_check(CHECKS[name](), Target()).verdict == "skipped"


@pytest.mark.parametrize("name", sorted(set(WEB) - {"web.loopback-default", "web.model-digest"}))
def test_no_server_at_all_is_no_pass(name: str) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        port = closed.server_port
    assert run_check(CHECKS[name](), Target(url=f"http://127.0.0.1:{port}")).verdict != "pass"


EACH_FAULT = {
    "web.assets": {"other": ["/"]},
    "web.deadlines": {"kept": sorted(RUDE)},
    "web.debug-off": {"wrong": dict.fromkeys(PATHS, 500) | {"an error": 500}},
}


@pytest.mark.parametrize("name", EACH_FAULT)
def test_a_control_fails_by_what_was_left_out_of_the_app(name: str, tmp_path: Path) -> None:
    check = CHECKS[name]()
    with check.bad_target(tmp_path) as bad:
        assert json.loads(ask(str(bad.url), "GET", "/version").body)["model"] == "standard"
        assert check.examine(bad).measured.items() >= EACH_FAULT[name].items()


def test_without_its_methods_a_path_answers_to_any_other(tmp_path: Path) -> None:
    check = CHECKS["web.method-not-allowed"]()
    with check.bad_target(tmp_path) as bad:
        wrong = check.examine(bad).measured["wrong"]
    assert wrong["GET /predict"] == 415 and wrong["PUT /"] == 200 and len(wrong) == 13


def test_the_other_page_of_the_control_has_every_fault(tmp_path: Path) -> None:
    with NO_INLINE.bad_target(tmp_path) as bad:
        wrong = NO_INLINE.examine(bad).measured
    assert "<style>" in wrong and "code in <script>" in wrong and "style on <body>" in wrong
    assert "onload on <body>" in wrong and "<script> leads to https://cdn.example/app.js" in wrong


def test_exposed_confidences_are_seen(engine: Engine) -> None:
    with running_app(engine, expose_confidences=True) as url:
        assert run_check(CHECKS["web.no-confidences"](), Target(url=url)).verdict == "fail"


def test_a_drawing_that_is_kept_though_nobody_asked_for_it_is_seen(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Wrong, "_keep", lambda *_: True)
    kept = CHECKS["web.feedback"]().examine(Target(url=url)).measured["kept"]
    assert kept["nobody asked for it"] and not kept["not ticked"]


def test_another_model_is_seen(url: str) -> None:
    target = Target(url=url, served_digest="sha256:" + "0" * 64)
    assert run_check(CHECKS["web.model-digest"](), target).verdict == "fail"


def test_another_onnx_file_under_the_same_weights_is_seen(tmp_path: Path) -> None:
    known = find_stored(str(write_linear_model(tmp_path, halves(), (1, 28, 28)))).card
    net = onnx.load(tmp_path / "tiny.onnx")
    net.graph.initializer[0].CopyFrom(numpy_helper.from_array(-halves(), "weight"))
    onnx.save(net, tmp_path / "tiny.onnx")
    replace(known, onnx_digest=sha256_file(tmp_path / "tiny.onnx")).write(tmp_path / "tiny.json")
    with running_app(str(tmp_path / "tiny")) as url:
        found = run_check(
            CHECKS["web.model-digest"](), Target(url=url, served_digest=known.identity)
        )
    assert found.verdict == "fail" and known.digest in found.inputs.values()


def test_without_a_digest_to_expect_there_is_no_verdict(url: str) -> None:
    assert run_check(CHECKS["web.model-digest"](), Target(url=url)).verdict == "skipped"


@pytest.mark.parametrize("missing", ["x-content-type-options", "referrer-policy"])
def test_one_missing_header_is_seen(missing: str) -> None:
    headers = {name: value for name, value in SECURITY_HEADERS.items() if name != missing}
    with page_server(b"", headers) as url:
        assert HEADERS.examine(Target(url=url)).measured["wrong"]["page"] == [missing]


@pytest.mark.parametrize("header", ["server", "access-control-allow-origin"])
def test_one_header_too_many_is_seen(header: str) -> None:
    with page_server(b"", {**SECURITY_HEADERS, header: "*"}) as url:
        assert HEADERS.examine(Target(url=url)).measured["wrong"]["page"] == [header]


def test_a_site_that_may_call_from_elsewhere_is_seen() -> None:
    with page_server(b"", SECURITY_HEADERS) as url:
        wrong = HEADERS.examine(Target(url=url)).measured["wrong"]
    assert wrong == {
        "foreign host": ["answered with 200"],
        "foreign site": ["answered with 200"],
    }


@pytest.mark.parametrize("source", ["'unsafe-inline'", "'unsafe-eval'", "*", "https:", "data:"])
def test_a_policy_that_allows_more_is_seen(source: str) -> None:
    policy = SECURITY_HEADERS["content-security-policy"]
    headers = dict(SECURITY_HEADERS)
    headers["content-security-policy"] = policy.replace("script-src", f"script-src {source}")
    with page_server(b"", headers) as url:
        wrong = HEADERS.examine(Target(url=url)).measured["wrong"]["page"]
    assert wrong == [f"script-src allows {source}"]


@pytest.mark.parametrize(
    "page",
    [
        b"<script>start()</script>",
        b"<style>p { color: red }</style>",
        b"<p style='color: red'>",
        b"<p onclick='start()'>",
        b"<a href='javascript:start()'>",
        b"<img src='//cdn.example/a.png'>",
        b"<link rel='stylesheet' href='https://cdn.example/a.css'>",
    ],
)
def test_one_inline_or_foreign_part_is_seen(page: bytes) -> None:
    with page_server(page, {}) as url:
        assert len(NO_INLINE.examine(Target(url=url)).measured) == 1


def test_a_dangerous_sink_in_a_script_is_seen() -> None:
    page = b"<script src='/a.js'></script><!-- node.innerHTML = text -->"
    with page_server(page, {}) as url:
        assert "/a.js: .innerHTML" in NO_INLINE.examine(Target(url=url)).measured


@pytest.mark.parametrize(
    "text",
    [
        "Traceback (most recent call last)",
        'File "server.py", line 3',
        "ValueError: bad",
        "object at 0x7f2a10c3d0e0",
        "/home/app/model.onnx",
    ],
)
def test_leaks_are_recognised(text: str) -> None:
    assert LEAK.search(text)


def test_our_own_problem_texts_are_no_leaks() -> None:
    assert not LEAK.search("Send images as application/octet-stream, not encoded.")
