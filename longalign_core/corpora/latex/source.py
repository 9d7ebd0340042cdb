"""A stack of LaTeX source texts that is read like one text: files, and what macros stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_WORK = 32 << 20
"""Characters that may be looked at and written for a paper; beyond it its macros unfold without an end."""
_WORK_OF_CONTROL = 32
_BLANK = re.compile(r"(?:[ \t]|%[^\n]*\n[ \t]*)*(?:\n[ \t]*(?!\s*\n))?(?:[ \t]|%[^\n]*\n[ \t]*)*")
_BRACES = re.compile(r"\\.|[{}]|%[^\n]*", re.S)
_RAW_BRACES = re.compile(r"\\.|[{}]", re.S)
_BRACKETS = re.compile(r"\\.|[{}\]]|%[^\n]*", re.S)
_CONTROL = re.compile(r"\\(?:[A-Za-z]+|.)", re.S)
_CONTROL_AT = re.compile(r"\\(?:[A-Za-z@]+|.)", re.S)


class EndlessMacrosError(Exception):
    """A paper's macros unfold to more than is read."""


@dataclass(slots=True)
class Frame:
    """One text of the stack, and how far it has been read.

    Attributes:
        text: LaTeX source.
        depth: How many macros lie between it and the author's own text.
        file: Path of the file where it is one.
        at: Where reading goes on.
    """

    text: str
    depth: int
    file: str | None = None
    at: int = 0


class LatexSource:
    """Reads from the top of the stack. Arguments may lie in the text below, as TeX allows."""

    def __init__(self, max_work: int = MAX_WORK) -> None:
        """Set up.

        Args:
            max_work: Characters after which `EndlessMacrosError` is raised.
        """
        self.frames: list[Frame] = []
        self.at_is_letter = False
        self.work_left = max_work

    def push(self, text: str, *, depth: int = 0, file: str | None = None) -> None:
        """Read a text before what is left.

        Raises:
            EndlessMacrosError: See `spend`.
        """
        self.spend(len(text) + 1)
        self.frames.append(Frame(text, depth, file))

    def top(self) -> Frame | None:
        """The text that is read; None at the end of all."""
        while self.frames and self.frames[-1].at >= len(self.frames[-1].text):
            self.frames.pop()
        return self.frames[-1] if self.frames else None

    def drop_file(self) -> None:
        """Stop reading the innermost file."""
        while self.frames and self.frames.pop().file is None:
            pass

    def peek(self) -> str:
        """The next character; empty at the end."""
        frame = self.top()
        return frame.text[frame.at] if frame else ""

    def skip_blanks(self) -> None:
        """Pass over spaces, comments and one line end, but not over an empty line."""
        while (frame := self.top()) is not None:
            match = _BLANK.match(frame.text, frame.at)
            assert match is not None, "the pattern matches nothing at least"
            self.spend(match.end() - frame.at)
            frame.at = match.end()
            if frame.at < len(frame.text):
                return

    def star(self) -> None:
        """Pass over a star that comes next."""
        self.skip_blanks()
        frame = self.top()
        if frame is not None and frame.text[frame.at] == "*":
            frame.at += 1

    def control(self) -> str | None:
        """A control sequence that comes next, without its backslash; None where none does."""
        frame = self.top()
        pattern = _CONTROL_AT if self.at_is_letter else _CONTROL
        match = pattern.match(frame.text, frame.at) if frame else None
        if frame is None or match is None:
            return None
        frame.at = match.end()
        self.spend(_WORK_OF_CONTROL)
        return match[0][1:]

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """What comes next, where it has this form."""
        frame = self.top()
        found = pattern.match(frame.text, frame.at) if frame else None
        if frame is not None and found is not None:
            frame.at = found.end()
        return found

    def until(self, end: str) -> str:
        """All up to `end`, which is passed over; the rest of the text where it never comes."""
        frame = self.top()
        if frame is None:
            return ""
        start, stop = frame.at, frame.text.find(end, frame.at)
        frame.at = len(frame.text) if stop < 0 else stop + len(end)
        return frame.text[start : len(frame.text) if stop < 0 else stop]

    def argument(self) -> str:
        """A macro's argument: a group without its braces, a control sequence or a character."""
        self.skip_blanks()
        frame = self.top()
        if frame is None:
            return ""
        if frame.text[frame.at] == "{":
            return self._closed(_BRACES, "}")
        control = self.control()
        if control is not None:
            return f"\\{control}"
        frame.at += 1
        return frame.text[frame.at - 1]

    def group(self) -> str | None:
        """A group in braces that comes next; None where none does."""
        self.skip_blanks()
        return self._closed(_BRACES, "}") if self.peek() == "{" else None

    def raw_group(self) -> str | None:
        """A group in braces that comes next, in which `%` is a sign like any other; None where none does."""
        self.skip_blanks()
        return self._closed(_RAW_BRACES, "}") if self.peek() == "{" else None

    def optional(self) -> str | None:
        """An argument in brackets that comes next; None where none does."""
        frame = self.top()
        start = frame.at if frame else 0
        self.skip_blanks()
        if self.peek() == "[":
            return self._closed(_BRACKETS, "]")
        if frame is not None and frame is self.top():
            frame.at = start
        return None

    def _closed(self, pattern: re.Pattern[str], close: str) -> str:
        """What stands between an opening sign that comes next and its closing one."""
        frame = self.top()
        assert frame is not None, "asked for what stands in brackets at the end of the text"
        start = frame.at + 1
        depth = 0
        for found in pattern.finditer(frame.text, start):
            sign = found[0]
            if sign == close and depth == 0:
                self.spend(found.end() - start)
                frame.at = found.end()
                return frame.text[start : found.start()]
            depth += (sign == "{") - (sign == "}" and depth > 0)
        # Never closed: the sign stands for itself.
        self.spend(len(frame.text) - start)
        frame.at = start
        return ""

    def spend(self, num_characters: int) -> None:
        """Tell of characters that are looked at or written.

        Raises:
            EndlessMacrosError: There were more than any paper takes.
        """
        self.work_left -= num_characters
        if self.work_left < 0:
            raise EndlessMacrosError
