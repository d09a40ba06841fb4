"""Listening tests (report section 4.7): a page to rate speech on, and what the answers say."""
