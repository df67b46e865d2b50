"""What an installation does here, checked: `python -m suder_ext.selftest`."""
