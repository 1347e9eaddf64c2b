"""The errors that a user can cause and mend: each says what was expected, found, and a way out."""


class Unim2Error(Exception):
    """Bad input, reported to the user without a traceback.

    Args:
        what: one sentence on what went wrong.
        expected: what was looked for.
        found: what was there instead.
        remedy: what the user can do about it.
    """

    def __init__(
        self, what: str, *, expected: str = "", found: str = "", remedy: str = ""
    ) -> None:
        self.what = what
        self.expected = expected
        self.found = found
        self.remedy = remedy
        lines = [what]
        if expected:
            lines.append(f"  expected: {expected}")
        if found:
            lines.append(f"  found:    {found}")
        if remedy:
            lines.append(f"  to do:    {remedy}")
        super().__init__("\n".join(lines))


class DecodeError(Unim2Error):
    """A sensor message whose bytes do not say what its fields claim."""


class BagError(Unim2Error):
    """A bag that cannot be opened, read or written."""


class RigError(Unim2Error):
    """A rig file that is malformed or does not fit the bag, the robot or the model."""


class ModelError(Unim2Error):
    """A model bundle, a checkpoint or an engine that cannot be used."""


class DataError(Unim2Error):
    """A data set whose description or files cannot be used."""


def cause(error: Exception) -> str:
    """What a library's exception says, in one line: some begin with where they were raised.

    Of the operating system's its own words, of YAML's the place and what is wrong there.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    mark, problem = (getattr(error, name, None) for name in ("problem_mark", "problem"))
    if mark is not None and problem:
        return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith("Exception from ")]
    return (telling or lines or [""])[0] or type(error).__name__
