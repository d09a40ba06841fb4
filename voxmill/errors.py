"""The one error type for what a user can mend."""


class UserError(Exception):
    """A user's mistake, told in one line that names the file, line or value and what to do; exit status 2."""
