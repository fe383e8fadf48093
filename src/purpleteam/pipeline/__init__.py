"""The flow, top to bottom; the only place that knows all rooms.

- `config`    what a run is asked: a profile, a file, `--set`;  `profiles/`: demo, quick, mnist
- `run`       STAGES, and a run from data to report, resumable at any moment; its records as JSON
- `stages/`   one file a stage; each piece of work is a cell of the run folder
- `validation` what a stage would stumble over, refused before any work
- `state`     what the stages share;  `ahead`: its cells, by an engine;  `cells`: one of them
- `sweep`     the cells of a `plan`, the product of what a file lists;  `engines/`: who does them
- `naming`    what a cell of a sweep is named by;  `sweep_table`: all that its cells measured
- `replay`    re-run the cell behind one record and compare
"""
