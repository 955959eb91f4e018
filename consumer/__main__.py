"""`python -m consumer` is `full-pass`."""

import gc

gc.disable()  # what an import makes stays: looking through it again and again takes a quarter of the start

from consumer.commands import main  # noqa: E402

gc.enable()

if __name__ == "__main__":
    main()
