"""The command line's side: it reads crops from disk and talks to the HTTP API like any other client."""
