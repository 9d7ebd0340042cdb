"""Personal data in texts: addresses and numbers replaced by placeholders.

All expressions take time linear in the text: every repetition is bounded, and no two ways of matching
the same characters are tried.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

Kind = Literal["email", "ip_address", "phone"]

# Each begins with the characters it may begin with and looks behind them only then: many times faster
# than looking behind at every character of a text.
_EMAIL = re.compile(
    r"[A-Za-z0-9_%+-](?<![\w.+%-].)[A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9@])",
    re.S,
)
_IPV4 = re.compile(r"\d(?<![\w.-]\d)\d{0,2}(?:\.\d{1,3}){3}(?![\w-]|\.\d)", re.A)
_IPV6 = re.compile(r"[23](?<![\w:.][23])[0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w:])", re.A)
_VERSION = re.compile(r"(?:version|release|build|ver\.)\s{0,3}$", re.I)
_PHONES = (
    re.compile(r"\+(?<![\w+.]\+)[1-9](?:[ .()/-]{0,2}\d){7,14}(?!\w|\.\d)", re.A),
    re.compile(r"\((?<![\w+.(-]\()\d{3}\) ?\d{3}-\d{4}(?![\w-])", re.A),
    re.compile(r"\d(?<![\w+./=-]\d)\d\d-\d{3}-\d{4}(?![\w-])", re.A),
    re.compile(r"1(?<![\w+./=-]1)[3-9]\d[ -]?\d{4}[ -]?\d{4}(?![\w-]|\.\d)", re.A),
)
"""International, North American with and without brackets, Chinese mobile."""


def scrub_personal_data(text: str, kinds: Sequence[Kind]) -> str:
    """Replace personal data by `[email]`, `[ip_address]` and `[phone]`; everything else stays as it is.

    Addresses of private, loopback and documentation networks stay: they lead to nobody. So do four
    numbers that look like a section's. Numbers count as
    phones in their international form, in North America's usual ones and as Chinese mobile numbers;
    national forms elsewhere look like too much else.
    """
    for kind in kinds:
        text = _SCRUBBERS[kind](text)
    return text


def _scrub_emails(text: str) -> str:
    return _EMAIL.sub("[email]", text) if "@" in text else text


def _scrub_ip_addresses(text: str) -> str:
    text = _IPV4.sub(_ipv4, text)
    return _IPV6.sub(_ipv6, text) if ":" in text else text


def _scrub_phones(text: str) -> str:
    for phone in _PHONES:
        text = phone.sub("[phone]", text)
    return text


def _ipv4(match: re.Match[str]) -> str:
    """Four small numbers are a section or a version far more often than an address."""
    octets = match[0].split(".")
    looks_numbered = max(map(len, octets)) < 3 and sum(len(octet) > 1 for octet in octets) < 3
    if looks_numbered or _VERSION.search(match.string, max(match.start() - 12, 0), match.start()):
        return match[0]
    try:
        address = ipaddress.IPv4Address(match[0])
    except ValueError:
        return match[0]
    return "[ip_address]" if address.is_global and not address.is_multicast else match[0]


def _ipv6(match: re.Match[str]) -> str:
    address = match[0].removesuffix(":")
    try:
        is_global = ipaddress.IPv6Address(address).is_global
    except ValueError:
        return match[0]
    return "[ip_address]" + match[0][len(address) :] if is_global else match[0]


_SCRUBBERS: Mapping[Kind, Callable[[str], str]] = {
    "email": _scrub_emails,
    "ip_address": _scrub_ip_addresses,
    "phone": _scrub_phones,
}
