"""The scanners, one file each; a new one registers itself and is found."""
