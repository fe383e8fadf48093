"""Keys and passwords in text files; a finding never repeats the secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from purpleteam.core.records import Finding
from purpleteam.scan.scanner import SCANNERS, Rule, ScanResult, scan_files

RULE = Rule(
    *("PT020", "high", "CWE-798"),
    fix="revoke it, and read it from the environment or a secret store",
    confidence="medium",
)
MAX_BYTES = 1 << 20
TEXT = frozenset({
    ".py", ".pyw", ".ipynb", ".js", ".sh", ".html", ".md", ".txt", ".tf", ".env", ".yaml", ".yml",
    ".json", ".toml", ".ini", ".cfg", ".conf", ".properties", ".xml", ".pem", ".key",
})  # fmt: skip
NAMES = frozenset({".env", "Dockerfile", "Makefile", ".netrc", ".npmrc", ".pypirc"})
PATTERNS = {
    "AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "GitHub token": re.compile(r"\b(?:gh[pousr]_[0-9A-Za-z]{36}|github_pat_\w{60,})\b"),
    "GitLab token": re.compile(r"\bglpat-[\w-]{20,}"),
    "Slack token": re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{10,}"),
    "Google API key": re.compile(r"\bAIza[\w-]{35}\b"),
    "Hugging Face token": re.compile(r"\bhf_[0-9A-Za-z]{30,}\b"),
    "OpenAI-style key": re.compile(r"\bsk-(?:proj-|ant-)?[\w-]{32,}\b"),
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"),
    "password in an address": re.compile(r"\b\w+://[^\s/:@{}$<]+:[^\s/:@{}$<*]{4,}@[\w.-]+"),
    "password in the source": re.compile(
        r"""(?ix)
        \b \w{0,40}
        (?:password|passwd|secret|api_?key|access_?key|auth_?token|access_?token)
        \w{0,40}
        ["']? \s* [:=] \s* ["'] (?P<value> [^"'\s{}$<>]{8,} ) ["']
        """
    ),
}
HARMLESS = re.compile(
    r"(?i)example|placeholder|change|your|dummy|xxxx|\*\*\*|\.\.\.|none|null|test"
)


@SCANNERS.register("secrets")
def scan_for_secrets(path: Path) -> ScanResult:
    """Return the places under `path` where something looks like a key or a password."""
    return scan_files(path, _look)


def _look(file: Path, name: str) -> ScanResult | None:
    if file.suffix.lower() not in TEXT and file.name not in NAMES:
        return None
    if file.stat().st_size > MAX_BYTES:
        return ScanResult(skipped=((name, f"secrets: larger than {MAX_BYTES} bytes"),))
    text = file.read_text(encoding="utf-8", errors="replace")
    return ScanResult(findings=tuple(_secrets(name, text)), scanned=(name,))


def _secrets(name: str, text: str) -> Iterator[Finding]:
    for number, line in enumerate(text.splitlines(), 1):
        for what, pattern in PATTERNS.items():
            if (match := pattern.search(line)) is None:
                continue
            value = match.groupdict().get("value")  # of any password; maybe a placeholder
            if value is not None and (HARMLESS.search(value) or len(set(value)) < 5):
                continue
            yield RULE.finding("secrets", f"{what} in plain text", path=name, line=number)
            break
