"""What a graph makes of few bytes is computed from its constants, and told with node and size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from purpleteam.scan.judgement import judge

onnx = pytest.importorskip("onnx")
FLOAT = onnx.TensorProto.FLOAT
node = onnx.helper.make_node
HUGE = 1 << 20


def constant(name: str, value: object, dtype: object = np.int64) -> object:
    return onnx.numpy_helper.from_array(np.array(value, dtype), name)


def graph(nodes, constants=(), inputs=(("x", [1, 3]),), outputs=("y",)):
    values = [onnx.helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs]
    made = [onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    return onnx.helper.make_graph(nodes, "g", values, made, list(constants))


def problems(path: Path, main, functions=()) -> list[str]:
    versions = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("f", 1)]
    model = onnx.helper.make_model(main, opset_imports=versions, functions=list(functions))
    path.write_bytes(model.SerializeToString())
    return [str(row) for row in judge(path).problems]


def body(*nodes, constants=(), outputs=("c2", "v2")):
    values = [(name, None) for name in ("i", "c", "v")]
    keep = node("Identity", ["c"], ["c2"])
    return graph([keep, *nodes], constants, values, outputs)


SAME = node("Identity", ["v"], ["v2"])
TWICE = node("Concat", ["v", "v"], ["v2"], axis=0)
ONE_MORE = node("Concat", ["v", "one"], ["v2"], axis=0)
LARGE = node("ConstantOfShape", ["s"], ["z"])
TRUE = constant("t", True, np.bool_)
UNTIL = node("Less", ["i", "n"], ["c2"])


def loop(inner, inputs=("n", "t", "x"), outputs=("y",)):
    return node("Loop", list(inputs), list(outputs), body=inner)


def steps(count: int, **more: object) -> list[object]:
    return [constant("n", count), TRUE, *(constant(name, value) for name, value in more.items())]


DOUBLING = [node("Concat", [f"v{i}", f"v{i}"], [f"v{i + 1}"], axis=0) for i in range(40)]
COLUMN, ROW = (constant(name, np.zeros(shape), np.int8) for name, shape in
               (("a", (1 << 16, 1)), ("b", (1, 1 << 16))))  # fmt: skip
BOMBS = {
    "ConstantOfShape": graph([node("ConstantOfShape", ["s"], ["y"])], [constant("s", [HUGE] * 2)]),
    "Constant": graph([node("Constant", [], ["s"], value_ints=[HUGE] * 2),
                       node("ConstantOfShape", ["s"], ["y"])]),
    "computed": graph([node("Mul", ["a", "a"], ["b"]), node("Concat", ["b", "b"], ["s"], axis=0),
                       node("Expand", ["x", "s"], ["y"])], [constant("a", [1 << 12])]),
    "Tile": graph([node("Tile", ["x", "s"], ["y"])], [constant("s", [HUGE] * 2)]),
    "Range": graph([node("Range", ["a", "b", "c"], ["y"])],
                   [constant("a", 0), constant("b", 1 << 40), constant("c", 1)]),
    "Resize": graph([node("Resize", ["x", "", "s"], ["y"])], [constant("s", [1e6] * 2, "f4")]),
    "Pad": graph([node("Pad", ["x", "s"], ["y"])], [constant("s", [0, 1 << 40, 0, 0])]),
    "OneHot": graph([node("OneHot", ["x", "s", "x"], ["y"])], [constant("s", 1 << 40)]),
    "Add": graph([node("Add", ["a", "b"], ["y"])], [COLUMN, ROW]),
    "MatMul": graph([node("MatMul", ["a", "b"], ["y"])], [COLUMN, ROW]),
    "RandomNormal": graph([node("RandomNormal", [], ["y"], shape=[HUGE] * 2)]),
    "Concat": graph(DOUBLING, (), [("v0", [1])], ["v40"]),
    "Loop": graph([loop(body(SAME))], steps(1 << 40)),
    "repeats": graph([loop(body(loop(body(SAME), ["n", "", "v"], ["v2"])))], steps(HUGE)),
    "never ends": graph([loop(body(SAME), ["", "t", "x"])], [TRUE]),
    f"{(1 << 63) - 1} times": graph([loop(body(SAME))], steps((1 << 63) - 1)),
    "v2": graph([loop(body(TWICE))], steps(100)),
    "makes 2147483649": graph([loop(body(ONE_MORE))], steps(1 << 25, one=[1] * 64)),
    "makes": graph([loop(body(SAME, LARGE, outputs=("c2", "v2", "z")), outputs=("y", "z"))],
                   steps(HUGE, s=[HUGE])),
    "If": graph([node("If", ["t"], ["y"],
                      then_branch=body(loop(body(SAME), ["n", "", "c"], ["v2"])),
                      else_branch=body(SAME))], steps(1 << 40)),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_told_by_its_node(tmp_path, bomb):
    (told, *_) = problems(tmp_path / "a.onnx", BOMBS[bomb])
    assert told.startswith("node '") and (bomb in told or bomb in ("Constant", "computed", "If"))


def function(name: str, *nodes: object) -> object:
    versions = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("f", 1)]
    return onnx.helper.make_function("f", name, ["a"], ["b"], list(nodes), versions)


def test_functions_that_call_others_twice_are_a_bomb_and_what_they_make_counts(tmp_path):
    functions = [function("f0", node("Relu", ["a"], ["b"]))]
    for i in range(1, 30):
        twice = [node(f"f{i - 1}", [here], [to], domain="f") for here, to in ("at", "tb")]
        functions.append(function(f"f{i}", *twice))
    main = graph([node("f29", ["x"], ["y"], domain="f")])
    (told,) = problems(tmp_path / "a.onnx", main, functions)
    assert "more functions" in told
    growing = function(
        "g", node("Tile", ["a", "n"], ["b"]), node("Constant", [], ["n"], value_int=2)
    )
    call = node("g", ["x"], ["y"], domain="f")
    assert problems(tmp_path / "a.onnx", graph([call]), [growing]) == []
    (told,) = problems(
        tmp_path / "a.onnx", graph([call]), [function("g", node("g", ["a"], ["b"], domain="f"))]
    )
    assert "more functions" in told


def test_loops_masks_and_built_in_operators_are_no_bombs(tmp_path):
    fine = {
        "while": graph([loop(body(UNTIL, SAME))], steps((1 << 63) - 1)),
        "for": graph([loop(body(SAME))], steps(1000)),
        "list": graph([loop(body(ONE_MORE))], steps(100_000, one=[1])),
        "mask": graph([node("ConstantOfShape", ["s"], ["y"])], [constant("s", [4096] * 2)]),
        "built in": graph([node("FusedConv", ["x"], ["y"], domain="com.microsoft")]),
    }
    for main in fine.values():
        problems(tmp_path / "a.onnx", main)
        assert judge(tmp_path / "a.onnx").grade in ("note", "unsupported")
