"""What clients bring along: names of files, templates, pictures."""

import ast
import re
from collections.abc import Container, Iterator

from purpleteam.scan.rules import Hit, Module, argument, nodes_of, rule
from purpleteam.scan.rules.served import (
    FRAMEWORKS,
    Function,
    Test,
    flow,
    functions,
    looks_at_size,
    routes,
)

ASKED = frozenset({
    *("args", "form", "values", "json", "get_json", "GET", "POST", "query_params", "path_params"),
    *("cookies", "headers", "query", "data", "match_info", "view_args", "query_string"),
})  # fmt: skip
CLEANED = frozenset({
    *("secure_filename", "safe_join", "basename", "int", "float", "uuid4", "len", "bool"),
    *("hexdigest", "sha256", "md5", "send_from_directory", "escape", "get_valid_filename"),
    *("url_for", "reverse"),
})  # fmt: skip
WHOLE = ("abspath", "normpath", "realpath", "resolve")
PARTS = frozenset({"name", "suffix", "stem", "size", "content_type"})
CHECKED = frozenset({
    *("is_relative_to", "commonpath", "commonprefix", "fullmatch"),
    *("isalnum", "isidentifier", "isdigit", "isdecimal"),
})  # fmt: skip
OPENERS = frozenset({
    *("open", "io.open", "aiofiles.open", "os.remove", "os.unlink", "shutil.rmtree", "numpy.load"),
    *("shutil.copy", "shutil.copyfile", "shutil.move", "os.rename", "os.makedirs", "torch.load"),
    *("flask.send_file", "fastapi.responses.FileResponse", "starlette.responses.FileResponse"),
    *("django.http.FileResponse", "aiohttp.web.FileResponse", "quart.send_file", "os.listdir"),
    *("flask.send_from_directory", "quart.send_from_directory"),
})  # fmt: skip
TAKERS = ("save", "send_file", "FileResponse", "static_file")
WRITERS = ("open", "read_text", "read_bytes", "write_text", "write_bytes", "unlink")
DECODERS = frozenset({
    *("PIL.Image.open", "Image.open", "cv2.imdecode", "imageio.imread", "imageio.v3.imread"),
    *("imageio.v2.imread", "skimage.io.imread", "matplotlib.image.imread", "cv2.imread"),
})  # fmt: skip
TEMPLATES = ("jinja2.Template", "mako.template.Template", "django.template.Template")
TAKEN_APART = ("urlparse", "urlsplit", "has_allowed_host_and_scheme")
FETCHES = re.compile(
    r"^(?:self\.)?(?:requests|httpx|urllib|aiohttp|session|client|http)\b.*"
    r"\.(?:get|post|put|head|request|stream|urlopen|urlretrieve)$"
    r"|(?:^|\.)(?:redirect|RedirectResponse|HttpResponseRedirect|HTTPFound)$"
)
FREE = re.compile(r"(?!.*(?:pattern|regex)=)(?:(?:typing\.)?(?:Annotated|Optional)\[)?str\b")
"""Annotations of a text that may be any."""


@rule("PT017", "high", 22, "use werkzeug's secure_filename, or a name of your own", "medium")
def path_of_a_client(module: Module) -> Iterator[Hit]:
    """A file that is opened under a name, or below a path, that a client chose."""
    for function in functions(module):
        called = {name.split(".")[-1] for _, name in module.calls_in(nodes_of(function))}
        made_whole = "startswith" in called and not called.isdisjoint(WHOLE)
        if made_whole or not called.isdisjoint(CHECKED):
            continue
        listed = {  # looked up among what may be asked for
            getattr(test.left, "id", None)
            for test in nodes_of(function)
            if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.In | ast.NotIn)
        }

        def harmless(node: ast.AST, listed: Container[str | None] = listed) -> bool:
            return _cleaned(node) or (isinstance(node, ast.Name) and node.id in listed)

        from_client = flow(function, _asked_by(module, function), harmless)
        for call, name in module.calls_in(nodes_of(function)):
            method = name.split(".")[-1]
            path = argument(call, "directory" if "directory" in name else "path", 0)
            if name not in OPENERS and method not in TAKERS:
                path = call.func.value if isinstance(call.func, ast.Attribute) else None
                path = path if method in WRITERS else None
            if path is not None and from_client(path):
                yield Hit(call, f"{name or 'a call'} takes a path that the client chose")


@rule("PT026", "medium", 610, "look the host up among those you know; begin with your own address",
      "medium")  # fmt: skip
def address_of_a_client(module: Module) -> Iterator[Hit]:
    """An address that a client chose is fetched, or sent back: a way into the own network."""
    for function in functions(module):
        calls = list(module.calls_in(nodes_of(function)))
        if any(name.endswith(TAKEN_APART) for _, name in calls):
            continue
        from_client = flow(function, _asked_by(module, function), _cleaned, begin=True)
        for call, name in calls:
            url = argument(call, "url", int(name.endswith((".request", ".stream"))))
            if url is not None and FETCHES.search(name) and from_client(url):
                yield Hit(call, f"{name} takes an address that the client chose")


@rule("PT018", "high", 1336, "keep templates in files, and hand what clients say in as values")
def template_of_a_client(module: Module) -> Iterator[Hit]:
    """A template that is put together while the app runs: what clients say becomes code."""
    for function in functions(module):
        from_client = flow(function, _asked_by(module, function), _cleaned)
        for call, name in module.calls_in(nodes_of(function)):
            last, given = name.split(".")[-1], argument(call, "source", 0)
            built = last == "render_template_string" and not isinstance(given, ast.Constant)
            text = last == "from_string" or name in TEMPLATES
            if given is not None and (built or (text and from_client(given))):
                yield Hit(call, f"{name} makes a template of what is not fixed")


@rule("PT019", "medium", 400, "set PIL.Image.MAX_IMAGE_PIXELS low, and look at size before pixels")
def picture_of_any_size(module: Module) -> Iterator[Hit]:
    """A picture from outside that is decoded however many pixels it claims."""
    for node in module.of(ast.Assign):
        off = getattr(node.value, "value", 0) is None
        if off and module.dotted(node.targets[0]).endswith("MAX_IMAGE_PIXELS"):
            yield Hit(node, "MAX_IMAGE_PIXELS is switched off: a picture may fill memory")
    limited = "MAX_IMAGE_PIXELS" in module.text
    if limited or not module.imports(*FRAMEWORKS):
        return
    for call, name in module.calls:
        fixed = bool(call.args) and isinstance(call.args[0], ast.Constant)
        measured = (call in nodes_of(row) for row in functions(module) if looks_at_size(row))
        if name in DECODERS and not fixed and not any(measured):
            yield Hit(call, f"{name} decodes a picture of any size")


def _asked_by(module: Module, function: Function) -> Test:
    """Return whether a node is what a client says: a part of a request, or a file's name."""
    texts = "".join(ast.unparse(row) for row in routes(function))
    names = {
        row.arg
        for row in (*function.args.args, *function.args.kwonlyargs)
        if texts
        and row.arg not in ("self", "request")
        and (row.annotation is None or FREE.match(ast.unparse(row.annotation)))
        and (
            f"path:{row.arg}" in texts
            or f"{row.arg}:path" in texts
            or (module.imports("fastapi") and f"{{{row.arg}" not in texts)
        )
    }

    def source(node: ast.AST) -> bool:
        match node:
            case ast.Attribute(attr="filename"):
                return True
            case ast.Attribute(value=value, attr=part) if part in ASKED:
                return module.dotted(value).split(".")[-1] == "request"
            case ast.Name(id=name):
                return name in names
        return False

    return source


def _cleaned(node: ast.AST) -> bool:
    """Return whether an expression makes a harmless value of whatever it gets."""
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in CLEANED
        case ast.Attribute(attr=part):
            return part in PARTS
        case ast.Subscript(
            value=ast.Call(func=ast.Attribute(attr="splitext" | "rsplit" | "split")),
            slice=ast.Constant(value=1) | ast.UnaryOp(operand=ast.Constant(value=1)),
        ):
            return True
    return False
