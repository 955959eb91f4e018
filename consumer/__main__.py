"""`python -m consumer` is `full-pass`."""

import gc
import sys

gc.disable()  # what an import makes stays: looking through it again and again takes a quarter of the start

try:
    from consumer.commands import main
except KeyboardInterrupt:
    sys.exit(130)

gc.enable()

if __name__ == "__main__":
    main()
