"""What it means that a pickle names something: plain parts of the field, or code of somebody.

The list is of what is harmless; whatever is not on it counts as what would run.
"""

import re

HARMLESS = re.compile(
    r"""(?x)
    torch\.( b?float\d+ | u?int\d+ | bool | complex\d+
        | (float(4|6|8)|bits|quint|qint|per_tensor|per_channel|sparse)_?\w*
        | strided | device | dtype | layout | Size | Tensor | \w+Storage
        | (contiguous|preserve)_format | channels_last(_3d)? )
    | torch\._utils\._rebuild_\w+ | torch\._tensor\._rebuild_from_type_v2
    | torch\.serialization\._get_layout | torch\.storage\.(Typed|Untyped)Storage
    | torch\.nn\.parameter\.(Uninitialized)?(Parameter|Buffer) | torch\.torch_version\.TorchVersion
    | torch\.(ao\.)?nn\.([a-z]\w*\.)*modules\.([a-z]\w*\.)*[A-Z]\w*
    | torch\.distributed\.checkpoint\.metadata\._?[A-Z]\w*
    | torch\.distributed\.checkpoint\.filesystem\._StorageInfo
    | torch\.optim\.([a-z]\w*\.)?[A-Z]\w*
    | torch\.return_types\.(?!_|torch$|inspect|pytree|reg|ret|all_)\w+
    | torch\.nn\.functional\.(relu6?|gelu|silu|mish|elu|selu|leaky_relu|softmax)
    | torch\.(_C\._nn\.gelu | tanh | relu | sigmoid)
    | torch\.jit\._pickle\.(build_\w+|restore_type_tag) | __torch__\.[\w.]+
    | argparse\.Namespace | types\.SimpleNamespace
    | collections\.(OrderedDict|defaultdict|Counter|deque)
    | (builtins|__builtin__)\.(set|frozenset|list|dict|tuple|int|long|float|bool|str|unicode
        |bytes|bytearray|complex|slice|x?range|object|Ellipsis|NotImplemented) | typing\.Any
    | (copyreg|copy_reg)\._reconstructor | _codecs\.encode
    | pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path
    | datetime\.(datetime|date|time|timedelta|timezone)
    | decimal\.Decimal | fractions\.Fraction | uuid\.UUID
    | numpy\.(_?core\.)?( multiarray\.(_reconstruct|scalar) | numeric\._frombuffer )
    | numpy\.(ndarray|dtype|bool_?|u?int\d+|float\d+|complex\d+|str_|bytes_|longlong)
    | numpy\.ma(\.core)?\.(MaskedArray|_mareconstruct) | numpy\.(_core\.)?records\.recarray
    | numpy\.(matrix|matrixlib\.defmatrix\.matrix)
    | numpy\.random\.(_pickle\.__(randomstate|(bit_)?generator)_ctor | bit_generator\.SeedSequence
        | bit_generator\.__pyx_unpickle_SeedSequence | _(pcg64|mt19937|philox|sfc64)\.[A-Z]\w*)
    | numpy\.dtypes\.\w+DType
    | joblib\.numpy_pickle\.NumpyArrayWrapper
    """
)
CONTAINERS = re.compile(r"collections\.\w+|(builtins|__builtin__)\.(set|list|dict)")
FOREIGN = re.compile(
    r"__main__\.[A-Za-z]\w*|scipy\.sparse(\.\w+)*\.\w+_(matrix|array)|(sklearn|pandas|timm|torchvision"
    r"|transformers|(pytorch_)?lightning|omegaconf|ultralytics|xgboost|lightgbm|catboost)(\.\w+)*"
    r"\.([A-Z]\w*|__pyx_unpickle_\w+|newObj)"
)
"""Classes of whoever made the file, or of a library that trains models."""
RAW = "joblib.numpy_pickle.NumpyArrayWrapper"  # its numbers lie between the opcodes


def is_harmless(name: str | None) -> bool:
    """Return whether to import and to call it does nothing but make plain data."""
    return name is not None and HARMLESS.fullmatch(name) is not None
