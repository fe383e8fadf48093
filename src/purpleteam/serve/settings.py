"""All that the app is asked but the model: one frozen `Settings`, from a file and options."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from purpleteam.core.config import build, from_file, merge, override
from purpleteam.serve.disclosure import Disclosure
from purpleteam.serve.feedback import Feedback
from purpleteam.serve.guards.abuse import Suspicion
from purpleteam.serve.guards.audit import Audit
from purpleteam.serve.guards.client import Proxies
from purpleteam.serve.guards.rate import RateLimit
from purpleteam.serve.guards.visit import ANY_ADDRESS as ANY_ADDRESS
from purpleteam.serve.guards.watch import Watching
from purpleteam.serve.supervisor import Workers
from purpleteam.serve.tls import Tls

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = (
    "0.0.0.0",  # noqa: S104  # purple: allow B104 until 2027-11-30 as it needs allow_remote
    "::",
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on one client and on all together; counts, bytes and seconds."""

    body_bytes: int = 784  # most bytes of a body: an image of 28x28 grey pixels
    batch_images: int = 64  # most images of /predict/batch, of 784 bytes each
    body_seconds: float = 5.0  # from the end of a head to the end of its body
    head_bytes: int = 16_384  # most bytes that are no body: head, trailers, sizes of chunks
    fields: int = 100  # most header fields of a request, trailers included
    waiting_bytes: int = 4096  # most that are kept of what follows an unanswered request
    waiting_requests: int = 8
    head_seconds: float = 5.0  # from the connection, or the last answer, to the end of a head
    answer_seconds: float = 10.0  # from the end of a head to the end of its answer
    connections: int = 128  # one more takes the place of the one that waits longest
    connections_each: int = 64  # of one address
    at_work_seconds: float = 1.0  # so long a request under way keeps its place, in any crowd


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the app is served."""

    host: str = "127.0.0.1"  # to listen on; anything but loopback needs `keys` or `allow_remote`
    port: int = 8000  # 0 takes a free one
    allow_remote: bool = False  # let anybody in who reaches this machine
    allowed_hosts: tuple[str, ...] = ()  # further names that a request's Host may have, no port
    expose_confidences: bool = False  # also answer with the probability of each class
    keys: Path | None = None  # a file of API keys (`purple keys`), one of which each POST needs
    proxies: Proxies = field(default_factory=Proxies)
    rate: RateLimit = field(default_factory=RateLimit)
    digest: str | None = None  # the identity that the model must have: sha256:..., as /version says
    require_signature: Path | None = None  # the public key that must have signed the model
    sandbox: bool | Literal["require"] = True
    """Confine the process for good: as far as the kernel can, or else not serve (`require`)."""
    strip: Path | None = None  # a STRIP fitted to the model; what it flags gets no label
    squeeze: float | None = None
    """Ask the model three times, and tell no label where the answers differ by more: 0 to 2."""
    limits: Limits = field(default_factory=Limits)
    feedback: Feedback = field(default_factory=Feedback)
    workers: Workers = field(default_factory=Workers)
    tls: Tls = field(default_factory=Tls)
    audit: Audit = field(default_factory=Audit)
    watch: Watching = field(default_factory=Watching)
    abuse: Suspicion = field(default_factory=Suspicion)
    disclosure: Disclosure = field(default_factory=Disclosure)
    without: tuple[str, ...] = ()
    """Guards and other parts that are left out: the mechanism-off variant, where a check fails."""

    @property
    def lets_others_in(self) -> bool:
        """Whether the app may be reached from other machines."""
        return self.allow_remote or self.keys is not None

    @property
    def hosts(self) -> frozenset[str]:
        """All that a request's Host may name, without port, in lower case."""
        everywhere = [ANY_ADDRESS] if self.host in EVERYWHERE else []
        named = [name.lower() for name in (self.host, *self.allowed_hosts)]
        return frozenset([*LOOPBACK_HOSTS, *named, *everywhere])


def resolve(file: Path | None, options: dict[str, Any], overrides: Iterable[str] = ()) -> Settings:
    """Return the settings of a TOML file, those of options over it, and each `a.b=c` over both."""
    values = {} if file is None else from_file(file)
    source = "settings" if file is None else str(file)
    return build(Settings, override(merge(values, options), overrides), source)
