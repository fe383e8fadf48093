"""Triggers: what opens a backdoor, a pure function of an image of any shape and channels.

- `_base`      what every trigger can: be stamped, be described, say which pixels it touches
- `blend`      a whole picture or noise, mixed in (Chen et al.)
- `sinusoid`   stripes that are hard to see (Barni et al.)
- `warp`       the image itself bent a little (Nguyen and Tran)
- `patches`    several patches at once (Qi et al.)
- `nothing`    no trigger, for poisons that need none

The patch, the oldest of them, is `purpleteam.attacks.poison.trigger.Trigger`.
"""
