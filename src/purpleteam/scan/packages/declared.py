"""Read what a file declares to install: names, versions (PEP 440), hashes, where from.

Manifests are pip's requirements and constraints, pyproject.toml (PEP 518, 621, 735, Poetry, uv),
Pipfile, conda's environment.yml, container files, GitHub workflows; locks are poetry.lock,
uv.lock, pdm.lock, pylock.toml (PEP 751) and Pipfile.lock. What cannot be read is said, by line.
"""

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePath
from typing import Any, Literal

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from purpleteam.scan.text import split_lines

Kind = Literal["requirements", "project", "lock", "environment", "image", "workflow"]
ADDRESS = re.compile(r"^(?:(?P<vcs>git|hg|svn|bzr)\+)?(?P<scheme>[a-z]+)://", re.I)
LOOPBACK = re.compile(r"://(?:[^/@]*@)?(?:localhost|127\.|\[::1\])")
COMMIT = re.compile(r"@[0-9a-f]{40}(?:[0-9a-f]{24})?(?=$|[#?])", re.I)
PRINT = re.compile(r"[#&](?:sha(?:256|384|512))=[0-9a-f]{64,}", re.I)
COMMENT = re.compile(r"(^|\s)#.*$")
PATH = re.compile(r"[.~/\\]|file:|[A-Za-z]:\\|[^@]*\.(?:whl|zip|gz)$")
VARIABLE = re.compile(r"\$|\{\{")
PLAIN = ("git", "http")  # schemes that neither encrypt nor prove who answers
WITH_VALUE = re.compile(
    r"-[rciftepdb]|--(?:requirements?|constraint|editable|index-url|default-index|index|target|"
    r"extra-index-url|find-links|trusted-host|prefix|root|src|platform|python|python-version|"
    r"implementation|abi|cache-dir|report|progress-bar|timeout|retries|proxy|cert|group|"
    r"config-settings?|global-option|no-binary|only-binary|upgrade-strategy|index-strategy|"
    r"channel|name|torch-backend)"
)


@dataclass(frozen=True)
class Package:
    """One distribution that a file declares."""

    name: str
    """As in PEP 503: lower case, with hyphens."""
    versions: SpecifierSet
    """Empty: any version."""
    line: int
    hashed: bool = False
    marker: str = ""
    """Where it is installed at all (PEP 508)."""
    url: str = ""

    @property
    def pinned(self) -> str | None:
        """The one version that is meant, or None."""
        exact = [one.version for one in self.versions if one.operator in ("==", "===")]
        return next((version for version in exact if not version.endswith(".*")), None)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that one file declares, and what is wrong with where it is fetched from."""

    kind: Kind
    text: str
    packages: list[Package] = field(default_factory=list)
    faults: list[tuple[str, int, str]] = field(default_factory=list)
    """Kind of fault, line, and what it is about; `unknown`: a variable names it."""
    includes: list[tuple[int, str]] = field(default_factory=list)
    """Line, and the file of requirements that it names."""

    def at(self, *texts: str) -> int:
        """Return the first line that holds one of the texts, the first that is there, or 1."""
        for text in texts:
            if (place := self.text.find(text)) >= 0:
                return self.text.count("\n", 0, place + len(text)) + 1
        return 1

    def add(self, text: str, line: int, hashed: bool = False) -> None:
        """Add a requirement as pip takes it: PEP 508, an address, or a path."""
        text = text.strip()
        if ADDRESS.match(text):
            egg = re.search(r"[#&]egg=([\w.-]+)", text)
            self.fetch(egg[1] if egg else PurePath(text).name, text, line, hashed)
        elif PATH.match(text):
            return  # what lies there is scanned as it is
        elif VARIABLE.search(text):
            self.faults.append(("unknown", line, f"named by a variable: {text[:60]}"))
        else:
            try:
                wanted = Requirement(text)
            except InvalidRequirement:
                self.faults.append(("unread", line, f"no requirement: {text[:60]!r}"))
                return
            marker = str(wanted.marker or "")
            if wanted.url:
                self.fetch(wanted.name, wanted.url, line, hashed, marker)
            else:
                self.put(wanted.name, str(wanted.specifier), line, hashed, marker)

    def put(
        self,
        name: str,
        versions: str,
        line: int,
        hashed: bool = False,
        marker: str = "",
        url: str = "",
    ) -> None:
        """Add a package by name and versions; conda's and Poetry's forms are taken too."""
        try:
            own, wanted = canonicalize_name(name, validate=True), SpecifierSet(_versions(versions))
            package = Package(own, wanted, line, hashed, marker, url)
            Version(package.pinned or "0")
        except (InvalidSpecifier, InvalidVersion, InvalidName):
            told = f"no name or version: {name[:40]} {versions[:40]}"
            self.faults.append(("unread", line, told))
        else:
            self.packages.append(package)

    def fetch(self, name: str, url: str, line: int, hashed: bool = False, marker: str = "") -> None:
        """Add what is fetched from an address, and what is wrong with that."""
        address = ADDRESS.match(url)
        fixed = COMMIT.search(url) if address and address["vcs"] else PRINT.search(url)
        if not (fixed or hashed):
            self.faults.append(("address", line, url[:200]))
        self.source(url, line)
        own = re.sub(r"[^\w.-].*|^[\W_]+|[\W_]+$", "", name) or "unnamed"
        self.put(own, "", line, bool(fixed or hashed), marker, url)

    def source(self, url: str, line: int) -> None:
        """Note an address that is neither encrypted nor on this machine."""
        address = ADDRESS.match(url)
        if address and address["scheme"].lower() in PLAIN and not LOOPBACK.search(url):
            self.faults.append(("plain", line, url[:200]))

    def option(self, name: str, value: str, line: int) -> None:
        """Take one option of an installer."""
        if name in ("-r", "--requirement", "--requirements", "-c", "--constraint"):
            self.source(value, line)
            self.includes.append((line, value))
        elif name in ("-e", "--editable"):
            self.add(value, line)
        elif name in ("-i", "--index-url", "--default-index", "-f", "--find-links"):
            self.source(value, line)
        elif name in ("--extra-index-url", "--index"):
            self.source(value, line)
            self.faults.append(("second-index", line, value[:200]))
        elif name == "--trusted-host":
            self.faults.append(("plain", line, f"{name} {value}"))

    def install(self, words: Iterable[str], line: int) -> None:
        """Take the words after `pip install`."""
        left = iter(words)
        for word in left:
            if not word.startswith("-"):
                self.add(word, line)
                continue
            name, equals, value = word.partition("=")
            if not equals and not name.startswith("--") and len(name) > 2:
                name, value = name[:2], name[2:]  # -rfile
            elif not equals and WITH_VALUE.fullmatch(name):
                value = next(left, "")
            self.option(name, value, line)


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines with what continues them (a backslash at the end), by their first number.

    Comments, also between such lines, are left out.
    """
    whole, first = "", 0
    for number, raw in enumerate(split_lines(text), 1):
        line = COMMENT.sub("", raw)
        if whole and raw and not line.strip():
            continue
        first = first or number
        if line.rstrip().endswith("\\"):
            whole += line.rstrip()[:-1] + " "
            continue
        yield first, whole + line
        whole, first = "", 0
    if whole:
        yield first, whole


def words_of(text: str) -> list[str]:
    """Return the words of a command line; where its quotes do not close, what spaces part."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _requirements(found: Manifest) -> None:
    for number, line in logical_lines(found.text):
        if line.lstrip().startswith("-"):
            found.install(words_of(line), number)
        elif line.strip():
            wanted, *options = re.split(r"\s+(?=--?[a-z])", line)
            found.add(wanted, number, any(one.startswith("--hash") for one in options))


def _project(found: Manifest) -> None:
    data = tomllib.loads(found.text)
    project, tool = data.get("project", {}), data.get("tool", {})
    groups = chain(
        [project.get("dependencies", []), data.get("build-system", {}).get("requires", [])],
        project.get("optional-dependencies", {}).values(),
        data.get("dependency-groups", {}).values(),
        tool.get("pdm", {}).get("dev-dependencies", {}).values(),
        [tool.get("uv", {}).get("dev-dependencies", [])],
    )
    own = canonicalize_name(str(project.get("name", "")))
    for text in chain.from_iterable(groups):
        if isinstance(text, str) and canonicalize_name(re.split(r"[^\w.-]", text)[0]) != own:
            found.add(text, found.at(f'"{text}"', f"'{text}'", text))
    poetry = tool.get("poetry", {})
    tables = [poetry.get("dependencies", {}), poetry.get("dev-dependencies", {})]
    tables += [group.get("dependencies", {}) for group in poetry.get("group", {}).values()]
    for name, wanted in chain.from_iterable(table.items() for table in tables):
        for one in wanted if isinstance(wanted, list) else [wanted]:
            _table(found, name, one)
    for name, wanted in tool.get("uv", {}).get("sources", {}).items():
        for one in wanted if isinstance(wanted, list) else [wanted]:
            _table(found, name, {key: one[key] for key in one if key in _WHERE})
    sources = [*tool.get("uv", {}).get("index", ()), *poetry.get("source", ())]
    for source in sources + list(tool.get("pdm", {}).get("source", ())):
        found.source(str(source.get("url", "")), found.at(str(source.get("url", ""))))


_WHERE = ("git", "url", "rev", "ref", "tag", "branch", "path", "file", "version", "markers")


def _table(found: Manifest, name: str, wanted: Any) -> None:
    """Take an entry of Poetry, uv or Pipenv: a version, or a table of where it comes from."""
    line = found.at(f"\n{name} =", f"\n{name}=", f'"{name}"', name)
    table = wanted if isinstance(wanted, Mapping) else {"version": str(wanted)}
    hashed = bool(table.get("hashes"))
    if "git" in table:
        rev = table.get("rev") or table.get("ref") or table.get("tag") or table.get("branch") or ""
        found.fetch(name, f"git+{table['git']}@{rev}", line)
    elif isinstance(url := table.get("url") or table.get("file"), str) and ADDRESS.match(url):
        found.fetch(name, url, line, hashed)
    elif "version" in table and name.lower() != "python":
        found.put(name, str(table["version"]), line, hashed, str(table.get("markers", "")))


def _lock(found: Manifest) -> None:
    data = tomllib.loads(found.text)
    legacy = data.get("metadata", {}).get("files", {})  # of Poetry before 1.5
    at, line = 0, 1
    for one in data.get("packages", data.get("package", [])):
        name, version, source = str(one["name"]), one.get("version"), one.get("source", {})
        start = found.text.find(f'name = "{name}"', at)
        if start >= 0:  # they stand in the order of the file: each is searched for once
            at, line = start, line + found.text.count("\n", at, start)
        files = [*one.get("files", ()), *one.get("wheels", ()), *legacy.get(name, ())]
        files += [one[part] for part in ("sdist", "archive") if part in one]
        hashed = bool(files) and all("hash" in file or file.get("hashes") for file in files)
        vcs = one.get("vcs", {})
        commit = source.get("resolved_reference") or vcs.get("commit-id")
        url = str(source.get("git") or vcs.get("url") or source.get("url") or "")
        url = url or str(source.get("registry", "")) or str(one.get("index", ""))
        if source.keys() & {"editable", "virtual", "directory"} or "directory" in one:
            continue
        if vcs or source.get("type") == "git" or "git" in source:
            found.fetch(name, f"git+{url}" + (f"@{commit}" if commit else ""), line)
        elif version is None:
            found.faults.append(("unknown", line, f"{name} has no version"))
        else:
            found.source(url, line)
            found.put(name, f"=={version}", line, hashed, str(one.get("marker", "")))


def _pipfile(found: Manifest) -> None:
    locked = found.kind == "lock"
    data = json.loads(found.text) if locked else tomllib.loads(found.text)
    meta = data.get("_meta", {}) if locked else data
    for source in meta.get("sources", meta.get("source", ())):
        found.source(str(source.get("url", "")), found.at(str(source.get("url", ""))))
        if source.get("verify_ssl") is False:
            found.faults.append(("plain", found.at("verify_ssl"), "verify_ssl = false"))
    for part in ("default", "develop") if locked else ("packages", "dev-packages"):
        for name, wanted in data.get(part, {}).items():
            _table(found, name, wanted)


def conda(found: Manifest, text: str, line: int) -> None:
    """Add a package as conda writes it: `channel::name=version=build`, or a comparison."""
    match = re.fullmatch(r"(?:[\w./-]+::)?([\w.-]+)\s*(.*)", text.strip().strip("\"'"))
    if match is None:
        found.faults.append(("unread", line, f"no package of conda: {text[:60]!r}"))
    elif match[1] not in ("python", "pip"):
        versions = match[2].replace(" ", "")
        if re.match(r"=[^=]", versions):  # a build too, or three parts: what conda means as exact
            version, _, build = versions[1:].partition("=")
            fuzzy = not build and version.count(".") < 2 and not version.endswith("*")
            versions = f"=={version}.*" if fuzzy else f"=={version}"
        name = "torch" if match[1] == "pytorch" else match[1]
        found.put(name.lstrip("_"), versions.replace("|", ","), line)


def _environment(found: Manifest) -> None:
    data = yaml.safe_load(found.text)
    for one in data.get("dependencies") or ():  # without them it is a file of another kind
        if isinstance(one, str):
            conda(found, one, found.at(one))
            continue
        for text in one.get("pip") or ():
            if not isinstance(text, str):
                raise ValueError("no list of texts")
            words = words_of(text) if text.startswith("-") else [text]
            found.install(words, found.at(text))


def _versions(text: str) -> str:
    """Return PEP 440 for Poetry's and Pipenv's `^1.2`, `~1.2`, `1.2`, `*`."""
    parts = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([\^~])\s*(\d+(?:\.\d+)*)(.*)", part)
        if match:
            numbers = [int(number) for number in match[2].split(".")]
            keep = 1 if match[1] == "~" and len(numbers) == 1 else 2
            if match[1] == "^":  # up to the first number that is not zero
                keep = next((at for at, one in enumerate(numbers, 1) if one), len(numbers))
            top = [*numbers[: keep - 1], (numbers[:keep] + [0] * keep)[keep - 1] + 1]
            upper = ".".join(map(str, top))
            parts += [f">={match[2]}{match[3]}", f"<{upper}"]
        elif part != "*":
            parts.append(part if re.match(r"[<>=!~]", part) else f"=={part}")
    return ",".join(parts)


READERS: dict[str, tuple[Kind, Callable[[Manifest], None]]] = {
    r"pyproject\.toml": ("project", _project),
    r"Pipfile": ("project", _pipfile),
    r"Pipfile\.lock": ("lock", _pipfile),
    r"(?:poetry|uv|pdm)\.lock|pylock(?:\.[^.]+)?\.toml": ("lock", _lock),
    r"(?:.*[-_.])?(?:environment|conda)(?:[-_.].*)?\.ya?ml": ("environment", _environment),
    r"(?:.*[-_.])?(?:requirement|constraint)s?(?:[-_.].*)?\.(?:txt|in)":
        ("requirements", _requirements),
}  # fmt: skip
"""By the file's name; `commands` adds images and workflows."""
MOST = 1 << 20
"""Bytes; of a lock, which lists all files of all packages, eight times as many."""


def is_named_so(path: Path) -> bool:
    """Return whether the name of a file says that it declares something."""
    return _reader(path) is not None


def _reader(path: Path) -> tuple[Kind, Callable[[Manifest], None]] | None:
    from purpleteam.scan.packages import commands

    parts = path.absolute().parts
    name = "/".join(parts[-3:]) if ".github" in parts[-3:-1] else path.name
    if parts[-2] in ("requirements", "constraints") and path.suffix in (".txt", ".in"):
        return "requirements", _requirements
    rows = (READERS | commands.READERS).items()
    return next((row for form, row in rows if re.fullmatch(form, name, re.I)), None)


def read(path: Path, *, included: bool = False) -> Manifest | None:
    """Return what a file declares, or None where its name says that it declares nothing.

    Args:
        path: the file.
        included: another file of requirements named it: it is one, whatever it is called.

    Raises:
        ValueError: it is broken; also LookupError, TypeError or AttributeError.
        RecursionError: it is nested too deeply.
    """
    reader = ("requirements", _requirements) if included else _reader(path)
    if reader is None:
        return None
    most = 8 * MOST if reader[0] == "lock" else MOST
    if path.stat().st_size > most:
        raise ValueError(f"larger than {most} bytes")
    data = path.read_bytes()
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    found = Manifest(kind=reader[0], text=text)
    try:
        reader[1](found)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    return found
