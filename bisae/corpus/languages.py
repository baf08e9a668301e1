"""Language codes: one form for each language (BCP 47), used for all names, files and look-ups.

`jpn`, `JA`, `ja_JP` and `Japanese` are `ja`; `cmn` and `zh-Hans` are `zh`, `zh-TW` is not. Script and region are
left out where the language alone is taken to have them (CLDR's likely subtags), and kept where they tell it from
another.
A name that is no code stays as it is. Nothing is known about such a language: a metric that needs to know is refused.
"""

from collections.abc import Iterable
from functools import cache

NAMES = {"en": "English", "ja": "Japanese"}  # of classes of features; other languages go by their code
BY_NAME = {name.lower(): code for code, name in NAMES.items()}
WORDS = ("all", "aligned", "bi", "dead", "mixed", "none")  # of tables and kinds; all and bi are codes too
TELL = ("territory", "script")


@cache
def code_of(name: object) -> str:
    """Return the one form of a language's code or name. Raises ValueError if `name` cannot be a language."""
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{name!r} is no language; one that YAML reads as something else, like `no`, needs quotes")
    code = BY_NAME.get(name.lower()) or _shortest(name) or name
    if code.lower() in WORDS:
        raise ValueError(f"{name!r} means something else in bisae; give the language another name (x-{code.lower()})")
    return code


def _shortest(name: str) -> str | None:
    import langcodes

    try:
        code: str = langcodes.standardize_tag(name, macro=True)
    except langcodes.tag_parser.LanguageTagError:
        return None
    if not langcodes.tag_is_valid(code):
        return None
    tag = langcodes.Language.get(code)
    whole, parts = tag.maximize(), tag.to_dict()
    for dropped in (TELL, TELL[:1], TELL[1:]) if tag.language else ():
        shorter = langcodes.Language.make(**{key: part for key, part in parts.items() if key not in dropped})
        if shorter.maximize() == whole:
            return str(shorter.to_tag())
    return code


def codes_of(names: Iterable[object]) -> tuple[str, ...]:
    """Return the codes of several languages. Raises ValueError as `code_of`, and if two names mean one language."""
    names_by_code: dict[str, object] = {}
    for name in names:
        if (code := code_of(name)) in names_by_code:
            raise ValueError(f"{names_by_code[code]!r} and {name!r} are one language, {code}")
        names_by_code[code] = name
    return tuple(names_by_code)


def plain_of(code: str) -> str:
    """Drop the region if the script stays the same: `en` for en-GB, but ja-Latn stays, since `ja` is Jpan."""
    language = code.partition("-")[0]
    return language if language != "x" and script_of(language) == script_of(code) else code


def script_of(code: str) -> str | None:
    """Return the script of a language by its ISO 15924 name (Latn, Jpan, Hans ...); None if it is not known."""
    import langcodes

    if _shortest(code) is None:
        return None
    tag = langcodes.Language.get(code)
    private = tag.language is None or tag.language.startswith("x-") or "qaa" <= tag.language <= "qtz"
    known = not private and tag.language not in ("mul", "und", "mis", "zxx")
    return (tag.maximize().script if known else tag.script) or None
