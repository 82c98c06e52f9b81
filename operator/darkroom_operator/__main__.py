"""`python -m darkroom_operator`."""

from darkroom_operator.main import main

main()
