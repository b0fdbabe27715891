"""Is a typed answer right? Pure functions of the text and the right answer."""
import re
from math import isclose
from numbers import Real

TERM = re.compile(r"(?<![\w.])([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(%)?", re.I)
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
WORDS = {"yes": True, "true": True, "no": False, "false": False}


def plain(answer: object) -> object:
    """An answer in Python's own types: an array or a tensor becomes a number or a tuple of them."""
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
        return tuple(answer) if isinstance(answer, list) else answer
    return answer


def written(answer: object) -> str:
    """An answer as a reader would write it: `yes`, `0.63`, `3, 9`; a list, of which each is right, as `3 or 9`."""
    answer = plain(answer)
    if isinstance(answer, (list, tuple, set)):
        joint = " or " if isinstance(answer, list) else ", "
        return joint.join(map(written, sorted(answer) if isinstance(answer, set) else answer))
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    return f"{answer:.4g}" if isinstance(answer, float) else str(answer)


def bare(text: str) -> str:
    """A text without capitals, quotes and punctuation."""
    return " ".join(word.strip(".") for word in re.sub(r"[^\w%.+-]", " ", text.casefold()).split())


def readings(text: str) -> list[list[set[float]]]:
    """The numbers of a text, once for each way to read its commas: as points, as gaps, between thousands. A number with
    a percent sign may stand for itself or for its hundredth."""
    text = text.replace("−", "-")
    ways = dict.fromkeys([re.sub(r"(?<=\d),(?=\d)", ".", text), text.replace(",", " "), THOUSANDS.sub("", text)])
    return [[{float(number), float(number) / 100} if percent else {float(number)}
             for number, percent in TERM.findall(way)] for way in ways]


def judge(text: str, answer: object, within: float = 0) -> bool | str:
    """Is the text the answer? If it cannot be read as one: a sentence that asks for what is missing.

    answer: yes or no (a bool), a number, right within `within`, a text, a tuple of numbers or texts, a set of them, in
    any order, or a list, of which each is right.
    """
    answer = plain(answer)
    if isinstance(answer, list):
        found = [judge(text, each, within) for each in answer]
        return True in found or (False not in found and found[0])
    if isinstance(answer, bool):
        return WORDS[bare(text)] == answer if bare(text) in WORDS else "Please answer yes or no."
    ordered, several = not isinstance(answer, set), isinstance(answer, (tuple, set))
    parts = list(answer) if several else [answer]
    if not all(isinstance(part, Real) for part in parts):
        typed, parts = (list(map(bare, some)) for some in (re.split("[,;]", text) if several else [text], parts))
        return typed == parts if ordered else sorted(typed) == sorted(parts)
    ways = readings(text)
    if not any(ways):
        return f"Please type {'numbers' if several else 'a number'}, such as 12, 0.4 or 40%."
    fit = [numbers if ordered else sorted(numbers, key=max) for numbers in ways if len(numbers) == len(parts)]
    if not fit and ordered:
        return f"Please type {len(parts)} numbers." if several else "Please type one number alone."
    if any(all(any(isclose(value, part, abs_tol=within + 1e-12) for value in number)
               for number, part in zip(numbers, parts if ordered else sorted(parts))) for numbers in fit):
        return True
    if not several and 0 < answer < 1 and "%" not in text and judge(f"{text}%", answer, within) is True:
        return "Is that in percent? Then type the sign too, as in 40%."
    return False
