"""Harmless files of every form that torch, safetensors, ONNX and NumPy write, and once wrote.

`write` makes them anew under a folder and returns each with the kind that it is counted under.
What older versions of torch wrote is put together by hand: no other version is installed.
"""

from __future__ import annotations

import copy
import datetime
import io
import json
import os
import pickle
import uuid
import warnings
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import purpleteam  # noqa: F401 - it turns the telemetry of ONNX Runtime off

DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"),
    *("uint16", "uint32", "uint64", "bool", "complex32", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
)
LEGACY = {"_use_new_zipfile_serialization": False}


def net() -> torch.nn.Module:
    """Return a small net with a buffer of each kind."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(4 * 26 * 26, 10),
    )  # fmt: skip


def tensors() -> dict[str, dict[str, torch.Tensor]]:
    """Return state dicts by what is special about their tensors."""
    base, one = torch.arange(24.0).reshape(4, 6), torch.ones(4)
    found = {kind: {"w": base.to(getattr(torch, kind))} for kind in DTYPES}
    found |= {
        "expanded": {"w": one[:1].expand(3, 4)},
        "transposed": {"w": base.T},
        "sliced": {"w": base[1:3, ::2]},
        "tied": {"encoder.w": base, "decoder.w": base},
        "tied views": {"w": base, "row": base[1], "column": base[:, 1]},
        "channels last": {"w": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)},
        "of no size": {"w": torch.zeros(3, 0, 2), "v": one},
        "scalar": {"w": torch.tensor(3), "v": torch.tensor(0.5)},
        "mask": {"mask": torch.full((3, 3), -torch.inf).triu(1), "w": one},
        "conjugate": {"w": one.to(torch.complex64).conj()},
        "parameter": {"w": torch.nn.Parameter(base)},
        "buffer": {"w": torch.nn.Buffer(base)},
        "sparse": {"w": torch.eye(3).to_sparse()},
        "sparse rows": {"w": torch.eye(4).to_sparse_csr()},
        "sparse columns": {"w": torch.eye(4).to_sparse_csc()},
        "sparse blocks": {"w": torch.eye(4).to_sparse_bsr((2, 2))},
        "quantised": {"w": torch.quantize_per_tensor(one, 0.1, 0, torch.qint8)},
        "quantised unsigned": {"w": torch.quantize_per_tensor(one, 0.1, 0, torch.quint8)},
        "quantised rows": {
            "w": torch.quantize_per_channel(base, torch.ones(4), torch.zeros(4), 0, torch.qint8)
        },
    }
    return found


def contents() -> dict[str, object]:
    """Return what people save, by its name."""
    module = net()
    state, one = module.state_dict(), torch.ones(4)
    adam = torch.optim.Adam(module.parameters(), amsgrad=True)
    sgd = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.rand(2, 1, 28, 28)).sum().backward()
    adam.step()
    sgd.step()
    schedule = torch.optim.lr_scheduler.StepLR(sgd, 3)
    average = torch.optim.swa_utils.AveragedModel(module)
    whole = {"epoch": 3, "loss": torch.tensor(0.5), "optimizer": adam.state_dict()}
    lightning = {
        "epoch": 4, "global_step": 400, "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"net.{name}": value for name, value in state.items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 5}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": one[0]}},
        "optimizer_states": [adam.state_dict()], "lr_schedulers": [schedule.state_dict()],
        "hparams_name": "kwargs", "hyper_parameters": {"lr": 0.1, "layers": [4, 10]},
    }  # fmt: skip
    return {
        "state dict": state,
        "plain dict": dict(state),
        "parameters": OrderedDict(module.named_parameters()),
        "data parallel": {f"module.{name}": value for name, value in state.items()},
        "compiled": {f"_orig_mod.{name}": value for name, value in state.items()},
        "half": copy.deepcopy(module).half().state_dict(),
        "numbers and text beside": {"w": one, "epoch": 3, "name": "net", "best": None, "ok": True},
        "checkpoint": {"state_dict": state, **whole},
        "model": {"model": state, **whole},
        "model_state_dict": {"model_state_dict": state, "optimizer_state_dict": sgd.state_dict()},
        "nested": {"checkpoint": {"model": state}, "epoch": 1},
        "params": {"params": state},
        "params_ema": {"params": state, "params_ema": state},
        "only params_ema": {"params_ema": state},
        "key of one's own": {"netG": state, "step": 2},
        "two nets": {"encoder": state, "decoder": state},
        "lightning": lightning,
        "adam": adam.state_dict(),
        "sgd": sgd.state_dict(),
        "schedule": schedule.state_dict(),
        "average": average.state_dict(),
        "random state": {"model": state, "rng": torch.get_rng_state(), "np": np.arange(624)},
        "options": {"args": Namespace(lr=0.1, name="net"), "model": state},
        "NumPy scalar": {"best": np.float64(0.5), "step": np.int64(3), "model": state},
        "NumPy array": {"mean": np.arange(3.0), "model": state},
        "sizes and types": {"shape": one.shape, "dtype": one.dtype, "device": one.device, "w": one},
        "version": {"torch": torch.torch_version.TorchVersion("2.13.0"), "model": state},
        "times and paths": {
            "day": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "path": Path("runs/1"),
            "id": uuid.UUID(int=1), "model": state,
        },
        "containers": {"seen": {1, 2}, "count": Counter("ab"), "logs": defaultdict(list), "w": one},
        "history": {"model": state, "history": [{"loss": 0.5, "acc": (1, 2)}] * 3, "b": b"bytes"},
        "tensor": one,
        "list": [one, one + 1],
        "storage": one.untyped_storage(),
        "module": module,
        "layer of many": torch.nn.TransformerEncoderLayer(8, 2, 16),
        "nothing": {},
    }  # fmt: skip


def _torch(folder: Path) -> Iterator[tuple[str, Path]]:
    kept = {**tensors(), **contents()}
    for number, (name, content) in enumerate(kept.items()):
        suffix = (".pt", ".pth", ".ckpt", ".bin")[number % 4]
        path = folder / f"{name.replace(' ', '_')}{suffix}"
        torch.save(content, path)
        yield ("torch: numbers and views" if name in tensors() else "torch: contents"), path
    for name in ("state dict", "checkpoint", "float8_e4m3fn", "bfloat16", "sliced", "tied",
                 "of no size", "expanded", "options", "lightning", "module", "tensor", "complex64",
                 "adam", "scalar", "parameter"):  # fmt: skip
        path = folder / f"legacy_{name.replace(' ', '_')}.pth"
        torch.save(kept[name], path, **LEGACY)
        yield "torch: before 1.6", path
    for protocol in (2, 3, 4, 5):
        for name, options in {"new": {}, "legacy": LEGACY}.items():
            path = folder / f"protocol_{protocol}_{name}.pt"
            torch.save(kept["checkpoint"], path, pickle_protocol=protocol, **options)
            yield "torch: protocols", path
    yield from _older(folder, kept["checkpoint"])
    torch.save(kept["state dict"], folder / "model_best.pth.tar")
    yield "torch: names and folders", folder / "model_best.pth.tar"
    torch.save(kept["state dict"], folder / "old.pth.tar", **LEGACY)
    yield "torch: names and folders", folder / "old.pth.tar"
    torch.save(kept["state dict"], folder / "no_suffix")
    yield "torch: names and folders", folder / "no_suffix"


def _older(folder: Path, content: object) -> Iterator[tuple[str, Path]]:
    """Yield archives as torch 1.4 to 2.0 laid them out."""
    target = io.BytesIO()
    torch.save(content, target)
    with zipfile.ZipFile(target) as archive:
        entries = {
            info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()
        }
    old = {name: entries[name] for name in entries if name == "data.pkl" or name[:5] == "data/"}
    keys = [name[5:] for name in old if name != "data.pkl"]
    moved, numbers = old["data.pkl"], {}
    for key in reversed(keys):  # 1.6 named a storage by its address
        address = str(94_276_000_000_000 + 64 * int(key))
        short, text = (b"X%c\0\0\0%s" % (len(one), one.encode()) for one in (key, address))
        moved = moved.replace(short, text)
        numbers[f"data/{address}"] = old[f"data/{key}"]
    layouts = {
        "2.0": {**old, "version": b"3\n"},
        "1.13, byte order": {**old, "byteorder": b"little", "version": b"3\n"},
        "1.6": {"data.pkl": moved, **dict(sorted(numbers.items())), "version": b"3\n"},
        "1.4": {"version": b"2\n", **old},
        "folders": {"": b"", "data/": b"", **old, "version": b"3\n"},
    }
    for name, files in layouts.items():
        for stem in ("archive", "net-v1"):
            path = folder / f"{name.replace(' ', '_')}_{stem}.pt"
            with zipfile.ZipFile(path, "w") as archive:
                for inner, data in files.items():
                    archive.writestr(f"{stem}/{inner}", data)
            yield "torch: layouts of 1.4 to 2.0", path


def _compiled(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield what holds a program beside its weights."""
    module, image = net().eval(), torch.rand(1, 1, 28, 28)
    kind = "torch: TorchScript, export, shards"
    traced = torch.jit.trace(module, image)
    torch.jit.save(traced, folder / "traced.pt")
    torch.jit.save(torch.jit.script(module), folder / "scripted.pt")
    exported = torch.export.export(module, (image,))
    torch.export.save(exported, folder / "exported.pt2")
    yield from ((kind, folder / name) for name in ("traced.pt", "scripted.pt", "exported.pt2"))
    import torch.distributed.checkpoint as shards

    shards.save(module.state_dict(), checkpoint_id=folder / "shards", no_dist=True)
    yield from ((kind, one) for one in sorted((folder / "shards").iterdir()))


def _safetensors(folder: Path) -> Iterator[tuple[str, Path]]:
    from safetensors.torch import save_file

    base = torch.arange(12.0).reshape(3, 4)
    kinds = [kind for kind in DTYPES if kind not in ("complex32", "complex128")]
    files: dict[str, tuple[dict[str, torch.Tensor], dict[str, str] | None]] = {
        kind: ({"w": base.to(getattr(torch, kind))}, {"format": "pt"})
        for kind in kinds
        if not kind.endswith("fnuz")
    }
    state = net().state_dict()
    files |= {
        "net": (state, {"format": "pt"}),
        "of_no_size": ({"w": torch.zeros(0, 3), "v": base}, None),
        "scalar": ({"w": torch.tensor(3)}, None),
        "nothing": ({}, None),
        "notes": (state, {"format": "pt", "args": json.dumps({"lr": 0.1, "layers": [1, 2]})}),
        "odd_notes": (state, {"how": "import torch; torch.load(path)", "__name__": "eval(x)"}),
    }
    for name, (content, metadata) in files.items():
        save_file(content, folder / f"{name}.safetensors", metadata=metadata)
        yield "safetensors", folder / f"{name}.safetensors"
    for number in (1, 2):
        part = folder / f"model-{number:05d}-of-00002.safetensors"
        save_file({f"w{number}": base}, part, metadata={"format": "pt"})
        yield "safetensors", part
    index = {
        "metadata": {"total_size": 96},
        "weight_map": {"w1": "model-00001-of-00002.safetensors"},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    yield "safetensors", folder / "model.safetensors.index.json"


def _numpy(folder: Path) -> Iterator[tuple[str, Path]]:
    base = np.arange(12).reshape(3, 4)
    arrays = {kind: base.astype(kind) for kind in ("f4", "f8", "f2", "i8", "u1", "b1", "c8", ">f4")}
    arrays |= {
        "text": np.array(["ab", "c"]), "bytes": np.array([b"ab"]),
        "fortran": np.asfortranarray(base), "scalar": np.array(3.0), "nothing": np.zeros((0, 3)),
        "days": np.array(["2026-01-02"], "M8[D]"),
        "records": np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(folder / f"{name.replace('>', 'big_')}.npy", array)
        yield "NumPy", folder / f"{name.replace('>', 'big_')}.npy"
    few = {"x": base, "y": arrays["f4"], "names": arrays["text"]}
    np.savez(folder / "a.npz", **few)
    np.savez_compressed(folder / "b.npz", **few)
    yield from (("NumPy", folder / name) for name in ("a.npz", "b.npz"))


def _pickles(folder: Path) -> Iterator[tuple[str, Path]]:
    content = {"x": np.arange(12.0).reshape(3, 4), "n": [1, "a", None], "p": (np.float32(2), 1j)}
    for protocol in range(6):
        path = folder / f"plain_{protocol}.pkl"
        path.write_bytes(pickle.dumps(content, protocol))
        yield "pickle of plain data", path
    path = folder / "split.pkl"
    path.write_bytes(pickle.dumps({"train": [0, 2], "test": {1}, "seed": 7}))
    yield "pickle of plain data", path


def _onnx(folder: Path) -> Iterator[tuple[str, Path]]:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    module, image = net().eval(), torch.rand(1, 1, 28, 28)
    for opset in (18, 20):
        path = folder / f"export_{opset}.onnx"
        torch.onnx.export(module, (image,), path, opset_version=opset, dynamo=True, verbose=False,
                          external_data=opset == 20)  # fmt: skip
        yield "ONNX", path
    for opset in (9, 11, 13, 17):
        path = folder / f"traced_{opset}.onnx"
        torch.onnx.export(module, (image,), path, opset_version=opset, dynamo=False)
        yield "ONNX", path
    whole = onnx.load(folder / "traced_17.onnx")
    onnx.save(whole, folder / "beside.onnx", save_as_external_data=True, location="beside.bin",
              size_threshold=0)  # fmt: skip
    onnx.save(whole, folder / "each_beside.onnx", save_as_external_data=True,
              all_tensors_to_one_file=False, size_threshold=0)  # fmt: skip
    whole.metadata_props.add(key="classes", value=json.dumps(list(range(10))))
    whole.doc_string = "import this; exec(x)"
    onnx.save(whole, folder / "notes.onnx")
    yield from (("ONNX", folder / f"{one}.onnx") for one in ("beside", "each_beside", "notes"))

    def value(name: str, kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, [1, 4])

    def model(nodes: list[Any], weights: list[Any], **options: Any) -> Any:
        kind = options.pop("kind", TensorProto.FLOAT)
        graph = helper.make_graph(nodes, "g", [value("x", kind)], [value("y", kind)], weights)
        domains = {"": 21, **options.pop("domains", {})}
        opsets = [helper.make_opsetid(*one) for one in domains.items()]
        return helper.make_model(graph, ir_version=10, opset_imports=opsets, **options)

    def weight(name: str, values: object, kind: int) -> Any:
        array = np.asarray(values)
        return helper.make_tensor(name, kind, array.shape, array.ravel().tolist())

    node, add = helper.make_node, helper.make_node("Add", ["x", "w"], ["y"])
    ones = np.ones((1, 4), np.float32)
    made = {}
    for kind in ("FLOAT16", "BFLOAT16", "DOUBLE", "INT32", "INT64"):
        number = getattr(TensorProto, kind)
        made[kind] = model([add], [weight("w", ones.astype(int), number)], kind=number)
    made["raw"] = model([add], [numpy_helper.from_array(ones, "w")])
    scales = [weight("s", 0.1, TensorProto.FLOAT), weight("z", 0, TensorProto.INT8)]
    quantised = weight("q", np.ones((1, 4), int), TensorProto.INT8)
    made["QDQ"] = model(
        [node("QuantizeLinear", ["x", "s", "z"], ["a"]),
         node("DequantizeLinear", ["a", "s", "z"], ["b"]),
         node("DequantizeLinear", ["q", "s", "z"], ["w"]), node("Add", ["b", "w"], ["y"])],
        [*scales, quantised])  # fmt: skip
    for kind in ("FLOAT8E4M3FN", "INT4", "UINT4"):
        number = getattr(TensorProto, kind)
        zero = helper.make_tensor("z", number, [], [0])
        four = helper.make_tensor("q", number, [1, 4], [1] * 4)
        made[kind] = model(
            [node("DequantizeLinear", ["q", "s", "z"], ["w"]), add], [scales[0], zero, four]
        )
    then = helper.make_graph([node("Identity", ["x"], ["t"])], "t", [], [value("t")])
    other = helper.make_graph([node("Neg", ["x"], ["e"])], "e", [], [value("e")])
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    made["If"] = model([node("If", ["c"], ["y"], then_branch=then, else_branch=other)], [condition])
    body = helper.make_graph(
        [node("Identity", ["k"], ["k2"]), node("Add", ["v", "v"], ["v2"])], "b",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("k", TensorProto.BOOL, []), value("v")],
        [helper.make_tensor_value_info("k2", TensorProto.BOOL, []), value("v2")])  # fmt: skip
    trips = helper.make_tensor("n", TensorProto.INT64, [], [3])
    made["Loop"] = model([node("Loop", ["n", "c", "x"], ["y"], body=body)], [trips, condition])
    shape = helper.make_tensor("n", TensorProto.INT64, [2], [1, 4])
    made["ConstantOfShape"] = model(
        [node("ConstantOfShape", ["n"], ["w"], value=helper.make_tensor("v", 1, [1], [2.0])), add],
        [shape],
    )
    made["ml domain"] = model(
        [node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[1.0])], [],
        domains={"ai.onnx.ml": 3},
    )  # fmt: skip
    double = helper.make_function(
        "local", "Double", ["x"], ["y"], [node("Add", ["x", "x"], ["y"])],
        [helper.make_opsetid("", 21)])  # fmt: skip
    made["local function"] = model(
        [node("Double", ["x"], ["y"], domain="local")], [], domains={"local": 1},
        functions=[double],
    )  # fmt: skip
    for name, one in made.items():
        onnx.checker.check_model(one)
        onnx.save(one, folder / f"made_{name.replace(' ', '_')}.onnx")
        yield "ONNX", folder / f"made_{name.replace(' ', '_')}.onnx"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(folder / "traced_17.onnx", options)
    yield "ONNX", folder / "optimised.onnx"


def write(folder: Path) -> list[tuple[str, Path]]:
    """Write every file; return each with its kind."""
    found = []
    for make in (_torch, _compiled, _safetensors, _numpy, _pickles, _onnx):
        inner = folder / make.__name__.strip("_")
        inner.mkdir(parents=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found += list(make(inner))
    return found
