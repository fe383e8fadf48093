"""Configuration: mappings into frozen dataclasses; unknown keys are refused with the nearest.

One rule serves files (`--config FILE`, TOML), overrides (`--set a.b=c`) and the fields of a
part on the command line (`--attack pgd:steps=40,restarts=3`); a number may be a fraction: 8/255.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from purpleteam.core.errors import ConfigError, unknown

if TYPE_CHECKING:
    from pydantic import ValidationError


T = TypeVar("T")

NAME = re.compile(r"[^:]*(:[A-Z]\w*(?=:|$))?")
"""What a part is called: a name of Purpleteam's, or `library:Name` as another library has it."""
BETWEEN_FIELDS = re.compile(r",(?![^\[]*\])(?![^{]*\})")
"""A comma that is not inside brackets or braces."""


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Return `cls(**values)`, with every key known, every value of its type and finite.

    Args:
        cls: a dataclass; fields that are dataclasses are built from nested mappings.
        values: what was asked for; text is converted to the field's type.
        where: names the source in errors, such as a file or `--attack pgd`.
    """
    from pydantic import TypeAdapter, ValidationError

    known = {one.name: one for one in dataclasses.fields(cls) if one.init}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: {unknown('key', key, known)}")
    hints = typing.get_type_hints(cls)
    for key in (key for key in values if _of_floats(hints[key])):
        try:
            values = {**values, key: _fractions(values[key])}
        except ConfigError as error:
            raise ConfigError(f"{where}: {key} = {error}") from None
    nested: dict[str, Any] = {
        key: build(kind, value, f"{where}: {key}")
        for key, value in values.items()
        if isinstance(value, Mapping) and _is_part(kind := hints[key])
    }
    try:
        made = TypeAdapter(cls).validate_python({**values, **nested})
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_problem(error)}") from None
    for key in values:
        if not _finite(getattr(made, key)):  # no record could hold it
            raise ConfigError(f"{where}: {key} = {values[key]!r}: must be finite")
    return made


def from_file(path: Path) -> dict[str, Any]:
    """Return the mapping in a TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"configuration {str(path)!r} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"configuration {str(path)!r} cannot be read: {error}") from None


def override(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Return `values` with each `a.b=c` of `settings` put in its place."""
    result = merge({}, values)
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
    result = {key: merge({}, v) if isinstance(v, Mapping) else v for key, v in first.items()}
    for key, value in second.items():
        before = result.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            result[key] = merge(before, value)
        else:
            result[key] = merge({}, value) if isinstance(value, Mapping) else value
    return result


def parse_part(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and fields of `name:field=value,field=[value,value]`.

    A name with a capital after a colon is another library's: `foolbox:LinfPGD:steps=20`.
    """
    found = NAME.match(text)
    name = found[0] if found else ""
    rest = text[len(name) :].removeprefix(":")
    values: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in BETWEEN_FIELDS.split(rest))):
        key, separator, value = item.partition("=")
        if not separator:
            raise ConfigError(f"{text!r}: {item!r} is not of the form field=value")
        values[key.strip()] = _value(value.strip())
    return name.strip(), values


def number(text: str) -> float:
    """Return the finite number that a text means: a decimal, or a fraction such as 8/255.

    Raises:
        ConfigError: it means none.
    """
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


def to_mapping(part: Any) -> dict[str, Any]:
    """Return a dataclass as plain data, as it is recorded."""
    return dataclasses.asdict(part)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if text.startswith("[") and text.endswith("]"):  # such as [2/255,8/255]
            return [_value(one.strip()) for one in BETWEEN_FIELDS.split(text[1:-1])]
        return text


def _is_part(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _of_floats(kind: Any) -> bool:
    """Say whether values of this type are floats or hold some."""
    return kind is float or any(map(_of_floats, typing.get_args(kind)))


def _fractions(value: Any) -> Any:
    """Return the value with every text that is a fraction made a number."""
    if isinstance(value, list | tuple):
        return [_fractions(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _fractions(one) for key, one in value.items()}
    return number(value) if isinstance(value, str) and "/" in value else value


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{place} is missing"
    message = str(first["msg"]).removeprefix("Value error, ")
    if not place:  # from the part's own __post_init__, which names the field and the value
        return message
    return f"{place} = {first['input']!r}: {message}"


def _finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
