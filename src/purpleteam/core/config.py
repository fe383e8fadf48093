"""Mappings into frozen dataclasses; unknown keys are refused with the nearest.

One rule for TOML, `--set a.b=c` and a part's fields (`pgd:steps=40`); 8/255 is a number.
"""

import inspect
import math
import re
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields, is_dataclass, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from purpleteam.core.errors import ConfigError, unknown

T = TypeVar("T")

NAME = re.compile(r"[^:]*(:[A-Z]\w*(?=:|$))?")
"""What a part is called: a name of Purpleteam's, or `library:Name` as another library has it."""
BETWEEN_FIELDS = re.compile(r",(?![^\[]*\])(?![^{]*\})")
"""A comma that is not inside brackets or braces."""


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Return `cls(**values)`, with every key known, every value of its type and finite."""
    from pydantic import ValidationError

    known = [field.name for field in fields(cls) if field.init]  # type: ignore[arg-type]
    hints, adapter = _types_of(cls)  # type: ignore[arg-type]
    ready: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{where}: {unknown('key', key, known)}")
        ready[key], kind = value, hints[key]
        listed = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else None
        if _of_floats(kind):
            try:
                ready[key] = _fractions(value)
            except ConfigError as error:
                raise ConfigError(f"{where}: {key} = {error}") from None
        elif isinstance(value, Mapping) and isinstance(kind, type) and is_dataclass(kind):
            ready[key] = build(kind, value, f"{where}: {key}")
        elif isinstance(listed, type) and is_dataclass(listed) and isinstance(value, list | tuple):
            named_by = fields(listed)[0].name
            ready[key] = [
                build(listed, item, f"{where}: {key}: {item.get(named_by, place)}")
                if isinstance(item, Mapping)
                else item
                for place, item in enumerate(value, 1)
            ]
    try:
        made: T = adapter.validate_python(ready)
    except ValidationError as errors:
        first = errors.errors()[0]
        field = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            problem = f"{field} is missing"
        elif field:  # a part's own __post_init__ names field and value itself
            problem = f"{field} = {first['input']!r}: {problem}"
        raise ConfigError(f"{where}: {problem}") from None
    for key in values:
        if not _finite(getattr(made, key)):  # no record could hold it
            raise ConfigError(f"{where}: {key} = {ready[key]!r}: must be finite")
    return made


@cache
def options_of(function: Callable[..., Any]) -> type:
    """Return a class whose fields are a function's keyword-only parameters, but `progress`."""
    hints = typing.get_type_hints(function)
    options = [
        (name, hints.get(name, Any), field(default=one.default))
        for name, one in inspect.signature(function).parameters.items()
        if one.kind is one.KEYWORD_ONLY and name != "progress"
    ]
    return make_dataclass("Options", options, frozen=True, kw_only=True)


@cache
def _types_of(cls: type) -> tuple[dict[str, Any], Any]:
    """Return the types of a class's fields, and pydantic's adapter, which takes long to make."""
    from pydantic import TypeAdapter

    return typing.get_type_hints(cls), TypeAdapter(cls)


def from_file(path: Path) -> dict[str, Any]:
    """Return the mapping in a TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"configuration {str(path)!r} does not exist") from None
    except (OSError, ValueError) as error:  # no text, no TOML, or a number of thousands of digits
        raise ConfigError(f"configuration {str(path)!r} cannot be read: {error}") from None


def override(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Return `values` with each `a.b=c` of `settings` put in its place."""
    result = dict(values)
    for setting in settings:
        path, separator, text = setting.partition("=")
        keys = path.strip().split(".")
        if not separator or not all(keys):
            raise ConfigError(f"--set {setting!r} is not of the form a.b=value")
        nested: dict[str, Any] = {keys[-1]: _value(text.strip())}
        for key in reversed(keys[:-1]):
            nested = {key: nested}
        result = merge(result, nested)
    return result


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return `first` with the values of `second` over it, key by key, nested mappings merged."""
    result = dict(first)
    for key, value in second.items():
        before = first.get(key)
        nested = before if isinstance(before, Mapping) else {}
        result[key] = merge(nested, value) if isinstance(value, Mapping) else value
    return result


def parse_part(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and fields of `name:field=value,field=[value,value]`.

    A name with a capital after a colon is another library's: `foolbox:LinfPGD:steps=20`.
    """
    match = NAME.match(text)
    name = match[0] if match else ""
    rest = text[len(name) :].removeprefix(":")
    values: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in BETWEEN_FIELDS.split(rest))):
        key, separator, value = item.partition("=")
        if not separator:
            raise ConfigError(f"{text!r}: {item!r} is not of the form field=value")
        if key.strip() in values:
            raise ConfigError(f"{text!r}: {key.strip()!r} stands twice")
        values[key.strip()] = _value(value.strip())
    return name.strip(), values


def number(text: str) -> float:
    """Return the finite number that a text means: a decimal, or a fraction such as 8/255."""
    upper, slash, lower = text.partition("/")
    try:
        parts = float(upper), float(lower) if slash else 1.0
    except ValueError:
        raise ConfigError(f"{text!r} is no number such as 0.3 or 8/255") from None
    if slash and not parts[1] > 0:
        raise ConfigError(f"{text!r} is divided by {parts[1]:g}, not by a number above 0")
    value = parts[0] / parts[1]
    if not all(map(math.isfinite, (*parts, value))):
        raise ConfigError(f"{text!r} is no finite number")
    return value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if text.startswith("[") and text.endswith("]"):  # such as [2/255,8/255]
            return [_value(item.strip()) for item in BETWEEN_FIELDS.split(text[1:-1])]
        return text


def _of_floats(kind: Any) -> bool:
    """Say whether values of this type are floats or hold some."""
    return kind is float or any(map(_of_floats, typing.get_args(kind)))


def _fractions(value: Any) -> Any:
    """Return the value with every text that is a fraction made a number."""
    if isinstance(value, list | tuple):
        return [_fractions(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _fractions(item) for key, item in value.items()}
    return number(value) if isinstance(value, str) and "/" in value else value


def _finite(value: Any) -> bool:
    if isinstance(value, Mapping | list | tuple):
        return all(map(_finite, value.values() if isinstance(value, Mapping) else value))
    return not isinstance(value, float) or math.isfinite(value)
