"""Is a typed answer right? Pure functions: from text and the right answer to True, False, or a sentence that says what
cannot be read."""
import re
from math import isclose
from numbers import Real

YES, NO = ("yes", "y", "true", "right", "1"), ("no", "n", "false", "wrong", "0")
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
TERM = re.compile(rf"(?<![\w.])({NUMBER})(?:\s*/\s*({NUMBER}))?\s*(%)?", re.I)


def plain(answer: object) -> object:
    """An answer in Python's own types: a tensor or an array of one number becomes it, a longer one a tuple."""
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    return tuple(answer) if isinstance(answer, range) else answer


def written(answer: object) -> str:
    """An answer as a reader would write it: `yes`, `0.63`, `3, 9`; of a list, in which each is right, `3 or 9`."""
    answer = plain(answer)
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    if isinstance(answer, (list, tuple, set)):
        joint = " or " if isinstance(answer, list) else ", "
        return joint.join(map(written, sorted(answer) if isinstance(answer, set) else answer))
    return f"{answer:.4g}" if isinstance(answer, float) else str(answer)


def bare(text: object) -> str:
    """A text without capitals, quotes, commas and full stops."""
    return " ".join(word.strip(".") for word in re.sub(r"[^\w%.+-]", " ", str(text).casefold()).split())


def readings(text: str) -> list[list[set[float]]]:
    """The numbers of a text, for each way to read its commas: as points, between numbers, between thousands. A number
    with a percent sign may stand for itself or its hundredth."""
    text, thousands = text.replace("−", "-"), r"(?<=\d),(?=\d{3}\b)"
    ways = [re.sub(r"(?<=\d),(?=\d)", ".", text), text.replace(",", " ")]
    ways += [re.sub(thousands, "", text)] if re.search(rf"\b[1-9]\d{{0,2}}{thousands}", text) else []
    found = []
    for way in ways:
        terms = [(float(above) / (float(below or 1) or float("nan")), percent)
                 for above, below, percent in TERM.findall(way)]
        found.append([{value, value / 100} if percent else {value} for value, percent in terms])
    return found


def judge(text: str, answer: object, within: float = 0) -> bool | str:
    """Is the text the answer? A sentence if it cannot be read as one.

    answer: bool, number (right within `within`), text, a tuple of numbers or of texts in order, a set of them in any
    order, or a list, in which each is right.
    """
    answer = plain(answer)
    if isinstance(answer, list):
        found = [judge(text, each, within) for each in answer]
        return next((each for each in (True, False) if each in found), found[0])
    if isinstance(answer, bool):
        word = bare(text)
        return (word in YES) == answer if word in YES + NO else "Please answer yes or no."
    parts = answer if isinstance(answer, (tuple, set)) else (answer,)
    if not all(isinstance(part, Real) for part in parts):
        typed = [*map(bare, re.split(r"[,;]", text) if parts is answer else [text])]
        right = [*map(bare, parts)]
        return sorted(typed) == sorted(right) if isinstance(answer, set) else typed == right
    return judge_numbers(text, parts, within)


def judge_numbers(text: str, answer: tuple | set, within: float) -> bool | str:
    def right(numbers: list[set[float]]) -> bool:
        return all(any(isclose(value, part, rel_tol=1e-9, abs_tol=within + 1e-12) for value in number)
                   for number, part in zip(numbers, parts))

    ordered, ways = isinstance(answer, tuple), readings(text)
    parts = answer if ordered else sorted(answer)
    ways = [numbers if ordered else sorted(numbers, key=max) for numbers in ways]
    ways, any_number = [numbers for numbers in ways if len(numbers) == len(parts)], any(ways)
    if not any_number:
        return f"Please type {'a number' if len(parts) == 1 else 'numbers'}, such as 12, 0.4 or 40%."
    if not ways and ordered:
        return "Please type one number alone." if len(parts) == 1 else f"Please type {len(parts)} numbers."
    if any(map(right, ways)):
        return True
    hundredth = [[{value / 100 for value in number} for number in numbers] for numbers in ways]
    if len(parts) == 1 and 0 < parts[0] < 1 and any(map(right, hundredth)):
        return "Is that in percent? Then type the sign too, as in 40%."
    return False
