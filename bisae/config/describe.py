"""What a key may hold, in words, from the annotation that declares it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, Predicate

WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "null",
    Any: "anything",
}
RANGES: tuple[tuple[Any, str], ...] = (
    (Ge, "at least {ge}"),
    (Gt, "above {gt}"),
    (Le, "at most {le}"),
    (Lt, "below {lt}"),
)
BEYOND = 2**63  # a bound of the machine's, not of the meaning


def described(annotation: Any) -> str:
    """`a whole number, at least 1 or null`, for example."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return ", ".join([described(arguments[0]), *bounds(arguments[1:])]).replace("number, above", "number above")
    if origin in (Union, UnionType):
        shown = dict.fromkeys(described(one) for one in arguments if not (one is int and float in arguments))
        return " or ".join(shown)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else str(arguments[0])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"keys, each with {described(arguments[-1])}" if arguments else "keys of its own"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each {described(arguments[0])}"
    if fields := getattr(annotation, "model_fields", None):
        return f"a mapping with the keys {', '.join(fields)}"
    return WORDS.get(annotation) or str(getattr(annotation, "__name__", annotation))


def bounds(constraints: Iterable[Any]) -> list[str]:
    """The words for the constraints of an `Annotated` type; what is no constraint has none."""
    found = []
    for constraint in constraints:
        for kind, words in RANGES:
            if isinstance(constraint, kind) and BEYOND not in vars_of(constraint).values():
                found.append(words.format(**vars_of(constraint)))
        if isinstance(constraint, Predicate):
            test: Callable[..., object] = constraint.func
            found.append(test.__doc__ or test.__name__)
        if isinstance(constraint, MinLen) and constraint.min_length > 0:
            found.append("not empty")
        if isinstance(constraint, MaxLen) and constraint.max_length == 0:
            found.append("empty")
    return found


def vars_of(constraint: Any) -> dict[str, Any]:
    return {name: getattr(constraint, name) for name in constraint.__dataclass_fields__}
