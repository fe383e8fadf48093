"""What every other room stands on; no torch, and instant to import.

- `records`     frozen facts (Measurement, Finding, CheckResult, ...), with `statistics`
- `checks`      executed checks with negative controls, in CHECKS;  `verification`: of a run folder
- `registry`    plug-ins: one file each, no list to edit
- `runfolder`   the contract between all parts, on the hash-chained `ledger`;  `cell_index`: where
                each cell stands in it
- `cards`       stored models and zoo names without torch;  `digest`: names for content
- `config`      mappings into dataclasses, unknown keys refused
- `machine`     who runs on what; the same bytes on every x86 processor, where that is asked
- `progress`    how long work says where it is;  `errors`: the one exception tree
- `scratch`     temporary files, which go with their process
"""
