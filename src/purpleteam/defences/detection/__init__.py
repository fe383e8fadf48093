"""Find backdoors: in a training set, in a trained model and at input time; instant to import.

- `training_set/` which training images are poisoned; `model/` whether a model has a backdoor
- `outcome` what a scan may answer; `recovered` the trigger that a model scan found
- `strip` is this input triggered? NumPy alone, so that the app can ask it; `strip_fit` with torch
- `metrics` how good a detection or a repair was, with intervals
"""
