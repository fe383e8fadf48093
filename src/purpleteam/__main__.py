"""`python -m purpleteam` is `purple`, for whoever has no scripts on the path."""

from purpleteam.cli import main

if __name__ == "__main__":
    main()
