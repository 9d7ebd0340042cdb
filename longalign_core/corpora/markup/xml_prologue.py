"""What stands before the root element of an XML file: whether the file may be parsed at all."""

from __future__ import annotations

from xml.parsers import expat

HEAD_BYTES = 64 << 10
"""How much of a file is looked at for its root element."""


class _EnoughError(Exception):
    """Ends the parsing of a prologue."""


def why_refused(head: bytes, root: str) -> str | None:
    """Why an XML file is not parsed; None when nothing speaks against it.

    A document type can only be declared before the root element. No dump has one, and entities
    defined there could unfold to any size or name other files.

    Args:
        head: Its first bytes, `HEAD_BYTES` of them unless it is shorter.
        root: Name of the element that it must consist of, whatever the namespace.
    """
    found: list[str] = []

    def declared(*_: object) -> None:
        found.append("it declares a document type, which no dump does; entities are not unfolded")
        raise _EnoughError

    def started(name: str, _: object) -> None:
        if name.rpartition("}")[2] != root:
            found.append(f"its root element is <{name.rpartition('}')[2][:80]}>, not <{root}>")
        raise _EnoughError

    parser = expat.ParserCreate(namespace_separator="}")
    parser.StartDoctypeDeclHandler = declared
    parser.StartElementHandler = started
    try:
        parser.Parse(head, False)
    except _EnoughError:
        return found[0] if found else None
    except expat.ExpatError:
        return "it is not XML"
    return f"no root element in its first {len(head)} bytes"
