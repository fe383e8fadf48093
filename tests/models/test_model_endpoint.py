"""A classifier behind an address: our own app, and what other apps may answer."""

from __future__ import annotations

import gc
import socket
import threading

import numpy as np
import pytest
import torch
from black_box_tiny import LOWER, OK, UPPER, Script, halves, ink, labels_of, scripted, tiny_engine

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models import load
from purpleteam.models.endpoint import Endpoint
from purpleteam.models.inference import correct, logits
from purpleteam.serve import keys
from purpleteam.serve.main import running_app

BLANK = np.zeros((1, 1, 28, 28), np.float32)


def batch(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(images))


@pytest.fixture(scope="module")
def url():
    with running_app(tiny_engine()) as address:
        yield address


@pytest.fixture(scope="module")
def open_url():
    with running_app(tiny_engine(halves() / 20), expose_confidences=True) as address:
        yield address


def test_our_app_is_known_by_what_it_says_of_itself(url):
    model = Endpoint(url)
    assert (model.name, model.digest) == (url, tiny_engine().card.digest)
    assert (model.classes, model.gives, model.shape) == (10, "labels", (1, 28, 28))
    assert (model.differentiable, model.quantised, model.waited) == (False, True, 0.0)
    assert "states of itself" in model.notes[0]
    assert "labels alone" in model.notes[1]


def test_labels_come_as_one_hot_rows_in_order(url):
    model = Endpoint(url)
    x = batch(UPPER, LOWER, LOWER, UPPER, LOWER, UPPER)
    assert model(x).tolist() == torch.eye(10)[[0, 1, 1, 0, 1, 0]].tolist()
    assert labels_of(model, x) == [0, 1, 1, 0, 1, 0]


def test_confidences_come_as_log_probabilities(open_url):
    model = Endpoint(open_url)
    weight = torch.from_numpy(halves() / 20)
    truth = (batch(UPPER, LOWER).flatten(1) @ weight).log_softmax(1)
    assert model.gives == "scores"
    assert torch.allclose(model(batch(UPPER, LOWER)), truth, atol=1e-3)


def test_a_refused_image_is_not_right_and_not_another_label(url):
    model = Endpoint(url)
    assert model(batch(BLANK, UPPER)).isnan().all(1).tolist() == [True, False]
    assert labels_of(model, batch(BLANK, UPPER)) == [-1, 0]
    assert model.refusals == 2
    pixels = (np.concatenate([BLANK, UPPER]) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    assert correct(model, ImageSet(pixels, np.array([0, 0]))).tolist() == [False, True]


def test_the_app_sees_the_bytes_and_every_one_is_counted():
    got: list[bytes] = []
    with scripted(Script(lambda body: got.append(body) or {"label": 3})) as address:
        model = Endpoint(address, connections=1)
        assert model.calls == 1  # opening it takes one
        x = torch.arange(784.0).remainder(256).reshape(1, 1, 28, 28) / 255
        model(torch.cat([x, x / 2]))
        assert model.calls == 3
        model._app.close()
    assert got[1] == (np.arange(784) % 256).astype(np.uint8).tobytes()
    assert got[2] == np.rint(np.arange(784) % 256 / 2).astype(np.uint8).tobytes()


def test_an_answer_without_a_label_counts_as_a_refusal_from_the_first_on():
    with scripted(Script(lambda _: {"label": None})) as address:
        model = Endpoint(address, connections=1)
        model(batch(BLANK, UPPER))
        assert (model.refusals, model.calls) == (3, 3)
        model._app.close()


@pytest.mark.parametrize("connections", [1, 3, 8])
def test_the_answers_keep_their_order_however_many_are_asked_at_once(connections):
    with scripted(Script(lambda body: {"label": body[0]})) as address:
        model = Endpoint(address, connections=connections)
        labels = torch.arange(20) % 10
        x = (labels / 255).reshape(-1, 1, 1, 1).expand(-1, 1, 28, 28)
        assert labels_of(model, x) == labels.tolist()
        model._app.close()


def test_requests_are_under_way_at_once():
    together = threading.Barrier(4, timeout=5)

    def answer(body: bytes) -> object:
        if body[0]:  # all but the image that opens it
            together.wait()
        return {"label": 1}

    with scripted(Script(answer)) as address:
        model = Endpoint(address, connections=4)
        assert labels_of(model, torch.ones(8, 1, 28, 28)) == [1] * 8
        model._app.close()


def test_an_app_that_says_nothing_of_itself_is_named_by_its_address():
    with scripted(Script(lambda _: {"label": 2})) as address:
        model = Endpoint(address)
        assert model.digest == sha256_bytes(address.encode())
        assert (model.classes, model.gives) == (10, "labels")
        assert "states no digest" in model.notes[0]
        assert Endpoint(address, classes=3).classes == 3


def test_the_number_of_classes_is_what_the_app_shows():
    with scripted(Script(lambda _: {"label": 2, "confidences": [0.0, 0.25, 0.75]})) as address:
        model = Endpoint(address)
        assert (model.classes, model.gives) == (3, "scores")
        row = model(torch.zeros(1, 1, 28, 28))[0]
        assert row.exp().tolist() == pytest.approx([5e-7, 0.25, 0.75])


def test_the_label_counts_where_it_is_not_the_most_confident():
    with scripted(Script(lambda _: {"label": 0, "confidences": [0.2, 0.4, 0.4]})) as address:
        model = Endpoint(address)
        assert labels_of(model, torch.zeros(1, 1, 28, 28)) == [0]


def test_a_path_a_query_and_a_password_reach_the_app():
    script = Script(lambda _: {"label": 2})
    with scripted(script) as address:
        place = address.removeprefix("http://")
        model = Endpoint(f"http://me:secret@{place}/digits?key=k")
        assert model.name == f"http://{place}/digits"
    assert {path for _, path, _ in script.seen} == {
        f"/digits/{one}?key=k" for one in ("readyz", "version", "predict")
    }
    assert all(headers["authorization"] == "Basic bWU6c2VjcmV0" for _, _, headers in script.seen)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {}, b'{"title": "Not\\nFound"}'), 'POST /predict with status 404: \'{"title"'),
        ((500, {}, b"oh\nno"), "answered POST /predict with status 500: 'oh no'"),
        ((302, {"location": "http://elsewhere/"}, b""), "points elsewhere (status 302): 'http://e"),
        ((OK, {}, b"<html>"), "answered with what is no JSON: '<html>'"),
        ((OK, {}, b"\xff\xfe"), "answered with what is no JSON"),
        ((OK, {}, b"[" * 100_000), "answered with what is no JSON"),
        ((OK, {}, b"7"), "answered without 'label': '7'"),
        ({"class": 7}, "answered without 'label': '{\"class\": 7}'"),
        ({"label": 10}, "answered with label 10, not one of 0 to 9"),
        ({"label": -1}, "answered with label -1, not one of 0 to 9"),
        ({"label": True}, "answered with label True, not one of 0 to 9"),
        ({"label": "7"}, "answered with label '7', not one of 0 to 9"),
        ({"label": 1, "confidences": "high"}, "answered with confidences 'high', not 10"),
        ({"label": 1, "confidences": [0.9, 0.9]}, "answered with confidences [0.9, 0.9], not 2"),
        ({"label": 1, "confidences": [2.0, -1.0]}, "not 2 that sum to 1"),
        ({"label": 0, "confidences": [float("nan"), 1]}, "not 2 that sum to 1"),
        ({"label": 0, "confidences": [True, False]}, "not 2 that sum to 1"),
        ((OK, {}, b" " * 1_000_001), "more than 1000000 bytes"),
        (
            (OK, {"content-length": "9", "connection": "close"}, b"{}"),
            "closed the connection in mid-answer",
        ),
        ((0, {}, b""), "closed the connection without an answer"),
    ],
)
def test_what_is_no_answer_of_a_classifier_is_a_clear_error(answer, message):
    with scripted(Script(lambda _: answer)) as address, pytest.raises(ModelError) as error:
        Endpoint(address)
    assert str(error.value).startswith(f"{address} ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


def test_confidences_that_stop_coming_are_a_clear_error():
    answers = iter([{"label": 1, "confidences": [0.1, 0.9]}, {"label": 1}])
    with scripted(Script(lambda _: next(answers))) as address:
        model = Endpoint(address)
        with pytest.raises(ModelError, match="answered with confidences None, not 2"):
            model(torch.zeros(1, 1, 28, 28))


def test_an_error_says_how_far_one_got_and_stops_the_others():
    script = Script(lambda body: {"label": 1} if body[0] != 9 else (500, {}, b""))
    with scripted(script) as address:
        model = Endpoint(address, connections=3)
        x = torch.arange(240.0).reshape(-1, 1, 1, 1).expand(-1, 1, 28, 28) / 255
        with pytest.raises(ModelError, match=r"status 500: ''; \d+ images were answered before"):
            model(x)
        assert model.calls < 100
        assert len(script.seen) < 100
        model._app.close()


def test_an_app_that_is_not_ready_is_not_waited_for():
    class Asleep(Script):
        def reply(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
            return 503, {}, b"the model is gone"

    gone = pytest.raises(ModelError, match=r"is not ready \(status 503\): 'the model is gone'")
    with scripted(Asleep(lambda _: None)) as address, gone:
        Endpoint(address)


def test_where_nobody_listens_is_a_clear_error():
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    with pytest.raises(ModelError, match=f"http://127.0.0.1:{port} does not answer: connection re"):
        Endpoint(f"http://me:secret@127.0.0.1:{port}")
    with pytest.raises(UsageError, match="not of the form"):
        Endpoint("gopher://127.0.0.1")


def test_a_host_that_cannot_be_is_a_clear_error():
    with pytest.raises(ModelError, match=r"http://a+\.invalid cannot be reached: UnicodeError"):
        Endpoint(f"http://{'a' * 70}.invalid")  # too long for any name, so nobody is asked


def test_images_of_another_shape_are_refused_before_they_are_sent(url):
    model = Endpoint(url)
    with pytest.raises(ModelError, match=r"takes images \(1, 28, 28\), not \(3, 32, 32\)"):
        logits(model, np.zeros((1, 32, 32, 3), np.uint8))
    assert model.calls == 1


def test_an_app_that_goes_away_is_not_called_a_matter_of_shapes():
    with scripted(Script(lambda _: {"label": 1})) as address:
        model = Endpoint(address)
    model._app.close()
    with pytest.raises(ModelError) as error:
        logits(model, np.zeros((1, 28, 28, 1), np.uint8))
    assert str(error.value).startswith(f"{address} ")


def test_a_model_that_is_dropped_closes_its_connections(url):
    model = Endpoint(url)
    (used, *_) = model._app.lines
    assert used.sock is not None
    del model
    gc.collect()
    assert used.sock is None


def test_a_faint_stroke_is_what_the_app_itself_would_see(url):
    model = Endpoint(url)
    faint = ink(5, 8) * (31.4 / 255)  # rounds to 31, and below 32 the app sees no ink
    assert labels_of(model, batch(faint, faint * 1.05)) == [-1, -1]
    assert labels_of(model, batch(ink(5, 8) * (127.5001 / 255))) == [0]


def test_load_takes_an_address(url):
    loaded = load(url)
    assert isinstance(loaded.module, Endpoint)
    assert (loaded.name, loaded.digest, loaded.card) == (url, tiny_engine().card.digest, None)
    assert loaded.notes == loaded.module.notes
    with pytest.raises(UsageError, match="not of the form http://HOST:PORT"):
        load("ftp://127.0.0.1/model")


def test_a_key_in_the_address_opens_an_app_that_asks_for_one(tmp_path):
    _, token = keys.add(tmp_path / "keys.jsonl")
    with running_app(tiny_engine(), keys=tmp_path / "keys.jsonl") as url:
        assert Endpoint(url.replace("//", f"//{token.replace('.', ':')}@")).calls == 1
        with pytest.raises(ModelError, match="status 401"):
            Endpoint(url)
