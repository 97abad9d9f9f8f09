"""Settings files: YAML read, checked against a record, every mistake told in one line that names the file and the key.

A settings record is a class below :class:`Settings`; its fields carry types and bounds. A command reads a file and fills a record::

    values = read_yaml(path, UserError)
    settings = validated(TrackerSettings, laid_over(preset, values), f"config {path}", UserError)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Strict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

Record = TypeVar("Record", bound=BaseModel)
Item = TypeVar("Item")

_MOST_BYTES, _MOST_VALUES, _DEEPEST = 100_000, 10_000, 20
"""Of a settings file; real ones have 3,000 bytes, 200 values and four levels."""

ListOf = Annotated[tuple[Item, ...], Strict(False)]
"""A field that is a list in YAML and a tuple in the record; its items are as strict as other fields."""


class Settings(BaseModel):
    """A frozen record of settings. Types are taken strictly (whole numbers pass as numbers, nothing else is converted), unknown keys
    are refused by name, and defaults must satisfy their own bounds."""

    model_config = ConfigDict(frozen=True, strict=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, values: Any) -> Any:
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                context = {"key": str(key), "known": ", ".join(cls.model_fields)}
                raise PydanticCustomError("unknown_key", "no such key", context)
        return values


class _Loader(yaml.SafeLoader):
    """The safe loader, with YAML 1.2's numbers: 1e-1 and 1.0e300 are words in YAML 1.1, which wants a point and a sign."""


    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """No merge keys ("<<"), which a few lines can repeat without end."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int)):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {str(key)[:60]!r} stands twice in one section", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def read_yaml(path: Path | str, error: type[Exception]) -> dict[str, Any]:
    """The content of a YAML file of keys and values; an empty file has none.

    Raises:
        error: no such file, not YAML, or something other than keys and values.
    """
    try:
        if not Path(path).is_file() and Path(path).exists():
            raise error(f"config {path}: cannot be read (not a file)")
        if Path(path).stat().st_size > _MOST_BYTES:
            raise error(f"config {path}: too large for a settings file; {_MOST_BYTES:,} bytes at most")
        content = parsed_yaml(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as reason:
        raise error(f"config {path}: cannot be read ({reason.strerror})") from reason
    except ValueError as reason:
        raise error(f"config {path}: not valid YAML ({' '.join(str(reason).split())})") from reason
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise error(f"config {path}: expected sections such as 'tracking:', found {type(content).__name__}")
    return content


def parsed_yaml(text: str) -> Any:
    """What a piece of YAML means, e.g. the value of a ``--set key=value``.

    Raises:
        ValueError: not YAML.
    """
    try:
        content = yaml.load(text, _Loader)
        _count(content, 0, 0)
        return content
    except (yaml.YAMLError, OverflowError, KeyError, TypeError, AttributeError) as reason:  # of its readers of tagged and odd values, too
        raise ValueError(str(reason)) from reason
    except RecursionError as reason:
        raise ValueError("nested too deeply") from reason


def _count(content: Any, so_far: int, depth: int) -> int:
    """Values in ``content``, repeated ones (anchors and aliases) each time; ends soon, however many there are."""
    so_far += 1
    if so_far > _MOST_VALUES or depth > _DEEPEST:
        raise ValueError("too many values, or nested too deeply")
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, (list, tuple, set)) else ()
    for value in inner:
        so_far = _count(value, so_far, depth + 1)
    return so_far


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``below`` with what ``above`` names put in its place, section by section; neither is changed."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = laid_over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def validated(record: type[Record], values: Mapping[str, Any], where: str, error: type[Exception]) -> Record:
    """``values`` as a record.

    Args:
        record: a class below :class:`Settings`. values: plain values, as YAML gives them.
        where: what begins the message, e.g. ``config mine.yaml``.

    Raises:
        error: the first key that is unknown, of the wrong type, out of bounds or not a number: one line that names it by its dotted
            name, says what it must be and what it is.
    """
    for key in _keys_of_nans(values, ""):
        raise error(f"{where}: '{key}' is not a number")
    try:
        return record.model_validate(dict(values))
    except ValidationError as failure:
        raise error(f"{where}: {_told(failure.errors(include_url=False), values)}") from None


def _told(errors: list[ErrorDetails], values: Mapping[str, Any]) -> str:
    """The first mistake; pydantic lists one for each type that a value might have had: the one that got farthest, or all together."""
    start = _place(errors[0], values)
    first = max((e for e in errors if _place(e, values)[: len(start)] == start), key=lambda e: len(_place(e, values)))
    place = _place(first, values)
    key = _dotted(place)
    if first["type"] == "unknown_key":
        context = first["ctx"]
        return f"unknown key '{_dotted((*place, context['key']))}'; known here: {context['known']}"
    if first["type"] == "missing":
        return f"'{key}' is missing"
    if first["type"] == "value_error":  # of a record's own check, which says what is wrong
        return f"'{key}' {first['ctx']['error']}" if key else str(first["ctx"]["error"])
    wanted = [_wanted(e) for e in errors if _place(e, values) == place]
    return f"'{key}' must be {' or '.join(dict.fromkeys(wanted))}, not {_short(first['input'])}"


_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a section with keys of its own",
    "model_attributes_type": "a section with keys of its own",
}


def _wanted(mistake: ErrorDetails) -> str:
    """What pydantic expected, to follow "must be"."""
    kind, context = mistake["type"], mistake.get("ctx", {})
    if kind in _KINDS:
        return _KINDS[kind]
    if kind == "greater_than":
        return "positive" if context["gt"] == 0 else f"more than {context['gt']:g}"
    if kind == "greater_than_equal":
        return f"at least {context['ge']:g}"
    if kind == "less_than":
        return f"less than {context['lt']:g}"
    if kind == "less_than_equal":
        return f"at most {context['le']:g}"
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "too_short":
        return f"a list of {context['min_length']} or more"
    if kind == "too_long":
        return f"a list of {context['max_length']} at most"
    text = mistake["msg"]
    return text[:1].lower() + text[1:]


def _place(mistake: ErrorDetails, values: Any) -> tuple[str | int, ...]:
    """Where a mistake is, without the names of types that pydantic puts in for fields of several types."""
    place: list[str | int] = []
    for part in mistake["loc"]:
        if isinstance(values, Mapping):
            known = part in values
        else:
            known = isinstance(values, (list, tuple)) and isinstance(part, int) and part < len(values)
        if known:
            values = values[part]
        if known or (mistake["type"] == "missing" and part == mistake["loc"][-1]):
            place.append(part)
    return tuple(place)


def _dotted(place: tuple[str | int, ...]) -> str:
    text = ""
    for part in place:
        word = _short_key(part)
        text += f"[{word}]" if isinstance(part, int) else f".{word}" if text else word
    return text


def _short_key(key: object) -> str:
    text = str(key)
    text = text if text.isprintable() else repr(text)[1:-1]  # messages have one line
    return text if len(text) <= 60 else text[:57] + "…"


def _keys_of_nans(values: Any, key: str) -> Iterator[str]:
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _keys_of_nans(value, f"{key}.{_short_key(name)}" if key else _short_key(name))
    elif isinstance(values, (list, tuple)):
        for k, value in enumerate(values):
            yield from _keys_of_nans(value, f"{key}[{k}]")
    elif isinstance(values, float) and math.isnan(values):
        yield key


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
