"""Objects that a config chooses by `_target_`: their arguments are checked by the annotations of their class."""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pkgutil import resolve_name
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from bisae.config.describe import described
from bisae.config.moved import current
from bisae.runtime.errors import ConfigError

Node = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)
HYDRA: dict[str, Any] = {
    **{"_target_": str, "_partial_": bool, "_recursive_": bool, "_args_": list[Any]},
    "_convert_": Literal["none", "partial", "object", "all"],
}


@dataclass(frozen=True)
class Built:
    """Metadata of a key that holds an object.

    `base`: full name of the class it must be of; None: any. `given`: arguments that bisae adds. `beside`: the keys of
    the node that are no arguments. `lists`: a list stands for several values, one of each member. `late`: the class is
    slow to import, so that the node is checked when there is work to do. `several`: see `separate`.
    """

    base: str | None = None
    given: tuple[str, ...] = ()
    beside: type[BaseModel] | None = None
    lists: bool = False
    late: bool = False
    several: bool = False


Loggers = Annotated[Node, Built(late=True, several=True)]  # config group `logger`


def separate(key: str, node: Any) -> dict[str, Any]:
    """The objects of a node that may hold several, each by its key: the node itself, and those of its values."""
    if not isinstance(node, Mapping):
        return {key: node}
    inner = {name: value for name, value in node.items() if isinstance(value, Mapping) and "_target_" in value}
    own = {name: value for name, value in node.items() if name not in inner}
    return ({key: own} if own else {}) | {f"{key}.{name}": value for name, value in inner.items()}


def unknown(key: str, found: object, known: Mapping[str, Any] | list[str]) -> ConfigError:
    """The refusal of a key that there is not, with the nearest one that there is."""
    name = key.rpartition(".")[2]
    near = get_close_matches(name, list(known), 1)
    meant = f"did you mean {near[0]}? " if near else ""
    return ConfigError(key, found, f"no such key; {meant}there are {', '.join(known) or 'none'}")


def target_of(key: str, node: Mapping[str, Any]) -> Any:
    """The class, or function, that a node names."""
    target = current(node.get("_target_"))
    remedy = "must be the full name of a class that can be imported"
    try:
        found = resolve_name(str(target))
    except (ImportError, AttributeError, ValueError) as error:
        found, remedy = None, f"{remedy} ({error}); is its folder in PYTHONPATH?"
    if not callable(found):
        raise ConfigError(f"{key}._target_", target, remedy)
    return found


def check_beside(key: str, node: object, built: Built) -> None:
    """Refuse what is no object, and values of keys that are no arguments of its class, which is not imported."""
    if not isinstance(node, Mapping):
        raise ConfigError(key, node, "must be an object, with `_target_` and its arguments")
    if not isinstance(node.get("_target_"), str):
        raise ConfigError(f"{key}._target_", node.get("_target_", "???"), "must be the full name of a class")
    for name, annotation in HYDRA.items():
        if name in node and not _fits(annotation, node[name]):
            raise ConfigError(f"{key}.{name}", node[name], f"must be {described(annotation)}")
    if built.beside:
        own = {name: node[name] for name in fields_of(built.beside) if name in node}
        for values in _one_by_one(own, built.lists):
            validated(built.beside, values, f"{key}.")


def check_object(key: str, node: object, built: Built = Built()) -> None:
    """Refuse a node whose class there is not, or is another than it must be, or whose arguments are not its own."""
    check_beside(key, node, built)
    assert isinstance(node, Mapping)
    target = target_of(key, node)
    base = resolve_name(built.base) if built.base else None
    if base and not (isinstance(target, type) and issubclass(target, base)):
        raise ConfigError(f"{key}._target_", node["_target_"], f"must be a {base.__name__}")
    parameters, required, open_ended = arguments_of(target)
    beside = fields_of(built.beside) if built.beside else {}
    known = {**beside, **parameters}
    for name, value in node.items():
        if name in HYDRA or name in beside:
            continue
        if name in built.given and name in parameters:
            raise ConfigError(f"{key}.{name}", value, "is not set here: bisae gives it")
        if name not in parameters and not open_ended:
            raise unknown(f"{key}.{name}", value, [name for name in known if name not in built.given])
        _check_argument(f"{key}.{name}", parameters.get(name, Any), value, built.lists)
    for name in known:
        if name in required and name not in node and name not in built.given and not node.get("_partial_"):
            raise ConfigError(f"{key}.{name}", "???", "give a value")


def validated(kind: type[Model], found: Mapping[str, Any], prefix: str = "") -> Model:
    """`found` as a `kind`; a ConfigError names the key below `prefix`."""
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise _refusal(kind, error.errors()[0]["loc"], found, prefix) from None


def objects_in(annotation: Any, value: Any, key: str) -> Iterator[tuple[str, Any, Built]]:
    """Every key at or below `key` that is declared to hold an object, with its value."""
    if value is None:
        return
    if get_origin(annotation) in (Union, UnionType):
        annotation = next((one for one in get_args(annotation) if get_origin(one) is Annotated), Any)
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        if built := next((one for one in metadata if isinstance(one, Built)), None):
            nodes = separate(key, value) if built.several else {key: value}
            yield from ((place, node, built) for place, node in nodes.items())
            return
    if isinstance(value, BaseModel):
        for name, (attribute, declared) in fields_of(type(value)).items():
            yield from objects_in(declared, getattr(value, attribute), f"{key}.{name}" if key else name)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from objects_in(_values_in(annotation), inner, f"{key}.{name}")


def fields_of(kind: type[BaseModel]) -> dict[str, tuple[str, Any]]:
    """The keys of a model: for each the name of its attribute, and its annotation."""
    return {
        field.alias or name: (
            name,
            Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation,
        )
        for name, field in kind.model_fields.items()
    }


@lru_cache
def arguments_of(target: Any) -> tuple[dict[str, Any], frozenset[str], bool]:
    """A callable's arguments: their annotations, `Any` where there is none; those required; whether it takes others.

    What a class passes on by `**` are the arguments of its base class.
    """
    annotations: dict[str, Any] = {}
    required: set[str] = set()
    if isinstance(target, type):
        owners = [kind for kind in target.__mro__[:-1] if "__init__" in vars(kind)]
        inits: list[Any] = [vars(kind)["__init__"] for kind in owners]
    else:
        inits = [target]
    for one in inits:
        try:
            signature = list(inspect.signature(one).parameters.values())
        except (TypeError, ValueError):  # of C code, for example
            return annotations, frozenset(required), True
        try:
            hints = get_type_hints(one, include_extras=True)
        except (NameError, TypeError):
            hints = {}
        for argument in signature[isinstance(target, type) :]:  # but `self`
            if (
                argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
                and argument.name not in annotations
            ):
                annotations[argument.name] = hints.get(argument.name, Any)
                if argument.default is argument.empty and one is inits[0]:  # a base class's may be given by its heir
                    required.add(argument.name)
        if all(argument.kind is not argument.VAR_KEYWORD for argument in signature):
            return annotations, frozenset(required), False
    return annotations, frozenset(required), bool(inits)


def _check_argument(key: str, annotation: Any, value: Any, lists: bool) -> None:
    if isinstance(value, Mapping) and "_target_" in value:
        bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
        named = isinstance(bare, type) and not getattr(bare, "_is_protocol", False)
        check_object(key, value, Built(f"{bare.__module__}:{bare.__qualname__}" if named else None))
        return
    if _fits(annotation, value):
        return
    wrong = [one for one in value if not _fits(annotation, one)] if lists and isinstance(value, list) else [value]
    for one in wrong:
        raise ConfigError(key, one, f"must be {described(annotation)}")


def _fits(annotation: Any, value: object) -> bool:
    """Whether a value is of a type. A type that says nothing about a config's values, such as a tensor, fits all."""
    if annotation is Any:
        return True
    try:
        adapter: Any = TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))
    except (PydanticSchemaGenerationError, PydanticUserError):
        return True
    try:
        adapter.validate_json(json.dumps(value))  # as JSON a list may be a tuple, and a text a path
    except (ValidationError, TypeError, ValueError):
        return False
    return True


def _one_by_one(values: dict[str, Any], lists: bool) -> list[dict[str, Any]]:
    """`values`, with each value of every list in turn."""
    first = {name: value[0] if lists and isinstance(value, list) and value else value for name, value in values.items()}
    others = [(name, one) for name, value in values.items() if lists and isinstance(value, list) for one in value[1:]]
    return [first, *({**first, name: one} for name, one in others)]


def _refusal(kind: type[BaseModel], place: tuple[int | str, ...], found: Any, prefix: str) -> ConfigError:
    annotation: Any = kind
    key = prefix.rstrip(".")
    for part in place:
        model = _model_in(annotation)
        fields = None if model is None else fields_of(model)
        if fields is None and not isinstance(found, Mapping):
            break
        key = f"{key}.{part}" if key else str(part)
        if fields is not None and part not in fields:
            return unknown(key, found[part], fields)
        if part not in found:
            return ConfigError(key, "???", "give a value")
        found = found[part]
        annotation = fields[str(part)][1] if fields is not None else _values_in(annotation)
    return ConfigError(key, found, f"must be {described(annotation)}")


def _values_in(annotation: Any) -> Any:
    """The type of a mapping's values, where an annotation is one or allows one."""
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return get_args(annotation)[-1]
    inner = get_args(annotation) if origin in (Annotated, Union, UnionType) else ()
    return next((values for one in inner if (values := _values_in(one)) is not Any), Any)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is, or that may stand where it does."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = get_args(annotation) if get_origin(annotation) in (Annotated, Union, UnionType) else ()
    return next((model for one in inner if (model := _model_in(one))), None)
