"""The reference of recipe keys and runtime variables, read off the classes that check them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from rich.markup import escape
from rich.table import Table

from longalign_core.config import Recipe, Runtime
from longalign_core.errors import InputError

KeyRow = tuple[str, str, str]


def recipe_keys(section: str | None) -> list[KeyRow]:
    """Every key of a recipe, or of one section: its name, what it takes or its default, what it means.

    Raises:
        InputError: There is no such section.
    """
    if section is None:
        return list(_keys(Recipe, ""))
    if section not in Recipe.model_fields:
        raise InputError(f"a recipe has no section {section!r}; allowed: {', '.join(Recipe.model_fields)}")
    return [row for row in _keys(Recipe, "") if row[0].split(".")[0].split("[")[0] == section]


def runtime_variables() -> list[KeyRow]:
    """Every LONGALIGN_* variable: its name, default, meaning."""
    return [(f"LONGALIGN_{name.upper()}", _default(field), _meaning(field)) for name, field in _fields(Runtime)]


def reference_table(rows: list[KeyRow]) -> Table:
    """The rows for people."""
    table = Table("key", "default", "meaning")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))  # "[email]" is text here, no style
    return table


def _keys(model: type[BaseModel], place: str) -> Iterator[KeyRow]:
    for name, field in _fields(model):
        inside = f"{place}.{name}".lstrip(".")
        inner = list(_models(field.annotation))
        if not inner:
            yield inside, _default(field), _meaning(field)
            continue
        if field.description:
            yield inside, _default(field), field.description
        mark = "[]" if getattr(field.annotation, "__origin__", None) is tuple else ""
        shared = _shared_fields(inner)
        tags = [_tag(one) for one in inner]
        if len(inner) > 1 and tags[0]:
            kinds = ", ".join(str(one.model_fields[tag].default) for one, tag in zip(inner, tags, strict=True) if tag)
            about = inner[0].model_fields[tags[0]].description or "Which of the kinds named below in brackets it is."
            yield f"{inside}{mark}.{tags[0]}", "required", f"{about} Allowed: {kinds}."
        yield from ((f"{inside}{mark}.{row[0]}", *row[1:]) for row in shared.values())
        for one in inner:
            tag = _tag(one)
            kind = one.model_fields[tag].default if tag else ""
            place_of_one = f"{inside}{mark}" + (f"({kind})" if kind else "")
            yield from (row for row in _keys(one, place_of_one) if row[0].rpartition(".")[2] not in {*shared, tag})


def _tag(model: type[BaseModel]) -> str | None:
    """The key that tells a member of a union apart."""
    return next((name for name in ("kind", "format") if name in model.model_fields), None)


def _shared_fields(members: list[type[BaseModel]]) -> dict[str, KeyRow]:
    """Keys that every member of a union has, to be explained once; none where there is one member."""
    if len(members) < 2:
        return {}
    rows = [{name: (name, _default(field), _meaning(field)) for name, field in _fields(one)} for one in members]
    return {name: row for name, row in rows[0].items() if all(one.get(name) == row for one in rows)}


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    yield from model.model_fields.items()


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for member in get_args(annotation):
        yield from _models(member)


def _meaning(field: Any) -> str:
    """What a key means, with its choices where the words do not name them."""
    about = field.description or ""
    choices = [str(one) for one in _choices(field.annotation)]
    if len(choices) < 2 or all(one in about for one in choices):
        return about
    return f"{about} Allowed: {', '.join(choices)}."


def _choices(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
        return
    for member in get_args(annotation):
        yield from _choices(member)


def _default(field: Any) -> str:
    if field.default_factory is not None:
        return str(field.default_factory())
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel):
        return "its defaults"
    return "null" if field.default is None else str(field.default)
