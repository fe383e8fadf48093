"""Whom to tell of a hole in the app: security.txt (RFC 9116)."""

from dataclasses import dataclass
from datetime import UTC, datetime

URIS = ("https://", "mailto:", "tel:")  # RFC 9116, 2.5.3, says https for the web


@dataclass(frozen=True, kw_only=True)
class Disclosure:
    """What /.well-known/security.txt says; without a contact there is none."""

    contact: str | None = None
    """https://, mailto: or tel: of whoever takes reports."""
    expires: str | None = None
    """From this day it is not to be believed: 2027-06-30; at most a year ahead is advised."""
    policy: str | None = None
    """https:// of how reports are dealt with."""

    def __post_init__(self) -> None:
        if self.contact is None:
            if self.expires is not None or self.policy is not None:
                raise ValueError("contact is needed where expires or policy is given")
            return
        if not self.contact.startswith(URIS) or not _is_one_line(self.contact):
            raise ValueError(f"contact {self.contact!r} is not https://, mailto: or tel:")
        policy = self.policy or "https://"
        if not policy.startswith("https://") or not _is_one_line(policy):
            raise ValueError(f"policy {policy!r} is not https://")
        if self.expires is None:
            raise ValueError("expires is needed with a contact (RFC 9116, 2.5.5)")
        if self.end <= datetime.now(UTC):
            raise ValueError(f"expires {self.expires!r} is not in the future")

    @property
    def end(self) -> datetime:
        """When it expires; a day begins at midnight UTC."""
        try:
            end = datetime.fromisoformat(str(self.expires))
        except ValueError:
            raise ValueError(f"expires {self.expires!r} is no day such as 2027-06-30") from None
        return end if end.tzinfo else end.replace(tzinfo=UTC)

    def text(self) -> str | None:
        """Return the file; None where there is no contact, or once it has expired."""
        if self.contact is None or self.end <= datetime.now(UTC):
            return None
        lines = [f"Contact: {self.contact}", f"Expires: {self.end.isoformat()}"]
        lines += [f"Policy: {self.policy}"] if self.policy else []
        return "".join(f"{line}\n" for line in lines)


def _is_one_line(text: str) -> bool:
    return text.isprintable() and " " not in text
