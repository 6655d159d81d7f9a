"""The user study: people compare methods' results in a local web page."""
