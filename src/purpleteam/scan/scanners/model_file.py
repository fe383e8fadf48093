"""Model files, by content and not by name; pickles are walked wherever they hide, never loaded."""

from pathlib import Path

from purpleteam.scan.scanner import ScanResult, file_scanner


@file_scanner("model-file")
def scan_model_files(file: Path, name: str) -> ScanResult | None:
    """Return findings on a file that is, claims to be, or holds a model."""
    from purpleteam.scan.formats.containers import STREAMS  # NumPy: not before Bandit is at work
    from purpleteam.scan.formats.problem import GRADES, MOST_FINDINGS, MOST_LETTERS
    from purpleteam.scan.formats.sniff import MODEL_KINDS
    from purpleteam.scan.judgement import judge

    judged = judge(file)
    opened = MODEL_KINDS | STREAMS.keys()
    if not (judged.problems or judged.claims_model or judged.kind in opened):
        return None
    worst = sorted(judged.problems, key=lambda row: -GRADES.index(row.grade))
    told = {f"{row.grade}: {row}"[:MOST_LETTERS]: row.rule for row in worst[:MOST_FINDINGS]}
    if left := worst[MOST_FINDINGS:]:
        told[f"{left[0].grade}: {len(left)} more faults of this file"] = left[0].rule
    findings = tuple(rule.finding("model-file", text, path=name) for text, rule in told.items())
    unread = [str(row) for row in judged.problems if row.grade == "unread"]
    if unread:
        return ScanResult(findings=findings, skipped=((name, f"unread: {unread[0]}"),))
    return ScanResult(findings=findings, scanned=(name,))
