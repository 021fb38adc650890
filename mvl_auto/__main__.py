"""python -m mvl_auto train 4 fold0 runs mvl_train."""

from mvl_auto.cli.main import main

raise SystemExit(main())
