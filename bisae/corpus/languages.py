"""Language codes: one form of each (BCP 47), by which all that is kept by language is named and looked up.

`jpn`, `JA`, `ja_JP` and `Japanese` are `ja`; `cmn` and `zh-Hans` are `zh`, `zh-TW` is not. Script and region are
left out where the language alone is taken to have them (CLDR's likely subtags), and kept where they tell it from
another.
A name that is no code stays as it is: nothing is then known of the language, so whatever needs to know is refused.
"""

from collections.abc import Iterable
from functools import cache

NAMES = {"en": "English", "ja": "Japanese"}  # of classes of features; other languages go by their code
BY_NAME = {name.lower(): code for code, name in NAMES.items()}
WORDS = ("all", "aligned", "bi", "dead", "mixed", "none")  # of tables and kinds; all and bi are codes too
TELL = ("territory", "script")


@cache
def code_of(name: object) -> str:
    """The one form of a language's code or name; ValueError for what can be none."""
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
    """The codes of several languages; ValueError also for two names of one."""
    found: dict[str, object] = {}
    for name in names:
        if (code := code_of(name)) in found:
            raise ValueError(f"{found[code]!r} and {name!r} are one language, {code}")
        found[code] = name
    return tuple(found)


def plain_of(code: str) -> str:
    """The language alone, if it is written as it is elsewhere: `en` for en-GB, but not `ja` for ja-Latn."""
    language = code.partition("-")[0]
    return language if language != "x" and script_of(language) == script_of(code) else code


def script_of(code: str) -> str | None:
    """The script a language is written in, by its ISO 15924 name (Latn, Jpan, Hans ...); None where it is not known."""
    import langcodes

    if _shortest(code) is None:
        return None
    tag = langcodes.Language.get(code)
    private = tag.language is None or tag.language.startswith("x-") or "qaa" <= tag.language <= "qtz"
    known = not private and tag.language not in ("mul", "und", "mis", "zxx")
    return (tag.maximize().script if known else tag.script) or None
