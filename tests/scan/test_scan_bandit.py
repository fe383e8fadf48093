"""Bandit's findings by our own walk of a file are those of Bandit's."""

import json
import subprocess
import sys

import pytest

from purpleteam.scan import scan
from purpleteam.scan.scanners import bandit_code
from purpleteam.scan.settle import MILDER

EACH_TEST = """# coding: utf-8
import crypt, flask, ftplib, hashlib, importlib, jinja2, logging.config, mako.template, os, paramiko
import pickle, random, requests, ssl, subprocess as sp, tarfile, telnetlib, torch, yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from django.utils.safestring import mark_safe
from django.db.models.expressions import RawSQL
from markupsafe import Markup as M
from os import system as s, chmod
from pysnmp.hlapi import CommunityData, UsmUserData
from transformers import AutoModel
from . import near
bidi = "\u202e"
assert near
exec(code); eval(code)
chmod("/etc/x", 0o777)
bind("0.0.0.0"); text = "\\x30.0.0.0"
password = "Joshua"
class Log: token = "hunter"
table = {"secret": "word"}
table["pwd"] = "word"
if user.passwd == "root": login(password="root")
def log_in(user, password="hunter2", how=ssl.PROTOCOL_SSLv3): "0.0.0.0"
open("/var/tmp"); open(b"/var/tmp"); open("/dev/shm/x")
try: pass
except Exception: pass
for _ in ():
    try: pass
    except: continue
requests.get(url, verify=False); requests.post(url, timeout=None)
app = flask.Flask("a"); app.run(debug=True)
tarfile.open(name).extractall(); crypt.crypt("a", "METHOD_MD5")
hashlib.md5(x); hashlib.new("sha1"); getattr(hashlib, "md5")(x)
ssl.wrap_socket(ssl_version=ssl.PROTOCOL_SSLv2); ssl.wrap_socket(); f(method=SSLv3_METHOD)
rsa.generate_private_key(65537, 512); yaml.load(x); yaml.load(x, Loader=yaml.SafeLoader)
client = paramiko.SSHClient(); client.set_missing_host_key_policy(paramiko.AutoAddPolicy)
client.exec_command(x); CommunityData("p", mpModel=0); UsmUserData("a")
sp.Popen(x, shell=True); sp.run(["ls", x]); sp.call("/bin/ls"); other(x, shell=True); s("ls *")
os.execl("a", "b"); s("tar *"); sp.Popen("chown * a", shell=True); os.popen("ls"); os.spawnv(1)
users.extra(where=[x]); RawSQL(f"{x}"); logging.config.listen(9999)
"select %s from t " % x; f"SELECT {x} FROM {t} "; cursor.execute("delete from " + x + " where 1")
"insert into t values (%s)".format(x)
torch.load(x); AutoModel.from_pretrained("m"); pickle.loads(x); random.random()
jinja2.Environment(autoescape=False); mako.template.Template(x); mark_safe(x); M(x)
__import__("telnetlib"); importlib.import_module("pickle"); importlib.import_module(name)
async def nobody(password="hunter2"): "0.0.0.0"
"""
FILES = {
    "each.py": EACH_TEST,
    "bidi.py": '# \u202e\nx = 1\n',
    "seven.py": "# coding: utf-7\n# +IC4-\n",
    "escaped.py": 'x = "\\x2ftmp"; from os import s\uff59stem as q; q("ls")\n',
    "joined.py": 'x = f"sel{a}ect {b} fr" f"om {c} "; y = "0.0" ".0.0"\n',
    "renamed.py": '__import__ = near\nimport near as __import__\n__import__("pickle")\n',
    "order.py": """@decorated(s("ls *"))
def f() -> later.system("tar *"):
    from os import system as s; import os as later
    return q.system("a")
s("ls"); import os as q
@decorated(t("x"))
class A(q.system("ls")): from os import system as t
""",
    "broken.py": "def f(:\n",
    "zero.py": "x = 1\0\n",
    "package/__init__.py": "",
    "package/plain.py": "def f(n):\n    return n + 1\n",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_findings_are_those_of_bandits_own_driver(folder, monkeypatch):
    monkeypatch.chdir(folder)
    command = [sys.executable, "-m", "bandit", "-q", "--ignore-nosec", "-f", "json", *FILES]
    said = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)
    parts = (
        "filename",
        "line_number",
        "test_id",
        "issue_severity",
        "issue_confidence",
        "more_info",
    )
    theirs = {
        tuple(str(row[part]).lower() for part in parts)
        for row in said["results"]
        if row["test_id"] not in MILDER
    }
    result = scan(["."], ["bandit"])
    ours = {
        tuple(str(part).lower() for part in (f"./{row.place['path']}", row.place["line"], *told))
        for row in result.findings
        if row.tool.startswith("bandit")
        for told in [(row.rule, row.severity, row.confidence, row.fix)]
        if row.rule not in MILDER
    }
    assert ours == theirs and len({rule for _, _, rule, *_ in ours}) > 45
    broken = {(row["filename"], f"bandit: {row['reason']}") for row in said["errors"]}
    assert {(f"./{name}", why) for name, why in result.skipped} == broken


def test_a_file_that_ends_bandit_costs_no_other(tmp_path, monkeypatch):
    deadly = "import ast, os\nparse = ast.parse\n"
    deadly += "ast.parse = lambda data: os._exit(3) if data == b'fatal' else parse(data)\n"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(deadly)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    (tmp_path / "code").mkdir()
    for name, text in {"a": "eval(x)", "b": "fatal", "c": "exec(x)", "d": "fatal"}.items():
        (tmp_path / "code" / f"{name}.py").write_text(text)
    result = scan([tmp_path / "code"], ["bandit"])
    assert {"B307", "B102"} <= {one.rule for one in result.findings}
    assert result.scanned == ("code/a.py", "code/c.py") and not result.errors
    broken = dict(result.skipped)
    assert broken.keys() == {"code/b.py", "code/d.py"}
    assert broken["code/b.py"].startswith("bandit ended with 3")


def test_what_was_begun_ahead_is_what_is_waited_for(tmp_path):
    (tmp_path / "a.py").write_text("eval(x)")
    bandit_code.start(["--json", "no such file", str(tmp_path)])
    (wait,) = bandit_code._begun.values()
    assert bandit_code.begin(tmp_path, bandit_code.CODE) is wait and not bandit_code._begun
    assert {"B307"} == {one.rule for one in wait()["bandit"].findings}
