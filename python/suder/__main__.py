"""`python -m suder`, for launchers that start a module: `accelerate launch -m suder train ...`."""

from suder.cli import main

raise SystemExit(main())
