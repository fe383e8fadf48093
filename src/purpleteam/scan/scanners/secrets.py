"""Keys and passwords in text files; a finding never repeats the secret."""

import re
from pathlib import Path

from purpleteam.scan.scanner import Rule, ScanResult, file_scanner

REMEDY = "revoke it, and read it from the environment or a secret store"
RULE = Rule("PT020", "high", "CWE-798", REMEDY, "medium")
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


@file_scanner("secrets")
def scan_for_secrets(file: Path, name: str) -> ScanResult | None:
    """Return the lines of a text file that look like a key or a password."""
    if file.suffix.lower() not in TEXT and file.name not in NAMES:
        return None
    if file.stat().st_size > MAX_BYTES:
        return ScanResult(skipped=((name, f"secrets: larger than {MAX_BYTES} bytes"),))
    findings = []
    text = file.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        for secret, pattern in PATTERNS.items():
            if (match := pattern.search(line)) is None:
                continue
            value = match.groupdict().get("value")  # of any password; maybe a placeholder
            if value is not None and (HARMLESS.search(value) or len(set(value)) < 5):
                continue
            message = f"{secret} in plain text"
            findings.append(RULE.finding("secrets", message, path=name, line=number))
            break
    return ScanResult(findings=tuple(findings), scanned=(name,))
