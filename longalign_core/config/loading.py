"""A recipe file, with overrides, to a `Recipe`; every mistake in it to one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from longalign_core.config.base import is_source
from longalign_core.config.credentials import SECRET, SECRET_NAME
from longalign_core.config.recipe import Recipe
from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file.

    Args:
        path: YAML file; relative paths inside it start at its folder.
        overrides: `section.key=value`; items of lists by number or by their name.

    Raises:
        InputError: The file is missing or not YAML, a key is unknown, a value is not allowed, or an
            override names nothing or carries a secret.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=UniqueKeys)  # noqa: S506 -- a SafeLoader
    except FileNotFoundError as error:
        raise InputError(f"there is no recipe {path}; the shipped ones are in deployments/recipes") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the recipe {path}: {error}; check that it is a readable UTF-8 file") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}; correct it there") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path} holds no recipe sections; start from one in deployments/recipes")
    for override in overrides:
        _apply(raw, override)
    return parse_recipe(raw, path.name, path.resolve().parent)


def parse_recipe(raw: dict[str, Any], name: str, folder: Path) -> Recipe:
    """Validate recipe sections; relative sources start at `folder`. Raises InputError."""
    if found := _find_secret(raw):
        raise InputError(
            f"{name} carries what looks like a key at {found}; remove it and put the key into the environment "
            "(LONGALIGN_<ROLE>_API_KEY)"
        )
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{name}: {_sentences(error, Recipe)}") from None
    resolved: Recipe = _resolve(recipe, folder)
    return resolved


def load_runtime(**given: Any) -> Runtime:
    """The runtime from `LONGALIGN_*` variables and options that were given (None: not given).

    Raises:
        InputError: A value is not allowed; the message never repeats it.
    """
    try:
        return Runtime(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise InputError(f"runtime settings: {_sentences(error, Runtime)}") from None
    except Exception as error:
        if type(error).__name__ != "SettingsError":
            raise
        raise InputError(
            f'runtime settings: {error}; LONGALIGN_ENDPOINTS is JSON like {{"judge": "http://…"}}'
        ) from None


class UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is given twice: YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, unless it gives a key twice."""
        keys = [key.value for key, _ in node.value]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _apply(raw: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    shown = name if len(name) < 80 else name[:77] + "…"
    if SECRET_NAME.search(name) or SECRET.search(override):
        raise InputError(
            "--set carries what looks like a key or password; put keys into the environment "
            "(LONGALIGN_<ROLE>_API_KEY), a recipe never holds them"
        )
    if not separator or not all(name.split(".")):
        raise InputError(
            f"--set {shown} is not section.key=value; write for example training.optimizer.learning_rate=1e-5"
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {shown}: the value is not YAML; quote it, or write a list as [1, 2]") from error
    place: Any = raw
    *parents, last = name.split(".")
    for part in parents:
        if isinstance(place, dict) and place.get(part) is None:
            place[part] = {}
        place = _child(place, part, shown)
    if isinstance(place, list):
        place[_position(place, last, shown)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise InputError(f"--set {shown}: what stands before {last!r} is a plain value; shorten the name")


def _child(place: Any, part: str, shown: str) -> Any:
    if isinstance(place, list):
        return place[_position(place, part, shown)]
    if isinstance(place, dict) and part in place:
        return place[part]
    raise InputError(f"--set {shown}: there is no {part!r}; check the name against the recipe")


def _position(items: list[Any], part: str, shown: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(items):
        return int(part)
    known = [name for name in names if name] or list(range(len(items)))
    raise InputError(f"--set {shown}: no item {part!r}; allowed: {known}")


def _find_secret(value: Any, place: str = "") -> str | None:
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)  # type: ignore[assignment]
    else:
        return place if isinstance(value, str) and SECRET.search(value) else None
    found = (_find_secret(item, f"{place}.{name}".lstrip(".")) for name, item in items)
    return next((one for one in found if one), None)


def _resolve(section: Any, folder: Path) -> Any:
    changed: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if is_source(field) and isinstance(value, str) and not value.startswith("hub:") and "://" not in value:
            changed[name] = str((folder / Path(value).expanduser()).absolute().resolve())
        elif isinstance(value, BaseModel):
            changed[name] = _resolve(value, folder)
        elif isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
            changed[name] = tuple(_resolve(item, folder) if isinstance(item, BaseModel) else item for item in value)
    return section.model_copy(update=changed)


def sources_of(section: BaseModel, place: str = "") -> Iterator[tuple[str, str]]:
    """Every source that a section names, with its place in the recipe."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        inside = f"{place}.{name}".lstrip(".")
        if is_source(field) and isinstance(value, str):
            yield inside, value
        for number, item in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(item, BaseModel):
                named = getattr(item, "name", number)
                yield from sources_of(item, f"{inside}.{named}" if isinstance(value, tuple) else inside)


def _sentences(error: ValidationError, model: type[BaseModel]) -> str:
    every = error.errors(include_url=False)
    # Of a list whose items are wrong, it is no mistake that none is left.
    wrong_lists = {one["loc"][:depth] for one in every for depth in range(1, len(one["loc"]))}
    mistakes = [one for one in every if one["type"] != "too_short" or one["loc"] not in wrong_lists]
    more = f" (and {len(mistakes) - 3} more)" if len(mistakes) > 3 else ""
    return "; also ".join(_sentence(one, model) for one in mistakes[:3]) + more


def _sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        allowed = _keys_at(model, error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{place} is not a key; allowed here: {', '.join(allowed)}{hint}"
    if error["type"] == "missing":
        section = (
            f"; `longalign keys {error['loc'][0]}` explains its keys" if model is Recipe and error["loc"][1:] else ""
        )
        return f"{place} is missing; add it (deployments/recipes show every section{section})"
    if error["type"] == "union_tag_invalid":
        key, tag, allowed = error["ctx"]["discriminator"].strip("'"), error["ctx"]["tag"], error["ctx"]["expected_tags"]
        near = difflib.get_close_matches(tag, allowed.replace("'", "").split(", "), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{place}.{key} {tag!r} is not known; allowed: {allowed}{hint}"
    if error["type"] == "tuple_type" and model is Recipe and isinstance(error["input"], str | int | float):
        return f"{place} takes a list; found {error['input']!r}, write [{error['input']}]"
    if error["type"] == "tuple_type" and model is Recipe:
        what = "a section" if isinstance(error["input"], dict) else "nothing"
        return f"{place} takes a list; found {what}, write one entry a line, each after '- '"
    if error["type"] == "too_short" and model is Recipe and error["ctx"]["field_type"] == "Tuple":
        return (
            f"{place} takes a list of at least {error['ctx']['min_length']}; found {error['ctx']['actual_length']}, "
            "add to it, or leave the key out where it has a default"
        )
    if error["type"] == "task_kind":
        return f"{place}: {error['msg']}; found {_entry(error['input'])}"
    message = error["msg"].removeprefix("Value error, ")
    found = error["input"]
    if model is Recipe and error["type"] != "value_error" and isinstance(found, str | int | float):
        message += f"; found {found!r}"  # never of the runtime: its values may hold a secret
    place = place if model is Recipe else f"LONGALIGN_{place.upper()}"
    return f"{place}: {message}" if error["loc"] else message


def _entry(found: Any) -> str:
    return f"kind {found.get('kind')!r}" if isinstance(found, dict) else repr(found)


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    found: Any = model
    for part in loc:
        found = _step(found, part)
    return sorted(found.model_fields) if isinstance(found, type) and issubclass(found, BaseModel) else []


def _step(kind: Any, part: int | str) -> Any:
    """The type at one step of an error's location: a field, a list's item, or a union's tag."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        return _inner(field.annotation) if field else None
    if get_origin(kind) in (Union, UnionType):
        members = [_inner(member) for member in get_args(kind)]
        tagged = [one for one in members if part in _tags(one)]
        return tagged[0] if tagged else None
    if get_origin(kind) is tuple:
        return _inner(get_args(kind)[0])
    return None


def _tags(kind: Any) -> list[Any]:
    """What tells a member of a union apart: the default of its `kind` or `format`."""
    fields = getattr(kind, "model_fields", {})
    return [fields[name].default for name in ("kind", "format") if name in fields]


def _inner(kind: Any) -> Any:
    if get_origin(kind) is Annotated:
        return _inner(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        members = [member for member in get_args(kind) if member is not type(None)]
        return _inner(members[0]) if len(members) == 1 else kind
    return kind
