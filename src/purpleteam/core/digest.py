"""Names for content: SHA-256 digests and the canonical JSON they are taken of."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> str:
    """Return the one spelling of `value` as JSON: sorted keys, no spaces, no NaN."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    # A file name that is not UTF-8 holds lone surrogates, which only an escape can write.
    return re.sub(r"[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def sha256_bytes(*parts: bytes) -> str:
    """Return `sha256:<hex>` of the parts, one after the other."""
    return sha256_each(parts)


def sha256_each(parts: Iterable[bytes | memoryview]) -> str:
    """Return the same of parts that need not be there all at once."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return f"sha256:{digest.hexdigest()}"


def sha256_file(path: Path) -> str:
    """Return `sha256:<hex>` of a file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def short_id(prefix: str, value: Any) -> str:
    """Return a short content hash of a JSON value, such as `m-3f2a09c1d2`."""
    return f"{prefix}-{sha256_bytes(canonical_json(value).encode())[7:17]}"
