"""What a model gives away: its training images, its weights; and what bounds that.

- `membership/`  was this image learned? one file an attack, over shadow models (`shadows`)
- `extraction/`  a copy of the model, from its answers
- `inversion/`   an image of a class, from the model
- `questions`    what a model is asked
- `audit`        what a training with differential privacy leaks, against what it may
"""

__all__: list[str] = []
