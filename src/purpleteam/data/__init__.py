"""Images and where they come from; no torch. (Map to be completed.)"""
