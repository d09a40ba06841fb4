"""Listening tests (report section 4.7): a page to rate speech on, and the scores of the answers."""
