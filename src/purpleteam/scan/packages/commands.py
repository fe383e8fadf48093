"""What container files and GitHub workflows fetch: images, actions, installs in commands."""

import re
from collections.abc import Callable, Iterator

import yaml

from purpleteam.scan.packages.declared import (
    VARIABLE,
    Kind,
    Manifest,
    conda,
    logical_lines,
    words_of,
)

INSTALL = re.compile(
    r"(?:^|[\s/;&|(\"'])(?:pip[\d.]*|pipx|uv\s+pip|uv\s+tool)\s+(?:-\S+\s+)*install\s+([^;&|\n]*)"
)
CONDA = re.compile(r"(?:^|[\s/;&|(])(?:conda|mamba|micromamba)\s+(?:-\S+\s+)*install\s+([^;&|\n]*)")
PIPED = re.compile(
    r"\b(?:curl|wget)\b[^|;&\n]*\|\s*(?:sudo\s+(?:-\S+\s+)*)?(?:\S*/)?(?:ba|z|da)?sh\b"
    r"|\b(?:curl|wget)\b[^|;&\n]*\|\s*(?:sudo\s+)?(?:\S*/)?python"
    r"|\b(?:ba|z|da)?sh\s+(?:-\S+\s+)*[\"']?(?:<\(|\$\()\s*(?:curl|wget)\b"
)
SUBSTITUTED = re.compile(r"\$\{\{.*?\}\}")
FROM = re.compile(r"\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*$", re.I)
COPY = re.compile(r"\s*(?:COPY|RUN)\s.*?(?:--from=|[, ]from=)([^\s,]+)", re.I)
ARG = re.compile(r"\s*(?:ARG|ENV)\s+(\w+)(?:=|\s+)[\"']?([^\s\"']+)", re.I)
ADD = re.compile(r"\s*ADD\s+(?!.*--checksum)(?:--\S+\s+)*(https?://\S+)", re.I)
SETTING = re.compile(r"(?:PIP|UV)_(EXTRA_INDEX_URL|INDEX_URL|INDEX|TRUSTED_HOST|FIND_LINKS)")
SET = re.compile(rf"(?:^|\s)({SETTING.pattern})=[\"']?([^\s\"']+)")
ACTION = re.compile(r"([\w.-]+)/[\w./-]+@(.+)")
DEEPEST = 50
LONGEST = 20_000  # letters of a line: some patterns take time that grows with its square
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def shell(found: Manifest, script: str, line: int) -> None:
    """Take the installs of a script, whose first line has the number `line`."""
    for number, raw in logical_lines(script):
        at = line + number - 1
        text = SUBSTITUTED.sub("$", raw[:LONGEST])
        if len(raw) > LONGEST:
            found.faults.append(("unknown", at, f"only {LONGEST} letters of it were read"))
        if piped := PIPED.search(text):
            found.faults.append(("piped", at, " ".join(piped[0].split())[:120]))
        for match in INSTALL.finditer(text):
            words = words_of(match[1])
            found.install((word for word in words if not re.match(r"\d?[<>]", word)), at)
        for match in CONDA.finditer(text):
            words = [word for word in words_of(match[1]) if not word.startswith("-")]
            for word in words:
                if not VARIABLE.search(word):
                    conda(found, word, at)
        for setting in SET.finditer(text):
            _setting(found, setting[2], setting[3], at)


def _setting(found: Manifest, name: str, value: str, line: int) -> None:
    if VARIABLE.search(value):
        found.faults.append(("unknown", line, f"{name} is a variable"))
    else:
        found.option(f"--{name.lower().replace('_', '-')}", value, line)


def image(found: Manifest, name: str, line: int) -> None:
    """Take a container image by its name, which may have a tag and a digest."""
    if VARIABLE.search(name):
        found.faults.append(("unknown", line, f"the image is a variable: {name[:60]}"))
    elif not DIGEST.search(name) and name != "scratch":
        tag = name.rpartition("/")[2].partition(":")[2]
        kind = "latest" if tag in ("", "latest") else "mutable"
        found.faults.append((kind, line, name[:200]))


def _container(found: Manifest) -> None:
    values: dict[str, str] = {}
    stages: set[str] = set()

    def filled(text: str) -> str:
        def value(match: re.Match[str]) -> str:
            return values.get(match[1], match[2] or match[0])

        return re.sub(r"\$\{?(\w+)(?::-([^}]*))?\}?", value, text)

    for number, line in logical_lines(found.text):
        if match := ARG.match(line):
            values[match[1]] = filled(match[2])
            told = re.sub(r"^\s*\w+", "", line)  # ENV NAME=value, and ENV NAME value
            told = told if "=" in told else re.sub(r"(\S)\s+", r"\1=", told, count=1)
            shell(found, told, number)
        elif match := FROM.match(line):
            if match[1].lower() not in stages:
                image(found, filled(match[1]), number)
            stages.add((match[2] or "").lower())
        elif match := ADD.match(line):
            found.fetch("download", match[1], number)
            del found.packages[-1]  # a file, no distribution
        else:
            if (match := COPY.match(line)) and re.search(r"[:/]", match[1]):
                image(found, filled(match[1]), number)
            shell(found, filled(line) if "install" in line else line, number)


def _nodes(node: yaml.Node) -> Iterator[tuple[tuple[str, ...], yaml.ScalarNode]]:
    """Yield each scalar of a mapping with the keys to it; what an alias names, once."""
    waiting: list[tuple[tuple[str, ...], yaml.Node]] = [((), node)]
    seen = {id(node)}
    while waiting:
        keys, node = waiting.pop()
        inside = [(keys, one) for one in node.value] if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            inside = [((*keys, str(key.value)[:99]), value) for key, value in node.value]
        for path, value in inside:
            if isinstance(node, yaml.MappingNode) and isinstance(value, yaml.ScalarNode):
                yield path, value
            elif id(value) not in seen and len(path) < DEEPEST:
                waiting.append((path, value))
                seen.add(id(value))


def _workflow(found: Manifest) -> None:
    whole = yaml.compose(found.text, Loader=yaml.SafeLoader)
    if not isinstance(whole, yaml.MappingNode):
        raise ValueError("no mapping")
    for keys, node in _nodes(whole):
        line, text, key = node.start_mark.line + 1, str(node.value), keys[-1]
        if key == "uses" and text.startswith("docker://"):
            image(found, text.removeprefix("docker://"), line)
        elif key == "uses" and (action := ACTION.fullmatch(text)):
            if not re.fullmatch(r"[0-9a-f]{40}", action[2]):
                own = action[1] in ("actions", "github")  # the host's own
                found.faults.append(("mutable" if own else "latest", line, text[:200]))
        elif key == "run":
            shell(found, text, line + (node.style in ("|", ">")))
        elif text and (key == "container" or {"container", "services"} & {*keys[-3:-1]}):
            if key in ("image", "container"):
                image(found, text, line)
        elif setting := SETTING.fullmatch(key):
            _setting(found, setting[1], text, line)


READERS: dict[str, tuple[Kind, Callable[[Manifest], None]]] = {
    r"(?:.*\.)?(?:Dockerfile|Containerfile)(?:\..*)?": ("image", _container),
    r"(?:.*/)?\.github/workflows/[^/]+\.ya?ml|action\.ya?ml": ("workflow", _workflow),
    r"\.github/[^/]+/[^/]+/action\.ya?ml|(?:.*/)?\.github/[^/]+/action\.ya?ml":
        ("workflow", _workflow),
}  # fmt: skip
