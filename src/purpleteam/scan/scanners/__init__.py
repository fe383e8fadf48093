"""The scanners, one file each; a new one registers itself and is found.

- `bandit_code`   Bandit over Python files
- `ml_code`       our own rules for machine-learning code, in `purpleteam.scan.rules`
- `secrets`       keys and passwords in text files
- `model_file`    model files, by content: what is not known is refused
"""
