"""`python -m longalign_core.cli`."""

from longalign_core.cli import main

main()
