"""Model files that run code when they are loaded, or lie about what they hold.

Each payload leaves a file `it-ran` in the folder where it runs; `scan_firing` sees that it does.
What lies about sizes, places or names runs nothing and has no loader.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "scan"))

from scan_pickles import (  # what the tests hold: one corpus, not two
    COMMAND,
    FIRED,
    PAYLOAD,
    PYTHON,
    TOUCH,
    Sample,
    call,
    named,
    raw,
    scan_corpus,
    text,
    value,
)


def _torch() -> Iterator[Sample]:
    """Yield what torch.load runs."""
    import torch

    def archive(data: bytes, deflated: bool = False, **extra: bytes) -> bytes:
        target = io.BytesIO()
        packing = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
        with zipfile.ZipFile(target, "w", packing) as writer:
            whole = {"data.pkl": data, "data/0": scan_corpus.FLOATS, "version": b"3\n", **extra}
            for name, content in whole.items():
                writer.writestr(f"archive/{name}", content)
        return target.getvalue()

    class Net(torch.nn.Module):
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (COMMAND,)

    inside = scan_corpus.benign_pickle()[:-1]
    plain = archive(PAYLOAD)
    payloads = {
        "system": plain,
        "exec": archive(b"\x80\x02" + call(named("builtins", "exec"), text(PYTHON)) + b"."),
        "collect_env": archive(
            b"\x80\x02" + call(named("torch.utils.collect_env", "run"), text(COMMAND)) + b"."
        ),
        "dotted": archive(
            b"\x80\x04"
            + call(
                named("torch.nn.modules.module", "torch.utils.cpp_extension.subprocess.Popen"),
                value(TOUCH),
            )
            + b"."
        ),
        "beside_a_tensor": archive(inside + text("v") + FIRED + b"s."),
        "before_a_tensor": archive(b"\x80\x02" + FIRED + b"0" + inside[2:] + b"."),
        "behind_the_tensors": archive(inside + FIRED + b"0."),
        "no_stop": archive(PAYLOAD[:-1]),
        "deflated": archive(PAYLOAD, deflated=True),
        "wrong_crc": plain.replace(struct.pack("<I", zlib.crc32(PAYLOAD)), struct.pack("<I", 1)),
        "second_copy": plain + b"tail",
    }
    for name, data in payloads.items():
        yield Sample(name=f"{name}.pt", kind="torch archive", data=data, loader="torch")
    for legacy in (False, True):
        target = io.BytesIO()
        torch.save(
            {"net": Net(), "w": torch.ones(2)}, target, _use_new_zipfile_serialization=not legacy
        )
        kind = "torch, before 1.6" if legacy else "torch archive"
        yield Sample(name=f"module_{legacy}.pth", kind=kind, data=target.getvalue(), loader="torch")
    legacy_file = target.getvalue()
    yield Sample(name="bare.pt", kind="torch, before 1.6", data=PAYLOAD, loader="torch")
    yield Sample(name="ckpt.ckpt", kind="torch, before 1.6", data=legacy_file, loader="torch")
    yield from _compiled(torch)


def _compiled(torch: Any) -> Iterator[Sample]:
    """Yield TorchScript that writes a file as it is loaded, and a torch.package."""

    class Writes(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.ones(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.w

        @torch.jit.export
        def __getstate__(self) -> tuple[torch.Tensor, bool]:
            return (self.w, self.training)

        @torch.jit.export
        def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
            self.w = state[0]
            self.training = state[1]
            torch.save(self.w, "it-ran")

    target = io.BytesIO()
    torch.jit.save(torch.jit.script(Writes()), target)
    yield Sample(name="script.pt", kind="TorchScript", data=target.getvalue(), loader="jit")
    from torch.package import PackageExporter

    target = io.BytesIO()
    with PackageExporter(target) as exporter:
        exporter.save_source_string("net", PYTHON)
        exporter.save_text("net", "a.txt", "x")
    yield Sample(name="package.pt", kind="torch.package", data=target.getvalue(), loader="package")


def _packed() -> Iterator[Sample]:
    """Yield payloads that lie in something else."""
    import numpy as np

    lz4_less = {"zlib": zlib.compress, "gz": gzip.compress, "bz2": bz2.compress}
    lz4_less |= {"xz": lzma.compress, "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE)}
    for name, pack in {"plain": bytes, **lz4_less}.items():
        data = pack(PAYLOAD)
        yield Sample(name=f"{name}.joblib", kind="joblib", data=data, loader="joblib")
        if name in ("gz", "bz2", "xz"):
            yield Sample(name=f"a.pkl.{name}", kind="joblib", data=data, loader="joblib")
    import joblib

    target = io.BytesIO()
    array = {"w": np.arange(9.0), "run": scan_corpus.Call(os.system, COMMAND)}
    joblib.dump(array, target)
    yield Sample(name="array.joblib", kind="joblib", data=target.getvalue(), loader="joblib")
    objects = np.empty(1, object)
    objects[0] = scan_corpus.Call(os.system, COMMAND)
    for name, save in {"a.npy": np.save, "b.npz": np.savez, "c.npz": np.savez_compressed}.items():
        target = io.BytesIO()
        save(target, objects)
        yield Sample(name=name, kind="NumPy", data=target.getvalue(), loader="numpy")
    yield Sample(name="pickle.npy", kind="NumPy", data=PAYLOAD, loader="numpy")
    tags = {
        "apply": f"!!python/object/apply:os.system ['{COMMAND}']",
        "new": f"!!python/object/new:os.system ['{COMMAND}']",
        "exec": f'lr: 0.1\nhook: !!python/object/apply:exec ["{PYTHON}"]',
        "tag": f"%TAG !p! tag:yaml.org,2002:python/\n---\n!p!object/apply:os.system ['{COMMAND}']",
        "verbatim": f"!<tag:yaml.org,2002:python/object/apply:os.system> ['{COMMAND}']",
    }
    for name, written in tags.items():
        yield Sample(name=f"{name}.yaml", kind="YAML", data=written.encode(), loader="yaml")
    containers = {
        "net.mar": scan_zip({"MAR-INF/MANIFEST.json": b"{}", "model.pkl": PAYLOAD}),
        "deep.zip": scan_zip({"a.zip": scan_zip({"b.zip": scan_zip({"w.dat": PAYLOAD})})}),
        "flow.zip": scan_zip({"MLmodel": b"flavors: {}\n", "python_model.pkl": PAYLOAD}),
        "net.nemo": _tar({"config.yaml": b"a: 1\n", "weights.pkl": PAYLOAD[2:]}),
        "net.tar": _tar({"w.bin": PAYLOAD}),
        "net.tgz": gzip.compress(_tar({"w.bin": PAYLOAD})),
        "net.tar.xz": lzma.compress(_tar({"model/w": PAYLOAD})),
    }
    for name, data in containers.items():
        yield Sample(name=name, kind="container", data=data, loader="unpacked")
    template = "{{ cycler.__init__.__globals__.os.system('" + COMMAND + "') }}"
    yield Sample(name="chat.gguf", kind="GGUF template", data=_gguf(template), loader="jinja2")


def scan_zip(files: dict[str, bytes]) -> bytes:
    """Return a zip archive of the files."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def _tar(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def _gguf(template: str) -> bytes:
    """Return a GGUF file (version 3) of no tensors, with a chat template."""

    def word(one: str) -> bytes:
        return struct.pack("<Q", len(one.encode())) + one.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 2)
    head += word("general.architecture") + struct.pack("<I", 8) + word("llama")
    return head + word("tokenizer.chat_template") + struct.pack("<I", 8) + word(template)


def _lies(folder: Path) -> Iterator[Sample]:
    """Yield what runs nothing: the tests' corpus, and files that take all memory or time."""
    marker = folder / "it-ran"
    files = scan_corpus.malicious_files(folder, marker)
    known = set(scan_corpus.pickles(marker))
    for name, path in files.items():
        if name.split(".")[0] not in known and "pickle_named" not in name:
            kind = {".pt": "damaged or false archive", ".safetensors": "false safetensors",
                    ".onnx": "false ONNX"}.get(path.suffix, "other lies")  # fmt: skip
            yield Sample(name=f"lie-{path.name}", kind=kind, data=path.read_bytes())
    much = value(1 << 42)
    bombs = {
        "bytearray.pkl": b"\x80\x02" + call(named("builtins", "bytearray"), much) + b".",
        "range.pkl": b"\x80\x02"
        + call(named("builtins", "list"), call(named("builtins", "range"), much))
        + b".",
        "laughs.pkl": b"\x80\x02]q\0" + b"".join(
            b"](" + b"h" + bytes([n]) + (b"h" + bytes([n])) * 9 + b"eq" + bytes([n + 1])
            for n in range(12)) + b".",
        "much.gz": gzip.compress(bytes(600 << 20), 9),
        "dims.npy": b"\x93NUMPY\x01\0\x46\0{'descr': '<f8', 'fortran_order': False, "
        b"'shape': (1099511627776,)}  ".ljust(80) + b"\n",
        **_onnx_bombs(),
    }  # fmt: skip
    for name, data in bombs.items():
        yield Sample(name=f"bomb-{name}", kind="memory or time", data=data)


def _onnx_bombs() -> dict[str, bytes]:
    import onnx
    from onnx import TensorProto, helper

    def graph(nodes: list[Any], *constants: Any) -> bytes:
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        made = helper.make_graph(nodes, "g", [], [out], list(constants))
        return bytes(helper.make_model(made, ir_version=8).SerializeToString())

    many = helper.make_tensor("n", TensorProto.INT64, [2], [1 << 30, 1 << 10])
    filled = helper.make_node("ConstantOfShape", ["n"], ["y"])
    trips = helper.make_tensor("n", TensorProto.INT64, [], [1 << 60])
    true = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    first = helper.make_tensor("x", TensorProto.FLOAT, [1], [1.0])
    body = helper.make_graph(
        [helper.make_node("Identity", ["k"], ["k2"]), helper.make_node("Add", ["v", "v"], ["v2"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("k", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("k2", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v2", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["n", "c", "x"], ["y"], body=body)
    assert onnx.__version__
    return {
        "allocation.onnx": graph([filled], many),
        "loop.onnx": graph([loop], trips, true, first),
    }


def samples(folder: Path) -> list[Sample]:
    """Return the whole corpus; the folder is for what must be written to be made."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [*raw(), *_torch(), *_packed(), *_lies(folder)]
