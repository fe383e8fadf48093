"""Around a model: checks that are switched off, archives, keys in code."""

import ast
from collections.abc import Iterator

from purpleteam.scan.rules import Hit, Module, argument, is_literal, item, nodes_of, rule
from purpleteam.scan.rules.served import flow, functions

CLIENTS = ("requests", "httpx", "aiohttp", "urllib3", "ssl")
REQUESTS = frozenset({
    *("get", "post", "put", "patch", "delete", "head", "options", "request", "stream"),
    *("Client", "AsyncClient", "Session", "ClientSession", "TCPConnector", "HTTPTransport"),
})  # fmt: skip
LISTS = ("namelist", "infolist", "getnames", "getmembers")
KEYED = frozenset({
    *("jwt.encode", "jwt.decode", "jose.jwt.encode", "jose.jwt.decode", "hmac.new"),
    *("cryptography.fernet.Fernet", "itsdangerous.Signer", "itsdangerous.TimestampSigner"),
    *("itsdangerous.URLSafeSerializer", "itsdangerous.URLSafeTimedSerializer"),
})  # fmt: skip


@rule("PT023", "high", 295, "leave the check on; name the authority's certificate, or the key",
      needs="verify ssl cert_none")  # fmt: skip
def taken_unchecked(module: Module) -> Iterator[Hit]:
    """A certificate or a signature that is not checked: anybody may stand in between."""
    web = module.imports(*CLIENTS)
    for call, name in module.calls:
        off = [item(argument(call, "options", 3), "verify_signature")]
        if web and name.split(".")[-1] in REQUESTS:
            off += [argument(call, one) for one in ("verify", "ssl", "verify_ssl")]
        unchecked = getattr(argument(call, "cert_reqs"), "value", "") == "CERT_NONE"
        if unchecked or any(isinstance(one, ast.Constant) and one.value == 0 for one in off):
            yield Hit(call, f"{name} takes what it gets unchecked")
    for node, name in module.used(("_create_unverified_context", "CERT_NONE")):
        if name in ("ssl._create_unverified_context", "ssl.CERT_NONE"):
            yield Hit(node, f"{name} takes any certificate")
    for node in module.of(ast.Assign) if web else ():
        target = getattr(node.targets[0], "attr", "")
        if target in ("verify", "check_hostname") and is_literal(node.value, False):
            yield Hit(node, f"{target} is switched off: any certificate will do")


@rule("PT024", "medium", 22, "tarfile: filter='data'; zipfile: extract(), which cleans names",
      needs="tarfile unpack_archive namelist infolist")  # fmt: skip
def archive_unpacked(module: Module) -> Iterator[Hit]:
    """An archive that may write outside the folder into which it is unpacked."""
    any_tar = module.imports("tarfile") and not module.imports("zipfile")
    for function in functions(module, "tarfile", "zipfile", "shutil"):
        tar = flow(function, lambda one: module.dotted(one).startswith("tarfile."))
        listed = flow(function, lambda one: getattr(one, "attr", "") in LISTS)
        tests = (row.test for row in nodes_of(function) if isinstance(row, ast.If))
        named = any(getattr(row, "attr", "") == "name" for one in tests for row in nodes_of(one))
        for call, name in module.calls_in(nodes_of(function)):
            chosen, mode = argument(call, "filter"), argument(call, "mode", 1)
            loose = getattr(chosen, "value", chosen) in (None, "fully_trusted")
            members = argument(call, "members", 1) if name.endswith("all") else None
            unpacks = name.endswith((".extract", ".extractall")) and (any_tar or tar(call.func))
            unpacks = unpacks and not (named or isinstance(members, ast.Call))
            if loose and (unpacks or name == "shutil.unpack_archive"):
                yield Hit(call, f"{name} without filter writes where the archive says")
            writes = name == "open" and getattr(mode, "value", "") in ("w", "wb", "xb")
            if writes and any(map(listed, call.args[:1])):
                yield Hit(call, "a file is written under the name that an archive gives it")


@rule("PT025", "high", 321, "read keys from the environment or a key store, and change this one",
      needs="jwt fernet hmac itsdangerous")  # fmt: skip
def key_in_code(module: Module) -> Iterator[Hit]:
    """A key that signs or encrypts and is written in the code."""
    for node in module.of(ast.Call):
        name = module.dotted(node.func)
        key = argument(node, "key", int("jwt" in name)) if name in KEYED else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str | bytes) and key.value:
            yield Hit(node, f"{name} gets a key that is written here")
