"""The console's index: a file beside the store that finds messages and jobs. It is never trusted over the log."""
