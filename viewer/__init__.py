"""The browser app: what it shows, and the server that shows it; only this package knows viser."""
