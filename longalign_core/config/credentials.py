"""What credentials look like, so that none gets into a recipe, a URL, a manifest or a log."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

# Keys of the usual services: a value like these is never accepted and never repeated.
SECRET = re.compile(r"\b(sk-[\w-]{8,}|hf_\w{8,}|AKIA\w{12,}|gh[pousr]_\w{20,}|xox[bp]-[\w-]{10,})")
SECRET_NAME = re.compile(r"(api_?key|secret|password|access_?key|auth_?token|credential)", re.IGNORECASE)
_SECRET_QUERY = ("key", "token", "secret", "password", "signature", "sig")


def refuse_secret_in_url(url: str, what: str) -> None:
    """Refuse a URL that carries credentials, without repeating it.

    Raises:
        ValueError: It has a user part, a fragment, a query parameter named like a credential, or a
            part that looks like a key.
    """
    parts = urlsplit(url)
    names = [name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    named = any(secret in name for name in names for secret in _SECRET_QUERY)
    if "@" in parts.netloc or parts.fragment or named or SECRET.search(url):
        raise ValueError(
            f"{what} carries a secret inside its URL; give the URL without it and put the key into the "
            "environment (LONGALIGN_<ROLE>_API_KEY for models, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3)"
        )
