"""Keys and passwords in text; a finding never repeats the secret.

Tokens are told by the forms that their makers document (GitHub, GitLab, Slack, Stripe, AWS, Google,
Azure, npm, PyPI and others), JSON web tokens by RFC 7519, basic authentication by RFC 7617, keys by
their headers (RFC 7468). Of other values the name tells, by its words, and the value's entropy.
"""

import base64
import binascii
import bisect
import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.records import Finding
from purpleteam.scan.scanner import Rule, ScanResult, file_scanner, is_code
from purpleteam.scan.text import LINE_ENDS, decode, read_cells

REMEDY = "revoke it, and read it from the environment or a secret store"
RULE = Rule("PT020", "high", "CWE-798", REMEDY, "medium")
MAX_BYTES = 4 << 20
SHOWN = 40  # characters of a line that are looked at beside a match
TOKENS: dict[str, tuple[str, str]] = {  # what it is: what it must hold, one of these, and its form
    "AWS access key": ("AKIA ASIA ABIA ACCA", r"\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b"),
    "GitHub token": ("ghp_ gho_ ghu_ ghs_ ghr_", r"\bgh[pousr]_[0-9A-Za-z]{36,251}\b"),
    "GitHub fine-grained token": ("github_pat_", r"\bgithub_pat_\w{60,}\b"),
    "GitLab token": ("glpat- glptt- gldt- glrt- glcbt- glsoat- glft- glimt- glagent-",
        r"\bgl(?:pat|ptt|dt|rt|cbt|soat|ft|imt|agent)-[\w.-]{20,}"),
    "Slack token": ("xox", r"\bxox[abeoprs](?:\.xox[bp])?-[0-9A-Za-z-]{10,}"),
    "Slack app token": ("xapp-", r"\bxapp-\d-[0-9A-Z]+-\d+-[0-9a-z]{20,}"),
    "Slack web hook": ("hooks.slack.com", r"hooks\.slack\.com/services/T\w+/B\w+/\w{16,}"),
    "Discord web hook": ("/api/webhooks/", r"discord(?:app)?\.com/api/webhooks/\d{15,}/[\w-]{40,}"),
    "Google API key": ("AIza", r"\bAIza[\w-]{35}"),
    "Google OAuth secret": ("GOCSPX-", r"\bGOCSPX-[\w-]{28}"),
    "Google OAuth token": ("ya29.", r"\bya29\.[\w-]{30,}"),
    "Hugging Face token": ("hf_ api_org_", r"\b(?:hf|api_org)_[0-9A-Za-z]{30,}\b"),
    "OpenAI-style key": ("sk-", r"\bsk-(?:proj-|ant-|svcacct-|or-v1-|lf-)?[\w-]{32,}"),
    "Stripe key": ("k_live_ k_test_", r"\b[sr]k_(?:live|test)_[0-9A-Za-z]{16,}\b"),
    "Stripe web hook secret": ("whsec_", r"\bwhsec_[0-9A-Za-z+/=]{24,}"),
    "Twilio key": ("SK", r"\bSK[0-9a-f]{32}\b"),
    "SendGrid key": ("SG.", r"\bSG\.[\w-]{16,}\.[\w-]{32,}"),
    "Mailgun key": ("key-", r"\bkey-[0-9a-f]{32}\b"),
    "Mailchimp key": ("-us", r"\b[0-9a-f]{32}-us\d{1,2}\b"),
    "npm token": ("npm_", r"\bnpm_[0-9A-Za-z]{36}\b"),
    "PyPI token": ("pypi-", r"\bpypi-AgE[\w-]{50,}"),
    "RubyGems token": ("rubygems_", r"\brubygems_[0-9a-f]{48}\b"),
    "crates.io token": ("cio", r"\bcio[0-9A-Za-z]{32}\b"),
    "Docker Hub token": ("dckr_", r"\bdckr_(?:pat|oat)_[\w-]{24,}"),
    "DigitalOcean token": ("dop_v1_ doo_v1_ dor_v1_", r"\bdo[opr]_v1_[0-9a-f]{64}\b"),
    "Databricks token": ("dapi", r"\bdapi[0-9a-f]{32}(?:-\d)?\b"),
    "HashiCorp Vault token": ("hvs. hvb. hvr.", r"\bhv[sbr]\.[\w-]{24,}"),
    "Terraform token": (".atlasv1.", r"\b[0-9A-Za-z]{14}\.atlasv1\.[\w=-]{60,}"),
    "Grafana token": ("glsa_ glc_", r"\bgl(?:sa|c)_[\w+/=]{32,}"),
    "New Relic key": ("NRAK- NRII- NRJS-", r"\bNR(?:AK|II|JS)-[0-9A-Za-z]{20,}\b"),
    "Replicate token": ("r8_", r"\br8_[0-9A-Za-z]{37}\b"),
    "Groq or xAI key": ("gsk_ xai-", r"\b(?:gsk|xai)[_-][0-9A-Za-z]{48,}\b"),
    "Shopify token": ("shpat_ shpca_ shppa_ shpss_", r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}\b"),
    "Telegram bot token": (":AA", r"\b\d{8,10}:AA[\w-]{33}\b"),
    "Azure storage key": ("AccountKey=", r"\bAccountKey=[0-9A-Za-z+/]{60,}={0,2}"),
    "Azure shared access key": ("AccessKey=", r"\bSharedAccessKey=[0-9A-Za-z+/]{40,}={0,2}"),
    "Azure signature": ("sig=", r"[?&]sig=[0-9A-Za-z%]{40,}"),
    "Linear key": ("lin_api_", r"\blin_api_[0-9A-Za-z]{40}\b"),
    "Notion token": ("ntn_", r"\bntn_[0-9A-Za-z]{40,}\b"),
    "JSON web token": ("eyJ", r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}"),
    "age key": ("AGE-SECRET-KEY-1", r"\bAGE-SECRET-KEY-1[0-9A-Z]{50,}"),
    "private key": ("-----BEGIN",
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?=\s|\\n|$)"),
    "PuTTY private key": ("PuTTY-User-Key-File", r"PuTTY-User-Key-File-\d:"),
}  # fmt: skip
FORMS = {name: (held.split(), re.compile(form, re.M)) for name, (held, form) in TOKENS.items()}
ADDRESS = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>{}]{0,80}:(?P<value>[^\s/@\"'<>{}\[\]]{3,200})@"
    r"(?P<host>[\w.\[\]-]+)",
    re.I,
)
AUTHORISATION = re.compile(
    r"\bAuthorization[\"']?\s*[:=,]\s*f?[\"']?(?P<kind>Bearer|Basic|Token)\s+"
    r"(?P<value>[\w.~+/=-]{8,400})",
    re.I,
)
BESIDE: dict[str, tuple[str, str]] = {  # what it is: what must be there, in small, and its form
    "key in a header": ("x-", r"\bX-[\w-]*(?:Key|Token|Secret)[\"']?[ \t]*[:,=][ \t]*[\"']?"
        r"(?P<value>[\w.~+/=-]{12,200})"),
    "key in a query": ("key= token=",
        r"[?&](?:api_?key|access_token|auth_token|token)=(?P<value>[\w.~-]{16,200})"),
    "password of a connection": ("password= pwd=",
        r"[;\"'](?:password|pwd)=(?P<value>[^;\"'\s]{6,100})(?=[;\"'])"),
    "password in an element": ("</", r"<[\w.:-]*(?:password|secret|api-?key|token)>"
        r"(?P<value>[^<\s]{6,200})</"),
    "password of a .netrc": ("machine",
        r"\bmachine\s+\S+\s+login\s+\S+\s+password\s+(?P<value>\S{4,200})"),
    "password of a .pgpass": (":", r"^[\w.*-]+:(?:\d+|\*):[\w*-]+:[\w*-]+:(?P<value>\S{4,200})$"),
    "password of a command": ("curl", r"\bcurl\b[^\n]{0,200}\s(?:-u|--user)[ =][\"']?[\w.@-]+:"
        r"(?P<value>[^\s\"'$]{4,100})"),
    "password of a log-in": ("login mysql sshpass --password=",
        r"(?:\b(?:docker|podman|helm)\b[^\n]{0,100}\slogin\b[^\n]{0,100}\s"
        r"(?:-p|--password)[ =]|\bmysql\w*\b[^\n]{0,100}\s-p|\bsshpass\s+-p\s?[\"']?"
        r"|\s--password=[\"']?)(?P<value>[^\s\"'$]{6,100})"),
    "password before a command": ("password=", r"(?:^|\benv[ \t]+)(?-i:[A-Z_]*PASSWORD)="
        r"(?P<value>[^\s\"'$,().]{6,100})(?=[ \t]+\w)"),
    "password of a request": ("auth login(", r"(?:\bauth\s*=\s*\(|BasicAuth\(|\.login\()\s*[\"']"
        r"[^\"'\n]{1,60}[\"']\s*,\s*[\"'](?P<value>[^\"'\n]{4,100})[\"']"),
    "secret of an image": ("password secret token api_key kaggle_key access_key",
        r"^[ \t]*(?:ENV|ARG)[ \t]+\w*(?:PASSWORD|SECRET|TOKEN|(?:API|KAGGLE|ACCESS)_KEY)\s+"
        r"(?P<value>\S{6,200})$"),
    "secret in an attribute": ('value=" value" value:',  # of XML, JSON, lists of variables in YAML
        r"(?-i:name|key)(?:=\"|\"\s?:\s?\"|: [\"']?)[\w.:-]{0,60}(?:password|secret|token|api"
        r"[-_]?key)[\"']?,?\s{1,40}\"?(?:value(?:=|\"\s?:\s?)\"|value: [\"']?)"
        r"(?P<value>[^\"'\s,}]{6,200})"),
    "secret that is defined": ("define( getenv( environ.get(",
        r"(?:define|getenv|environ\.get)\(\s*[\"']\w*(?:PASSWORD|SECRET|TOKEN|_KEY|SALT)[\"']\s*,"
        r"\s*[\"'](?P<value>(?=[^\"'\n]*\d)[^\"'\n]{6,200})[\"']"),
    "key of a log-in": ("login( wandb", r"(?:\blogin\([^)\n]{0,80}\bkey=|\bwandb\s+login\s+)[\"']?"
        r"(?P<value>[0-9a-z]{32,64})\b"),
    "password of a server": ("requirepass masterauth",
        r"(?:^|\s--)(?:requirepass|masterauth)\s+(?P<value>\S{6,200})$"),
}  # fmt: skip
SURROUNDINGS = {
    what: (held.split(), re.compile(form, re.I | re.M)) for what, (held, form) in BESIDE.items()
}
NAMED = re.compile(
    r"""(?x)
    (?<![\w.]) (?P<name> [A-Za-z_][\w.-]{0,80}+ ) (?P<close> ["']? ) (?: \] )? [ \t]*
    (?P<sign>:[ \t]*\w+[ \t]*= |:?= | [!=]==?(?=[ ]?["'][^"'\n]*\d) | [:=]>? |,[ ]default=) [ \t]*
    (?: [rbuf]{0,2} (?P<quote> ["'`] ) (?P<value> [^"'`\n]{4,400} ) (?P=quote)
      | (?P<bare> [^\s"'\#,;(){}\[\]<>$%&|`][^\s"',;(){}\[\]<>$`]{3,400}+ )
        (?= [ \t]* (?: \# | ,?[ \t]*$ ) ) )
    """,
    re.M,
)
HINTS = ("pass", "pwd", "secret", "token", "key", "cred", "auth", "salt")
WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
PASSWORDS = frozenset({"password", "passwd", "pwd", "passphrase", "passcode", "dbpass"})
SECRETS = frozenset({"secret", "token", "credential", "credentials", "apikey", "secretkey"})
SECRETS |= frozenset({"authtoken", "accesstoken", "accesskey", "privatekey", "apitoken"})
KEYS = frozenset({"api", "access", "private", "secret", "signing", "encryption", "auth", "account"})
KEYS |= frozenset({"master", "service", "client", "license", "storage", "webhook", "deploy", "jwt"})
KEYS |= frozenset({"kaggle", "openai", "subscription", "admin", "app", "comet", "wandb", "cohere"})
ABOUT = frozenset({  # a name that ends so is about a secret and holds none
    "name", "names", "file", "path", "url", "uri", "id", "ids", "count", "length", "len",
    "size", "limit", "field", "type", "ttl", "expiry", "expires", "header", "env", "var",
    "regex", "hint", "pattern", "policy", "prompt", "label", "class", "ref", "arn", "min",
    "max", "reset", "help", "input", "placeholder", "text", "message", "error", "title",
    "format", "prefix", "suffix", "endpoint", "index", "form", "view", "page", "link",
    "required", "strength", "store", "alias", "manager", "version", "provider", "algorithm",
    "hash", "digest", "dir", "folder", "kind", "tag",
})  # fmt: skip
BARE = frozenset({
    *(".env", ".yaml", ".yml", ".ini", ".cfg", ".conf", ".properties", ".tfvars", ".sh", ".toml"),
    *(".bash", ".zsh", ".txt", ".service", ".netrc", ".npmrc", ".pypirc", ".pgpass", ".cnf", ""),
    *(".my.cnf", ".s3cfg", ".boto", ".envrc", ".credentials", ".example", ".local", ".log"),
})  # fmt: skip
"""Kinds of file, by suffix, in which values stand without quotes."""
HARMLESS = re.compile(
    r"(?i)example|placeholder|change.?me|change.?this|replace|insert|\byour|[-_]here\b|dummy|redacted"
    r"|x{4,}|\*{3,}|\.{3}|^<|>$|\$\{|\{\{|%\(|^\$|^(?:test|foo|bar|todo|fake|sample|mock)s?\b"
    r"|^(?:none|null|true|false|undefined|string|str|bytes|optional|required|secret|password|passwd"
    r"|passphrase|token|pass|pwd|pw|user(?:name)?|api_?key|admin|root|hunter2|hidden|empty|changeit|value)\??$"
)
LOOKED_UP = re.compile(r"environ|getenv|secrets\.|process\.env|config\.|settings\.|vault|^[A-Z_]+$")
PLAIN_NAME = re.compile(r"^_*[A-Za-z]+(?:[ _./:-][A-Za-z]*)*$")
ADDRESS_OR_PATH = re.compile(
    r"^(?:[a-z]+://|/|\./|\.\./|~/|[A-Za-z]:\\)|^[\w.-]+\.(?:py|json|ya?ml|txt|pem|key|crt)$"
)
PERHAPS_PASSWORD, PERHAPS_KEY = 2.0, 3.0  # bits of entropy a character


@file_scanner("secrets")
def scan_for_secrets(file: Path, name: str) -> ScanResult | None:
    """Return the places in a text file, or in a notebook, that hold a key or a password."""
    notebook = file.suffix == ".ipynb"
    if file.stat().st_size > MAX_BYTES * (16 if notebook else 1):
        with file.open("rb") as opened:
            why = f"secrets: larger than {MAX_BYTES} bytes"
            binary = decode(opened.read(MAX_BYTES)) is None
        return None if binary else ScanResult(skipped=((name, why),))
    data = file.read_bytes()
    text = decode(data)
    if text is None and is_code(file):  # a zero byte keeps Python from it, and nobody else
        text = data.decode("utf-8", "replace")
    if text is None:
        return None
    bare = file.suffix.lower() in BARE or file.name.startswith((".env", "Dockerfile", ".git-cred"))
    parts: list[tuple[dict[str, object], str]] = [({}, text)]
    if notebook:
        try:
            parts = []
            for cell in read_cells(data):
                parts.append(({"cell": cell.number}, "\n".join(cell.lines)))
                parts.append(({"cell": cell.number, "output": True}, "\n".join(cell.outputs)))
        except ValueError:
            return ScanResult(skipped=((name, "secrets: no notebook that can be parsed"),))
    findings = [row for place, part in parts for row in _findings(part, name, place, bare)]
    return ScanResult(findings=tuple(findings), scanned=(name,))


def _findings(text: str, path: str, place: dict[str, object], bare: bool) -> Iterator[Finding]:
    """Yield a finding for each secret, in order of place; of two that overlap the first."""
    text, end = LINE_ENDS.sub("\n", text) if "\r" in text else text, 0
    found = sorted(_tokens(text) | _told(text, bare), key=lambda row: (row[0], -row[1]))
    breaks = [match.start() for match in re.finditer("\n", text)] if found else []
    for first, last, what in found:
        if first < end:
            continue
        end = last
        number = bisect.bisect(breaks, first) + 1
        begin = text.rfind("\n", 0, first) + 1
        around = text[begin:first] + "*" + text[last : last + SHOWN].partition("\n")[0]
        context = sha256_bytes(around.strip().encode("utf-8", "replace"))[7:23]  # without secret
        told = "output" if "output" in place else "text"
        where = {"path": path, "line": number, "context": context, **place}
        yield RULE.finding("secrets", f"{what} in plain {told}", **where)


def _tokens(text: str) -> set[tuple[int, int, str]]:
    """Return first and last place and kind of what has the form of a token."""
    words = "\n".join([word for word in text.split() if len(word) > 14 or "-----" in word])
    return {
        (match.start(), match.end(), what)
        for what, (held, form) in FORMS.items()
        if any(map(words.__contains__, held))  # shorter ones are none
        for match in form.finditer(text)
        if not re.search(r"(?i)example|[x*0]{8}|\.{3}", match[0])
    }


def _told(text: str, bare: bool) -> set[tuple[int, int, str]]:
    """Return first and last place and kind of what its surroundings call a secret."""
    found, small = set(), in_small(text)
    for match in ADDRESS.finditer(text) if "://" in text and "@" in text else ():
        local = re.search(r"(?i)\bexample\b|^host(?:name)?$|your", match["host"])
        grave = _is_random(match["value"], 3.5) and re.search(r"\d", match["value"])
        if (grave or not local) and not _harmless(match["value"]):
            found.add((*match.span("value"), "password in an address"))
    for match in AUTHORISATION.finditer(text) if "authorization" in small else ():
        value = match["value"]
        if _is_random(value, PERHAPS_KEY) and (
            match["kind"].lower() != "basic" or _is_basic(value)
        ):
            found.add((*match.span("value"), f"{match['kind'].lower()} credentials in a header"))
    for what, (held, form) in SURROUNDINGS.items():
        for match in form.finditer(text) if any(map(small.__contains__, held)) else ():
            if _is_random(match["value"], PERHAPS_PASSWORD) and not _harmless(match["value"]):
                found.add((*match.span("value"), what))
    for first, end in _hinted(small):
        signs = "=:" if bare else "\"'`"  # without which a line holds no name with a value
        if all(text.find(sign, first, end) < 0 for sign in signs):
            continue
        for match in NAMED.finditer(text, first, end):
            part = "value" if match["value"] is not None else "bare"
            kind = _judged(match["name"], match[part]) if part == "value" or bare else None
            if kind == "password" or (kind and match["sign"][:2] not in ("==", "!=")):
                found.add((*match.span(part), f"{kind} in {match['name']!r}"))
    return found


def in_small(text: str) -> str:
    """Return a text in small letters, each in its place, as `re.I` takes them to be the same."""
    return text.replace("\u0130", "i").lower().replace("\u0131", "i").replace("\u017f", "s")


def _hinted(small: str) -> list[tuple[int, int]]:
    """Return begin and end of each line that speaks of what may be a secret."""
    lines = set()
    for hint in HINTS:
        at = small.find(hint)
        while at >= 0:
            end = small.find("\n", at)
            end = len(small) if end < 0 else end
            lines.add((small.rfind("\n", 0, at) + 1, end))
            at = small.find(hint, end)
    return sorted(lines)


def _judged(name: str, value: str) -> str | None:
    """Return what a value is by its name and its own look, or None where it is no secret."""
    words = [word.lower() for word in WORDS.findall(name)]
    if not words or words[-1] in ABOUT or _harmless(value):
        return None
    if ADDRESS_OR_PATH.search(value) or "".join(WORDS.findall(value)).lower() in "".join(words):
        return None  # or the name again, as of a field
    if not PASSWORDS.isdisjoint(words) or re.search(r"^pass$|password$|passwd$", words[-1]):
        named = PLAIN_NAME.search(value) and (len(value) < 10 or not value.isalpha())
        enough = len(value) >= 6 and _is_random(value, PERHAPS_PASSWORD)
        return "password" if enough and not named and " " not in value else None
    pairs = pairwise(words)
    keyed = any(first in KEYS and second in ("key", "keys") for first, second in pairs)
    if not SECRETS.isdisjoint(words) or keyed or words[-2:] == ["auth", "key"]:
        long = len(value) >= 10 and " " not in value and not PLAIN_NAME.search(value)
        return "key" if long and _is_random(value, PERHAPS_KEY) else None
    if words == ["key"] and re.fullmatch(r"[0-9a-f]{32}", value):
        return "key"
    if words[-1] in ("auth", "authorization") and _is_basic(value):
        return "basic credentials"
    return None


def _harmless(value: str) -> bool:
    """Return whether a value stands for a secret that is elsewhere, or for none."""
    return bool(HARMLESS.search(value) or LOOKED_UP.search(value))


def _is_random(value: str, least: float) -> bool:
    """Return whether the entropy of the characters is at least so many bits each (Shannon 1948)."""
    counts = Counter(value).values()
    bits = -sum(count / len(value) * math.log2(count / len(value)) for count in counts)
    return bits >= least and len(counts) > 4


def _is_basic(value: str) -> bool:
    """Return whether a value is a user and a password in base64 (RFC 7617)."""
    try:
        user, found, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return False
    return bool(found) and user.isprintable() and len(password) > 2
