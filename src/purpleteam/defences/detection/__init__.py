"""Find backdoors: in a training set, in a trained model and at input time; instant to import.

- `outcome`        what a scan may answer: backdoored, nothing found, or not established
- `training_set/`  which training images are poisoned, class and rate unknown
- `model/`         whether a model has a backdoor, for which target, and what opens it
- `recovered`      the trigger that a model scan found, as a picture and as a function
- `strip`          STRIP: is this input triggered? NumPy alone, so that the app can ask it
- `strip_fit`      STRIP fitted to a model of torch
- `metrics`        how good a detection or a repair was, with intervals; NumPy alone
"""
